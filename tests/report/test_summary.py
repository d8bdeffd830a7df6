"""The closing lines: stages, how test was answered, and where everything lies."""

import dataclasses
import json
from pathlib import Path

import msgspec
import pytest
from made_up import least_metrics

from app.core.run_folder import Run
from app.core.run_metrics import Metrics
from app.report.report import print_summary
from app.report.verdict import chosen_out_of_fold, scored, verdict


def scores(accuracy: float, log_loss: float) -> dict[str, object]:
    interval = [0.9552, 0.9772]
    return {"n": 1000, "accuracy": accuracy, "accuracy_interval_95": interval, "log_loss": log_loss}


ANSWERED = {
    "counts": {"right": 954, "wrong": 16, "neither": 30, "unsure": 0},
    "confusion": [[484, 16], [16, 484]],
}
METRICS = least_metrics(scores(0.97, 0.08), scores(0.968, 0.091) | ANSWERED)
METRICS["stages"] = [
    {
        "name": name,
        "trainable_parameters": trainable,
        "epochs": epochs,
        "kept_epoch": epochs,
        "seconds": seconds,
        "validation": {**METRICS["validation"], **scores(accuracy, loss)},
    }
    for name, trainable, epochs, seconds, accuracy, loss in (
        ("head", 2050, 17, 9.7, 0.95125, 0.12344),
        ("block5", 7081474, 4, 812.2, 0.9725, 0.08),
    )
]


@pytest.fixture
def printed(tmp_path, monkeypatch, capsys):
    """Print the summary of a fabricated run under that name and return stdout."""
    monkeypatch.chdir(tmp_path)

    def call(folder: str) -> str:
        run = Run(Path(folder))
        run.folder.mkdir(parents=True)
        run.metrics.write_text(json.dumps(METRICS))
        print_summary(run)
        out, err = capsys.readouterr()
        assert err == ""
        return out

    return call


def test_a_row_for_each_stage(printed):
    header, *rows = [line.split() for line in printed("runs/first").splitlines()[:3]]
    assert header[:4] == ["stage", "trainable", "epochs", "seconds"]
    assert rows == [
        ["head", "2,050", "17", "10", "0.9513", "0.1234"],
        ["block5", "7,081,474", "4", "812", "0.9725", "0.0800"],
    ]


def test_what_a_user_gets_comes_first_then_the_likeliest_class(printed):
    lines = printed("runs/first").splitlines()
    at = lines.index(
        "Of 1,000 test photos: 954 right (95.4 %), 16 wrong (1.6 %), 30 neither (3.0 %), "
        "0 unsure (0.0 %)."
    )
    assert lines[at + 1] == (
        "The likeliest class is right for 968 of them: accuracy 0.9680 (95 % interval "
        "0.9552–0.9772), log-loss 0.0910, calibration error 0.0100."
    )


def metrics(n: int, **more: object) -> Metrics:
    """Metrics of n test photos, all of them right but one."""
    right = {"n": n, "counts": {"right": n - 1, "wrong": 0, "neither": 1, "unsure": 0}}
    made = least_metrics(scores(0.97, 0.08), {**scores(0.95, 0.1), **right})
    return msgspec.convert({**made, "stages": METRICS["stages"], **more}, Metrics)


CROSS_VALIDATED = {"photos": 38, "right": 36, "accuracy": 36 / 38, "log_loss": 0.21}


def test_of_few_test_photos_no_share_is_told():
    head = {**METRICS["stages"][0], "cross_validated": CROSS_VALIDATED}
    alone, beside = verdict(metrics(29)), verdict(metrics(29, stages=[head]))
    assert alone == [
        "Test photos: 28 of 29 right, 0 wrong, 1 neither, 0 unsure; too few to say more."
    ]
    assert beside == [
        *alone,
        "Cross-validated on the 38 photos of train and validation: the likeliest class is right "
        "for 36 (94.7 %), log-loss 0.2100.",
    ]
    few = {**CROSS_VALIDATED, "photos": 29, "right": 28}
    assert verdict(metrics(29, stages=[{**head, "cross_validated": few}]))[1].endswith(
        "the likeliest class is right for 28, log-loss 0.2100."
    )
    assert [name for name, _ in scored(metrics(29))] == ["validation"]
    assert verdict(metrics(30))[0].startswith("Of 30 test photos: 29 right (96.7 %), 0 wrong")


def test_small_validation_chooses_by_out_of_fold_answers_where_there_are_any():
    head = {**METRICS["stages"][0], "cross_validated": CROSS_VALIDATED}
    for count, stages, expected in ((229, [head], True), (230, [head], False), (229, [], False)):
        photos = {"train": 9, "validation": count, "test": 60}
        assert chosen_out_of_fold(metrics(60, stages=stages, photos=photos)) is expected


def test_test_without_excluded_photos_is_told_after_the_whole():
    whole = metrics(60)
    both = dataclasses.replace(whole, test_without_excluded=metrics(57).test)
    sentences = verdict(both)
    assert sentences[:2] == verdict(whole)
    assert sentences[2].startswith(
        "Of the 57 test photos that were not excluded: 56 right (98.2 %)"
    )
    assert len(sentences) == 4


@pytest.mark.parametrize("name", ["first", ":cat:", "[bold]x[/bold]", "a " * 60 + "b"])
def test_names_are_shown_as_they_are(printed, name):
    """No emoji, no markup, no wrapping: people copy them."""
    out = printed(f"runs/{name}")
    assert f"Everything lies in runs/{name} (" in out.splitlines()[-1]


def test_the_last_words_can_be_pasted(printed):
    assert printed("runs/first").endswith(" Now: python predict.py PHOTO\n")
    elsewhere = printed("else where/first")
    assert elsewhere.endswith(" Now: python predict.py --bundle 'else where/first/bundle' PHOTO\n")
