"""The report: a fabricated run folder in, one page out."""

from __future__ import annotations

import copy
import csv
import dataclasses
import html
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest

from app import report
from app.cli import run as run_command
from app.config import TrainConfig
from app.config_file import config_values
from app.display import Table, Words, number, percent, shown
from app.errors import AppError, BundleError, UsageError
from app.evaluation import score
from app.findings import Finding, write_findings
from app.manifest import ManifestRow, write_manifest
from app.report import SOURCE, main, write_notebook, write_report
from app.results import chosen_run, read_results
from app.runs import Run

CLASSES = ("cat", "dog & <b>wolf</b>")
SPLITS = {"train": 40, "validation": 20, "test": 30}
MEGABYTE = 1_000_000
FOUND = [
    Finding("cat/train0.jpg", "label", 1, 0.9, "labelled cat; looks like <b>"),
    Finding("dog/train1.jpg", "stranger", 1, 0.4, "unlike all others"),
]


def fabricate(folder: Path) -> Run:
    """Write a run folder of made-up numbers, as training would leave it."""
    rng = np.random.default_rng(7)
    run = Run(folder)
    run.bundle.mkdir(parents=True)
    (run.bundle / "bundle.json").write_text("{}", encoding="utf-8")
    config = TrainConfig(data=Path("my photos"), seed=3, stages=("head",), epochs=2)
    run.config.write_text(json.dumps(config_values(config)), encoding="utf-8")
    manifest, predictions, scores = [], [], {}
    for split, n in SPLITS.items():
        targets = np.arange(n) % 2
        second = np.clip(0.15 + 0.7 * targets + rng.normal(0, 0.4, n), 0.02, 0.98)
        probabilities = np.stack([1 - second, second], axis=1)
        if split != "train":
            answers = {"neither": 0.05, "unsure": 0.1, "given": 0.85, "given_wrong": None}
            scores[split] = dataclasses.asdict(score(targets, probabilities)) | {"answers": answers}
        for i, (target, row) in enumerate(zip(targets, probabilities, strict=True)):
            label, name = CLASSES[target], f"{'cat' if target == 0 else 'dog'}/{split}{i}.jpg"
            manifest.append(
                ManifestRow(name, label, split, "0" * 64, "used", "", 300 + i, 200 + i)  # type: ignore[arg-type]
            )
            if split != "train":
                answer = CLASSES[int(row.argmax())]
                p = {f"p_{c}": f"{x:.6g}" for c, x in zip(CLASSES, row, strict=True)}
                predictions.append(
                    {"name": name, "split": split, "label": label, "answer": answer, **p}
                    | {"novelty": "0.25"}
                )
    manifest.append(ManifestRow("cat/b\udcffd.jpg", "cat", "", "", "skipped", "damaged: cut short"))
    write_manifest(manifest, run.manifest)
    write_findings(FOUND, run.audit)
    history = [
        {
            "stage": "head",
            "epoch": epoch,
            "loss": 0.5 / epoch,
            "accuracy": 0.8,
            "validation_loss": 0.4 / epoch,
            "validation_accuracy": 0.7 + 0.05 * epoch,
            "learning_rate": 0.001,
            "seconds": 1.5,
        }
        for epoch in (1, 2)
    ]
    for rows, path in ((predictions, run.predictions), (history, run.history)):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    metrics = {
        "classes": list(CLASSES),
        "photos": SPLITS,
        "class_weights": {CLASSES[0]: 0.625, CLASSES[1]: 2.5},
        "stages": [
            {
                "name": "head",
                "trainable_parameters": 2050,
                "epochs": 2,
                "kept_epoch": 2,
                "seconds": 3.2,
                "validation": scores["validation"],
            }
        ],
        **scores,
        "temperature": 1.25,
        "min_confidence": 0.625,
        "seconds": {"audit": 1.0, "training": 5.0, "total": 7.0},
        "device": "cpu (made up)",
        "backend": "tensorflow",
        "precision": "float32",
        "frozen_precision": "int8",
        "cache": "disk",
        "versions": {"python": "3.11.0", "keras": "3.9.9"},
        "finished": "2026-01-31T12:00:00+00:00",
    }
    run.metrics.write_text(json.dumps(metrics), encoding="utf-8")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fabricate(tmp_path_factory.mktemp("runs") / "made-up")


