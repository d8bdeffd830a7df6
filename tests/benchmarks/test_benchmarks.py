"""The benchmarks' arithmetic on figures that a hand can check, and each program in small."""

import io
import json
import resource
import shutil
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from made_up import least_metrics
from photos import class_folders, make_photo, picture
from PIL import Image

import benchmarks.runs
from app.core.atomic_files import write_json, write_rows
from app.core.cli import run
from app.core.config import TrainConfig
from app.core.errors import AppError, UsageError
from app.core.run_folder import Run
from app.core.run_metrics import HistoryRow, write_history
from app.data.audit import audit
from app.data.folder_layout import find_files
from app.data.manifest import ManifestRow, write_manifest
from app.evaluation.findings import write_findings
from app.evaluation.prediction_set import PredictionSet
from app.pipeline import config_values
from app.report.results import Results
from benchmarks import accuracy, frozen, scale, training
from benchmarks.command import train_flags
from benchmarks.markdown import markdown_table
from benchmarks.measured import anonymous_bytes, measure
from benchmarks.scale import Cost
from benchmarks.training import Row
from train import parse

MIB = 2**20
COUNTS = {"train": 16, "validation": 6, "test": 6}


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folders = {f"{split}/{label}": n for split, n in COUNTS.items() for label in ("cat", "dog")}
    return class_folders(tmp_path_factory.mktemp("data"), folders)


# ---- measuring a process ------------------------------------------------------------------------


def test_a_process_is_measured_with_what_it_starts():
    child = f"import time; held = bytearray({200 * MIB}); time.sleep(1.2)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}]); print(7)"
    found = measure([sys.executable, "-c", parent])
    assert found.stdout == "7\n"
    assert 1.2 <= found.seconds < 10
    # Linux lets a new process begin with the peak of the one that started it: this one's.
    own = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert 200 * MIB <= found.peak_rss < max(500 * MIB, own + 100 * MIB)
    assert 200 * MIB <= found.peak_anonymous < 500 * MIB


def test_mapped_pages_are_told_apart_from_memory_that_stays(tmp_path):
    path = tmp_path / "mapped"
    path.write_bytes(bytes(300 * MIB))
    code = (
        "import mmap, time\n"
        f"with open({str(path)!r}, 'rb') as file:\n"
        "    pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)\n"
        "sum(pages[::4096]); time.sleep(0.7)"
    )
    found = measure([sys.executable, "-c", code])
    assert found.peak_rss >= 300 * MIB
    assert found.peak_anonymous < 100 * MIB


def test_a_failing_command_is_named():
    with pytest.raises(AppError, match=r"received exit code 3 from .*SystemExit\(3\)"):
        measure([sys.executable, "-c", "raise SystemExit(3)"])


def test_the_variables_of_a_process_are_added_to_ours():
    code = "import os; print(os.environ['MEASURED'], 'PATH' in os.environ)"
    assert measure([sys.executable, "-c", code], env={"MEASURED": "1"}).stdout == "1 True\n"


def test_without_proc_the_memory_that_stays_is_unknown(tmp_path):
    assert anonymous_bytes(1, tmp_path) is None


# ---- tables -------------------------------------------------------------------------------------


def test_a_table_is_markdown():
    assert markdown_table(["what", "n"], [["a", "1"], ["longer", "22"]]).splitlines() == [
        "| what   |  n |",
        "| :----- | -: |",
        "| a      |  1 |",
        "| longer | 22 |",
    ]


# ---- training -----------------------------------------------------------------------------------


def row(name: str, seconds: float, **details: object) -> Row:
    return Row(name, seconds, peak_rss=2**30, peak_anonymous=None, details=details)


def test_the_recipe_is_fifty_and_thirty_epochs():
    times = {
        "load_seconds": 1.0,
        "epoch_seconds": {"frozen base": 10.0, "last four layers open": 100.0},
        "test_seconds": 7.0,
    }
    assert training.whole_recipe(times) == 1 + 50 * 10 + 30 * 100 + 7


@pytest.mark.parametrize(
    ("head", "staged", "met"), [(99, 330, [True, True]), (101, 335, [False, False])]
)
def test_the_bars_are_shares_of_the_recipes_time(head, staged, met):
    rows = [row("recipe", 4000), row("head", head), row("staged", staged)]
    assert [bar[2] for bar in training.bars(rows)][:2] == met


def test_memory_and_a_cache_that_grew_are_judged():
    kept = training.bars([row("staged again", 1, cache_bytes=0)])
    assert [met for _, _, met in kept] == [True, True]
    grown = training.bars([Row("staged again", 1, 5 * 2**30, None, {"cache_bytes": 1})])
    assert [met for _, _, met in grown] == [False, False]


