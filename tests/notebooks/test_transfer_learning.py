"""notebooks/1_transfer_learning.py: short cells, few names to trust, any photos, time, memory."""

from __future__ import annotations

import ast
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import jupytext
import nbformat
import pytest
from photos import class_folders, shared_folder

from app.report.notebook import PROJECT

SOURCE = PROJECT / "notebooks" / "1_transfer_learning.py"
COMMITTED = SOURCE.with_suffix(".ipynb")
AGAIN = "run python -m app notebook notebooks/1_transfer_learning.py; CONTRIBUTING.md says on what"
OWN = {path.stem for path in SOURCE.parent.glob("*.py")} | {"app", "train", "predict"}
MINUTES, GIGABYTES = 5, 2  # of memory as it is sold: 2 · 2³⁰ bytes


@pytest.fixture(scope="module")
def code() -> list[str]:
    cells = jupytext.read(SOURCE).cells
    return [cell.source for cell in cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def committed() -> Any:
    return nbformat.read(COMMITTED, as_version=4)


def written(cell: str) -> int:
    return sum(bool(line.strip()) for line in cell.splitlines())


def test_cells_are_few_and_short(code: list[str]) -> None:
    lines = [written(cell) for cell in code]
    assert len(code) <= 45
    assert statistics.median(lines) <= 6
    assert max(lines) <= 20


def test_at_most_four_names_come_from_the_project(code: list[str]) -> None:
    names: set[str] = set()
    for node in ast.walk(ast.parse("\n".join(code))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] in OWN:
            names |= {alias.name for alias in node.names}
        if isinstance(node, ast.Import):
            assert not {alias.name.partition(".")[0] for alias in node.names} & OWN
    assert names == {"load_photos", "show", "curve", "evidence"}


def test_photos_and_address_stand_in_the_first_lines(code: list[str]) -> None:
    assert re.match(r'PHOTOS = "".*\nREPOSITORY = ""', code[0])
    other = (SOURCE.parent / "2_vgg16_in_depth.py").read_text(encoding="utf-8")
    assert re.findall(r"^REPOSITORY = .*", other, re.MULTILINE) == [code[0].splitlines()[1]]


def test_every_picture_has_a_heading_and_words(code: list[str]) -> None:
    calls = [
        {keyword.arg for keyword in node.keywords}
        for node in ast.walk(ast.parse("\n".join(code)))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"show", "curve", "evidence"}
    ]
    assert len(calls) == 9
    assert all({"heading", "alt"} <= given for given in calls)


def test_questions_have_answers() -> None:
    text = SOURCE.read_text(encoding="utf-8").partition("## 12. Questions")[2]
    questions = re.findall(r"<summary>(\d)\. ", text)
    assert questions == [str(number) for number in range(1, len(questions) + 1)]
    assert len(questions) >= 7
    assert text.count("<details>") == text.count("</details>") == len(questions)


def test_script_and_committed_notebook_have_the_same_cells(committed: Any) -> None:
    script = jupytext.read(SOURCE)
    assert [(c.cell_type, c.source) for c in script.cells] == [
        (c.cell_type, c.source) for c in committed.cells
    ], AGAIN


def test_the_committed_notebook_is_executed_and_names_no_machine(committed: Any) -> None:
    nbformat.validate(committed)
    cells = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1)), AGAIN
    text = COMMITTED.read_text(encoding="utf-8")
    words = re.sub(r'"image/(png|jpeg)": "[^"]*"', "", text)  # base64 has slashes, too
    assert len(words) < 200_000
    assert not re.search(r"/(home|root|Users|tmp|work)/", words)
    assert '"output_type": "error"' not in text
    assert len(text) < 3_000_000


def test_the_committed_notebook_learned_from_photos_and_shows_the_twelve(committed: Any) -> None:
    """Photos whose terms forbid it are learned from, never shown."""
    outputs = [out for cell in committed.cells for out in cell.get("outputs", [])]
    said = "".join(out.get("text", "") for out in outputs)
    assert re.search(r"^100 photos to learn from, 100 to ask about: cat, dog", said, re.MULTILINE)
    about = [kind for out in outputs for kind in out.get("metadata", {}).values()]
    alts = [each["alt"] for each in about if "alt" in each]
    assert len(alts) == 9
    assert alts[0].startswith("12 pictures of cat, dog")  # as many as are in notebooks/photos


@pytest.mark.slow
def test_it_runs_with_ten_photos_of_three_classes_and_any_weights(tmp_path: Path) -> None:
    weights = tmp_path / "random.weights.h5"
    make = "import sys; from keras.applications import VGG16\n"
    make += "VGG16(weights=None, include_top=False).save_weights(sys.argv[1])"
    subprocess.run([sys.executable, "-c", make, str(weights)], check=True)
    photos = class_folders(tmp_path / "mine", {"cup": 10, "pen": 10, "shoe": 11})
    notebook, _ = executed(tmp_path, weights, photos)
    said = "".join(o.get("text", "") for c in notebook.cells for o in c.get("outputs", []))
    assert "15 photos to learn from, 15 to ask about: cup, pen, shoe" in said or (
        "16 photos to learn from, 15 to ask about: cup, pen, shoe" in said
    )
    assert "after fine-tuning" in said


@pytest.mark.weights
def test_the_drawings_take_five_minutes_and_two_gigabytes_at_most(tmp_path: Path) -> None:
    """On two cores; measured on a machine that does nothing else: see docs/teaching.md."""
    (weights,) = (shared_folder() / "weights").glob("*.h5")
    _, (seconds, gigabytes) = executed(tmp_path, weights, None)
    assert gigabytes <= GIGABYTES
    assert seconds <= 60 * MINUTES


def executed(folder: Path, weights: Path, photos: Path | None) -> tuple[Any, tuple[float, float]]:
    """Run the notebook; return it, the processor's seconds and the peak of memory (2³⁰ bytes)."""
    if not hasattr(os, "wait4"):
        pytest.skip("this system does not say how much memory a process took")
    path = folder / "lesson.ipynb"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("CATS_DOGS_")}
    variables = {"CATS_DOGS_WEIGHTS": str(weights), "MPLCONFIGDIR": str(folder)}
    if photos:
        variables["CATS_DOGS_PHOTOS"] = str(photos)
    with (folder / "said.txt").open("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "app", "notebook", str(SOURCE), "--output", str(path)],
            cwd=PROJECT,
            env={**kept, **variables},
            stderr=said,
            stdout=subprocess.DEVNULL,
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, said.seek(0) or said.read()
    kilo = 1 if sys.platform == "darwin" else 1024
    seconds = (usage.ru_utime + usage.ru_stime) / 2  # of two cores, whatever else they did
    return nbformat.read(path, as_version=4), (seconds, usage.ru_maxrss * kilo / 2**30)