@pytest.fixture(scope="module")
def notebook(run: Run) -> Any:
    return report.execute(run)  # five seconds, so once for all tests


@pytest.fixture(scope="module")
def page(run: Run, notebook: Any) -> str:
    return report.render(notebook, title="Report: made-up")


def test_the_page_says_what_the_metrics_say(run: Run, page: str) -> None:
    test = run.read_metrics()["test"]
    low, high = test["accuracy_interval_95"]
    assert f">{percent(test['accuracy'])}</strong>" in page
    assert f"{percent(low)} to {percent(high)}" in page
    assert f"log-loss {test['log_loss']:.4f}" in page
    assert "damaged: cut short" in page
    assert "Not used: 1 of 91 files:" in page
    assert f"does not count 1, but 0.62 of {CLASSES[0]}, 2.50 of" in page
    command = "python train.py --data 'my photos' --stages head --epochs 2 --seed 3"
    assert command in html.unescape(page)
    assert "<td>keras</td><td>3.9.9</td>" in page


def test_photos_worth_a_look_are_listed_with_their_reason(page: str) -> None:
    for found in FOUND:
        assert f"<td>{found.name}</td><td>{html.escape(found.reason)}</td>" in page


def test_mistakes_are_listed_the_surest_first(run: Run, page: str) -> None:
    mistakes = read_results(run).mistakes("test")
    confusion = np.array(run.read_metrics()["test"]["confusion"])
    assert len(mistakes) == confusion.sum() - np.trace(confusion) > 1
    assert [m.confidence for m in mistakes] == sorted(
        (m.confidence for m in mistakes), reverse=True
    )
    places = [page.index(f"<td>{m.name}</td>") for m in mistakes]
    assert places == sorted(places)