def test_the_fastest_of_several_rounds_counts():
    best: dict[str, Row] = {}
    for seconds in (5, 3, 4):
        training.keep_faster(best, row("head", seconds))
    assert best["head"].seconds == 3


def test_a_few_photos_have_both_classes_in_each_split(photos, tmp_path):
    found = find_files(training.copy_some(photos, tmp_path / "few", 5))
    counts = [(file.split, file.label) for file in found]
    assert len(counts) == 12
    assert {counts.count(place) for place in counts} == {2}


def test_a_timed_part_of_an_epoch_is_scaled_by_photos():
    class Dataset:
        file_paths = range(70)  # batches of 32, 32 and 6

        def __len__(self):
            return 3

        def take(self, batches):
            return batches

    assert training._first_batches(Dataset(), 1.0) == (3, 1.0)
    assert training._first_batches(Dataset(), 0.5) == (2, 70 / 64)
    assert training._first_batches(Dataset(), 0.01) == (1, 70 / 32)


def test_photos_without_splits_are_refused(tmp_path, capsys):
    class_folders(tmp_path, {"cat": 1, "dog": 1})
    assert run(training.main, ["--data", str(tmp_path)]) == 2
    assert "the recipe needs train/, validation/ and test/" in capsys.readouterr().err


# ---- accuracy -----------------------------------------------------------------------------------


def results(answers: list[int], **test: float) -> Results:
    """Ten photos of class 0; an answer of 0 is right."""
    given = np.array(answers)
    probabilities = np.where(given[:, None] == [0, 1], 0.8, 0.2)
    names = tuple(map(str, range(len(answers))))
    predictions = {
        "test": PredictionSet(
            names, np.zeros(len(answers), np.int64), probabilities, np.zeros(len(answers))
        )
    }
    scores = {"accuracy": float((given == 0).mean()), "log_loss": 0.1, "ece": 0.01, **test}
    metrics: Any = SimpleNamespace(test=SimpleNamespace(**scores))
    return Results("seed0", TrainConfig(), metrics, [], [], [], [], predictions)


def test_mcnemar_by_hand():
    one = results([0, 1, 1, 1, 1, 1, 1, 1, 1, 0])
    two = results([1, 0, 0, 0, 0, 0, 0, 0, 1, 0])
    found = accuracy.compare(one, two)
    assert (found.first_only, found.second_only, found.both_wrong) == (1, 7, 1)
    assert found.p_value == pytest.approx(2 * (1 + 8) / 2**8)  # at most 1 of 8 by coin tosses
    assert accuracy.compare(one, one).p_value == 1


def test_the_interval_over_seeds_is_students():
    low, high = accuracy.seed_interval(np.array([0.98, 0.99, 1.0]), highest=2.0)
    half = 4.302652729911275 * 0.01 / np.sqrt(3)  # t(0.975) with two degrees of freedom
    assert (low, high) == pytest.approx((0.99 - half, 0.99 + half))
    assert accuracy.seed_interval(np.array([0.98, 0.99, 1.0]), highest=1.0)[1] == 1.0
    assert accuracy.seed_interval(np.array([0.99]), highest=1.0) is None


def test_the_interval_over_photos_is_that_of_a_mean():
    values = np.random.default_rng(0).normal(5, 2, 400)
    low, high = accuracy.bootstrap_interval(values)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)


