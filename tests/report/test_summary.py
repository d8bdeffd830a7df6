"""The closing table: stages, accuracy with its interval, and where everything lies."""

import json
from pathlib import Path

import pytest
from made_up import least_metrics

from app.core.run_folder import Run
from app.report.report import print_summary


def scores(accuracy: float, log_loss: float) -> dict[str, object]:
    interval = [0.9552, 0.9772]
    return {"n": 1000, "accuracy": accuracy, "accuracy_interval_95": interval, "log_loss": log_loss}


METRICS = least_metrics(scores(0.97, 0.08), scores(0.968, 0.091))
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


def test_the_accuracy_never_comes_without_its_interval(printed):
    (line,) = [line for line in printed("runs/first").splitlines() if "Test accuracy" in line]
    for words in ("0.9680", "95 % interval 0.9552 to 0.9772", "0.0910", "1000 photos"):
        assert words in line


@pytest.mark.parametrize("name", ["first", ":cat:", "[bold]x[/bold]", "a " * 60 + "b"])
def test_names_are_shown_as_they_are(printed, name):
    """No emoji, no markup, no wrapping: people copy them."""
    out = printed(f"runs/{name}")
    assert f"Everything lies in runs/{name} (" in out.splitlines()[-1]


def test_the_last_words_can_be_pasted(printed):
    assert printed("runs/first").endswith(" Now: python predict.py PHOTO\n")
    elsewhere = printed("else where/first")
    assert elsewhere.endswith(" Now: python predict.py --bundle 'else where/first/bundle' PHOTO\n")