def test_the_page_needs_nothing_else(page: str) -> None:
    assert not re.search(r"<script|<link|<iframe|<object|@import|url\(", page)
    sources = re.findall(r"""(?:src|href|srcset)\s*=\s*["']?([^"'\s>]{0,30})""", page)
    assert sources
    assert all(source.startswith(("data:image/png;base64,", "#")) for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert len(page.encode()) < 6 * MEGABYTE


def test_every_figure_has_words_for_those_who_do_not_see_it(page: str) -> None:
    images = re.findall(r"<img[^>]*>", page)
    assert len(images) == 5
    for image in images:
        alt = re.search(r'alt="([^"]+)"', image)
        assert alt is not None
        assert len(alt[1]) > 40


def test_no_photo_and_no_code_in_the_page(page: str) -> None:
    assert "image/jpeg" not in page
    assert "import" not in re.sub(r"base64,[^\"]*", "", page)


def test_names_cannot_break_the_page(page: str) -> None:
    assert "<b>wolf" not in page
    assert "dog &amp; &lt;b&gt;wolf&lt;/b&gt;" in page
    assert "cat/b\ufffdd.jpg" in page  # a name that is no UTF-8


def test_the_page_is_written_whole_or_not_at_all(
    run: Run, notebook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "execute", lambda _: notebook)
    before = sorted(path.name for path in run.folder.iterdir())
    assert write_report(run) == run.report
    assert sorted([*before, "report.html"]) == sorted(path.name for path in run.folder.iterdir())
    content = run.report.read_text(encoding="utf-8")

    def fails(*_: object, **__: object) -> str:
        raise AppError("no page today")

    monkeypatch.setattr(report, "render", fails)
    with pytest.raises(AppError, match="no page today"):
        write_report(run)
    assert run.report.read_text(encoding="utf-8") == content


def test_the_notebook_keeps_no_trace_of_the_machine(
    run: Run, notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "execute", lambda _: copy.deepcopy(notebook))
    path = write_notebook(run, tmp_path / "report.ipynb")
    text = path.read_text(encoding="utf-8")
    again = write_notebook(run, tmp_path / "again.ipynb")
    assert again.read_text(encoding="utf-8") == text
    assert str(report.PROJECT) not in text
    assert str(run.folder.parent) not in text
    assert sys.version.split()[0] not in text
    written = nbformat.read(path, as_version=4)
    nbformat.validate(written)
    assert [cell.id for cell in written.cells[:2]] == ["cell-00", "cell-01"]
    assert all(not cell.metadata for cell in written.cells)


def test_paths_in_the_notebook_are_shortened(run: Run, notebook: Any, tmp_path: Path) -> None:
    elsewhere = fabricate(tmp_path / "other")
    config = json.loads(elsewhere.config.read_text(encoding="utf-8"))
    config["data"] = "/home/someone/photos"
    elsewhere.config.write_text(json.dumps(config), encoding="utf-8")
    import copy

    changed = copy.deepcopy(notebook)
    code = next(cell for cell in changed.cells if cell.cell_type == "code")
    code.outputs = [{"output_type": "stream", "name": "stdout", "text": "at /home/someone/photos"}]
    cleaned = report.cleaned(changed, elsewhere)
    assert code.outputs[0]["text"] == "at photos"
    assert cleaned is changed


@pytest.mark.parametrize("missing", ["metrics.json", "predictions.csv", "bundle/bundle.json"])
def test_an_unfinished_run_is_answered_in_one_line(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fabricate(tmp_path / "unfinished")
    (run.folder / missing).unlink()
    assert run_command(main, [str(run.folder)]) == BundleError.exit_code
    output, error = capsys.readouterr()
    assert output == ""
    assert error.count("\n") == 1
    assert "expected a finished run" in error
    assert missing.rpartition("/")[2].partition(".")[0] in error
    assert not run.report.exists()


def test_a_folder_that_is_none_is_answered_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected the folder of a run"):
        write_report(Run(tmp_path / "nowhere"))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    run = fabricate(tmp_path / "damaged")
    run.predictions.write_text("name,split\na.jpg,test\n", encoding="utf-8")
    with pytest.raises(BundleError, match=r"damaged one \(KeyError: 'label'\)"):
        read_results(run)


def test_a_failing_cell_is_answered_in_one_line(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    source = tmp_path / "failing.py"
    source.write_text("# %%\nprint('so far')\nraise ValueError('no such\\nnumber')\n")
    monkeypatch.setattr(report, "SOURCE", source)
    assert run_command(main, [str(run.folder)]) == AppError.exit_code
    output, error = capfd.readouterr()
    assert output == ""
    assert error.count("\n") == 1
    assert "ValueError: no such number" in error


def test_the_run_is_chosen_by_the_variable_or_is_the_newest(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATS_DOGS_RUN", str(run.folder))
    assert chosen_run(tmp_path) == run
    monkeypatch.delenv("CATS_DOGS_RUN")
    newest = fabricate(tmp_path / "runs" / "newest")
    assert chosen_run(tmp_path) == newest


def test_a_default_needs_no_flag_to_be_repeated(run: Run, tmp_path: Path) -> None:
    results = read_results(run)
    config = TrainConfig(data=Path("photos"), run="mine", report=False)
    assert (
        dataclasses.replace(results, config=config_values(config)).command()
        == "python train.py --data photos"
    )


def test_what_was_excluded_is_excluded_again(run: Run) -> None:
    config = config_values(TrainConfig(data=Path("photos"), exclude=Path("my list.txt")))
    command = dataclasses.replace(read_results(run), config=config).command()
    assert command == "python train.py --data photos --exclude 'my list.txt'"


def test_tables_put_numbers_to_the_right_and_escape_the_rest() -> None:
    table = Table(["file", "n"], [["<i>", number(1234)]])._repr_html_()
    assert "<td>&lt;i&gt;</td>" in table
    assert '<td class="right">1,234</td>' in table
    assert "<tbody>\n\n</tbody>" in Table(["file", "n"], [])._repr_html_()
    assert Words("a < b")._repr_html_() == "<p>a &lt; b</p>"
    assert shown("caf\udce9") == "caf\ufffd"


def test_script_and_committed_notebook_have_the_same_cells() -> None:
    committed = SOURCE.with_suffix(".ipynb")
    if not committed.exists():
        pytest.skip("no notebook is committed")
    import jupytext

    script, notebook = jupytext.read(SOURCE), jupytext.read(committed)
    assert [(c.cell_type, c.source) for c in script.cells] == [
        (c.cell_type, c.source) for c in notebook.cells
    ], "run python -m app.report RUN --notebook notebooks/report.ipynb"


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    heavy = ["matplotlib", "sklearn", "scipy", "jupytext", "nbclient", "nbconvert", "keras"]
    code = f"import sys, app.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