def test_a_photo_keeps_its_answers_from_all_seeds():
    """Three equal seeds know no more about other photos than one of them."""
    answers = [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    one = accuracy.means_of([results(answers)])
    three = accuracy.means_of([results(answers)] * 3)
    assert three["accuracy"].over_photos == pytest.approx(one["accuracy"].over_photos)
    assert one["accuracy"].over_seeds is None
    assert one["ece"].over_photos is None


def test_losses_are_those_of_the_true_class():
    given = results([0, 1]).predictions["test"]
    np.testing.assert_allclose(accuracy.losses(given), -np.log([0.8, 0.2]))


def test_each_bar_has_its_direction():
    good = accuracy.means_of([results([0] * 10, log_loss=0.03, ece=0.01)])
    assert [met for _, met in accuracy.bars({"head": good, "staged": good})] == [True] * 5
    bad = accuracy.means_of([results([0] * 9 + [1], log_loss=0.05, ece=0.02)])
    assert [met for _, met in accuracy.bars({"head": bad, "staged": bad})] == [False] * 5


def test_where_every_seed_answers_alike_there_is_no_interval_over_seeds():
    """The solved head draws nothing at random; equal accuracies of other answers are chance."""
    answers = [0, 0, 0, 0, 0, 0, 0, 1, 1, 0]
    solved = accuracy.means_of([results(answers)] * 3)
    assert solved["accuracy"].over_seeds is None
    assert solved["accuracy"].over_photos is not None
    drawn = accuracy.means_of([results(answers), results(answers[::-1]), results(answers)])
    assert drawn["accuracy"].over_seeds == pytest.approx((0.8, 0.8))
    means = {"head": solved, "staged": drawn}
    (note,) = accuracy._notes(means, [0, 1, 2])
    assert note.startswith(
        "head: no interval over seeds, because every seed gives the same answers"
    )
    assert accuracy._notes({"head": accuracy.means_of([results(answers)])}, [0]) == []


def finished(folder: Path, data: Path, flags: list[str], photo: str = "a.jpg") -> None:
    """Write what training with these flags would leave, with made-up scores of two test photos."""
    made = Run(folder)
    made.bundle.mkdir(parents=True)
    (made.bundle / "bundle.json").write_text("{}")
    write_json(config_values(parse(["--data", str(data.resolve()), *flags])), made.config)
    names = {"cat": photo, "dog": "b.jpg"}
    rows = [ManifestRow(n, c, "test", "0" * 64, "used", "", 9, 9) for c, n in names.items()]
    write_manifest(rows, made.manifest)
    write_findings([], made.audit)
    write_findings([], made.test_audit)
    write_history([HistoryRow("head", 1, 0.5, 0.8, 0.4, 0.75, 0.0, 1.5)], made.history)
    answers = [
        {"split": split, "name": name, "label": label, "p_cat": 0.7, "p_dog": 0.3}
        | {"novelty": 0.1}
        for split in ("validation", "test")
        for label, name in names.items()
    ]
    write_rows(answers, list(answers[0]), made.predictions)
    scores = {"accuracy": 0.5, "log_loss": 0.8, "ece": 0.2, "accuracy_interval_95": [0.1, 0.9]}
    write_json(least_metrics(scores, scores), made.metrics)


def pair_of_runs(runs: Path, data: Path, *flags: str, seed: int = 0) -> list[str]:
    """Write both runs of a seed; return what asks for them."""
    seeded = [*flags, "--seed", str(seed)]
    finished(runs / f"seed{seed}", data, seeded)
    finished(runs / f"seed{seed}-head", data, [*seeded, "--stages", "head"])
    return ["--data", str(data), "--runs", str(runs), "--seeds", str(seed), "--", *flags]


@pytest.fixture
def no_training(monkeypatch):
    def never(*_: object) -> None:
        raise AssertionError("this was not to be trained")

    monkeypatch.setattr(benchmarks.runs, "measure", never)


def test_runs_as_they_would_be_made_now_are_read(tmp_path, capsys, no_training):
    argv = pair_of_runs(tmp_path, tmp_path / "photos", "--image-size", "128", "--cache", "disk")
    assert run(accuracy.main, argv) == 1
    out, err = capsys.readouterr()
    assert err == ""
    assert "head, mean test accuracy: 0.5000 (bar >= 0.986), missed." in out
    without_data = argv[2:]
    assert run(accuracy.main, without_data) == 1
    assert capsys.readouterr().out == out


WRONG = {
    "seed": (["--seed", "1"], "with seed 0; received one with seed 1; give the flags"),
    "stages": (["--stages", "head,block4"], "with stages head,block5; received one with stages"),
    "views": (["--views", "3"], "with views 2; received one with views 3; give the flags"),
    "epochs": (["--epochs", "1"], "with epochs None, block5.epochs 2; received one with epochs 1,"),
    "weights": (["--weights", "none"], "with weights official; received one with weights none"),
    "data": (["--data", "others"], "photos; received one with data "),
}


@pytest.mark.parametrize(("flags", "told"), WRONG.values(), ids=WRONG)
def test_runs_that_were_made_otherwise_are_refused(tmp_path, capsys, no_training, flags, told):
    """Before anything is trained: the runs of the other seed are missing."""
    data = tmp_path / "photos"
    finished(tmp_path / "seed0", data, flags)
    argv = ["--data", str(data), "--runs", str(tmp_path), "--seeds", "5,0"]
    assert run(accuracy.main, argv) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: expected {tmp_path / 'seed0'} to be trained with ")
    assert told in line
    assert line.endswith("remove it, or give another --runs")


def test_weights_of_any_place_and_a_report_do_not_matter(tmp_path, no_training):
    data = tmp_path / "photos"
    pair_of_runs(tmp_path, data, "--weights", "elsewhere.h5", "--no-report", "--run", "x")
    argv = ["--data", str(data), "--runs", str(tmp_path), "--seeds", "0", "--weights", "here.h5"]
    assert run(accuracy.main, argv) == 1


def test_runs_of_other_test_photos_are_refused(tmp_path, capsys, no_training):
    """Without a test/ folder the seed divides the photos; their means would be of nothing."""
    argv = pair_of_runs(tmp_path, tmp_path / "photos")
    flags = ["--seed", "0", "--stages", "head"]
    shutil.rmtree(tmp_path / "seed0-head")
    finished(tmp_path / "seed0-head", tmp_path / "photos", flags, photo="other.jpg")
    assert run(accuracy.main, argv) == 2
    assert "expected the same test photos in seed0 and seed0-head" in capsys.readouterr().err


def test_the_head_is_not_compared_with_itself(tmp_path, capsys):
    argv = ["--data", "photos", "--runs", str(tmp_path), "--", "--stages", "head"]
    assert run(accuracy.main, argv) == 2
    assert "expected train flags that open a block" in capsys.readouterr().err


def test_a_run_that_is_missing_needs_photos(tmp_path, capsys):
    assert run(accuracy.main, ["--runs", str(tmp_path)]) == 2
    assert "expected --data to train" in capsys.readouterr().err


# ---- more photos --------------------------------------------------------------------------------


def cost(photos: int) -> Cost:
    """10 s and 5 ms a photo; an epoch 1 s and 2 ms a photo, the second being tracing."""
    epoch = {"block5": 1 + 0.002 * photos, "block4": 1 + 0.0001 * photos}
    disk, memory = 10**6 + 1000 * photos, 2**30
    return Cost(photos, 10 + 0.005 * photos, 0.004 * photos, epoch, disk, memory, None)


def test_further_epochs_cost_photos_and_no_tracing():
    lines = scale.lines_of([cost(photos) for photos in (500, 1000, 2000)])
    epochs = {name: scale.STAGES[name].epochs for name in ("block5", "block4")}
    a_photo = 0.005 + 0.0001 * (epochs["block4"] - 1) + 0.002 * (epochs["block5"] - 1)
    assert lines["seconds"].at(25_000) == pytest.approx(10 + 25_000 * a_photo)
    assert lines["disk"].at(25_000) == pytest.approx(26e6)
    assert lines["peak_rss"].slope == pytest.approx(0, abs=1e-6)
    assert "peak_anonymous" not in lines


def test_memory_is_computed_from_sizes_with_all_landmarks():
    """2,000 photos have 1,600 for training, fewer than the head's 2,048 landmarks."""
    grown = {500: 1e9, 1000: 1.2e9, 2000: 1.6e9, 4000: 1.8e9, 6000: 1.9e9}
    costs = [replace(cost(photos), peak_rss=int(rss)) for photos, rss in grown.items()]
    assert scale.lines_of(costs)["peak_rss"].at(26_000) == pytest.approx(2.9e9)
    assert scale.lines_of(costs[:3])["peak_rss"].at(3000) == pytest.approx(2e9)


def test_the_computed_row_continues_the_measured_ones():
    costs = [cost(photos) for photos in (500, 1000)]
    table = scale.table(costs, scale.lines_of(costs), 1500).splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table]
    hours = [float(cells[i][1]) for i in (2, 3, 5)]
    assert cells[5][0] == "1,500, computed"
    assert hours[2] - hours[1] == pytest.approx(hours[1] - hours[0], abs=0.0011)
    assert cells[5][4:] == ["1.00", "–"]


def test_repeated_photos_are_the_same_pictures_in_other_bytes(tmp_path):
    """The audit would skip copies, and the cache would know them."""
    sources = {}
    for label, seed in (("cat", 1), ("dog", 2)):
        paths = [make_photo(tmp_path / f"{label}{n}.jpg", 10 * n + seed) for n in range(3)]
        sources[label] = [path.read_bytes() for path in paths]
    folder = scale.repeat_photos(sources, 60, tmp_path / "photos")
    files = find_files(folder)
    places = [(file.split, file.label) for file in files]
    assert {place: places.count(place) for place in places} == {
        (split, label): n
        for split, n in (("train", 24), ("validation", 3), ("test", 3))
        for label in ("cat", "dog")
    }
    assert {row.verdict for row in audit(files)} == {"used"}
    with Image.open(io.BytesIO(sources["cat"][2])) as one, Image.open(files[0].path) as other:
        np.testing.assert_array_equal(np.asarray(one), np.asarray(other))


def test_only_jpegs_can_have_a_comment(tmp_path, capsys):
    for label in ("cat", "dog"):
        picture().save(make_photo(tmp_path / label / "a.png"))
    assert run(scale.main, ["--data", str(tmp_path)]) == 2
    assert "expected JPEG files of two classes" in capsys.readouterr().err


def test_one_size_gives_no_line(capsys):
    assert run(scale.main, ["--sizes", "500"]) == 2
    assert "expected two sizes or more" in capsys.readouterr().err


# ---- the frozen prefix --------------------------------------------------------------------------


def test_works_take_turns_and_the_first_round_does_not_count():
    seen: list[str] = []
    seconds = frozen.in_turn({"a": lambda: seen.append("a"), "b": lambda: seen.append("b")}, 2)
    assert seen == ["a", "b"] * 3
    assert {name: len(values) for name, values in seconds.items()} == {"a": 2, "b": 2}


def test_photos_are_spread_over_the_folder(photos, tmp_path):
    chosen = frozen.some_photos(photos, 4, tmp_path / "drawn")
    every = [file.name for file in find_files(photos)]
    assert [every.index(photo.name) for photo in chosen] == [0, 14, 28, 42]
    assert len(frozen.some_photos(None, 3, tmp_path / "drawn")) == 3
    with pytest.raises(UsageError, match="expected 1000 photos"):
        frozen.some_photos(photos, 1000, tmp_path)


# ---- each program in small ----------------------------------------------------------------------

TINY = ["--", "--image-size", "32", "--epochs", "1", "--no-report"]


@pytest.mark.slow
def test_training_in_small(photos, tmp_path, capfd):
    argv = ["--data", str(photos), "--weights", "none", "--limit", "12", "--work", str(tmp_path)]
    argv += ["--epoch-fraction", "0.5", "--json", *TINY]
    assert run(training.main, argv) == 1  # such a small recipe is as fast
    out, err = capfd.readouterr()
    rows = {row["name"]: row for row in json.loads(out)["rows"]}
    assert list(rows) == ["recipe", "head", "staged", "staged again"]
    assert rows["head"]["details"]["cache_bytes"] > 0
    assert rows["staged again"]["details"]["cache_bytes"] == 0
    assert rows["staged"]["details"]["cache_bytes"] > rows["head"]["details"]["cache_bytes"]
    assert rows["staged"]["details"]["test"]["n"] == 12
    assert "| `--stages head`, cold cache" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_accuracy_in_small(photos, tmp_path, capfd):
    argv = ["--data", str(photos), "--weights", "none", "--runs", str(tmp_path), "--seeds", "4"]
    assert run(accuracy.main, [*argv, *TINY]) == 1
    table = capfd.readouterr().out
    assert sorted(path.name for path in tmp_path.glob("s*")) == ["seed4", "seed4-head"]
    argv = ["--runs", str(tmp_path), "--seeds", "4", "--weights", "none"]
    assert run(accuracy.main, [*argv, *TINY]) == 1
    assert capfd.readouterr().out == table, "runs that are there are read"


@pytest.mark.slow
def test_scale_in_small(tmp_path, capfd):
    argv = ["--sizes", "40,60", "--target", "100", "--work", str(tmp_path), "--json", *TINY]
    assert run(scale.main, argv) == 0
    values = json.loads(capfd.readouterr().out)
    assert [cost["photos"] for cost in values["measured"]] == [40, 60]
    assert set(values["measured"][0]["epoch_seconds"]) == {"block5"}
    assert values["lines"]["disk"]["slope"] > 0


@pytest.mark.slow
def test_the_frozen_prefix_in_small(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # an engine is measured
    argv = ["--data", str(photos), "--photos", "16", "--image-size", "32", "--repeat", "1"]
    frozen.main([*argv, "--work", str(tmp_path), "--json"])  # any ratio
    values = json.loads(capsys.readouterr().out)
    assert set(values["ms_a_photo"]) == {
        "keras float32",
        "keras bfloat16",
        "onnxruntime float32",
        "onnxruntime int8",
        *(["openvino float32", "openvino int8"] if find_spec("openvino") else []),
    }
    assert values["road"]["views"] == 32
    assert values["road"]["ratio"] == values["road"]["road"] / values["road"]["bare"]


def test_several_folders_and_flags_for_train_py_are_told_apart():
    from benchmarks.classes import _parser

    read = _parser().parse_args(["digits", "drawn", "--epochs", "2", "--", "--budget", "3"])
    assert read.folders == ["digits", "drawn"]
    assert train_flags(read) == ["--budget", "3"]
    assert train_flags(_parser().parse_args(["one", "--weights", "none"])) == ["--weights", "none"]
