"""notebooks/2_vgg16_in_depth.py and the machinery that runs a notebook's script."""

from __future__ import annotations

import ast
import base64
import html
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from photos import shared_folder
from PIL import Image
from vgg_paper import CONFIGURATIONS

from app.core.cli import run as run_command
from app.core.errors import AppError, UsageError
from app.report.notebook import PROJECT, main, without_machine

NAME = "notebooks/2_vgg16_in_depth.py"
SOURCE = PROJECT / NAME
COMMITTED = SOURCE.with_suffix(".ipynb")
AGAIN = f"run python -m app notebook {NAME}"
MEGABYTE = 1_000_000
# The charts have at most 2,019 colours, at their smoothed edges; a photo has 3,885 at 64 pixels.
COLOURS_OF_A_CHART = 3_000


@pytest.fixture(scope="module")
def committed() -> Any:
    return nbformat.read(COMMITTED, as_version=4)


def outputs(notebook: Any) -> list[Any]:
    return [out for cell in notebook.cells if cell.cell_type == "code" for out in cell.outputs]


def text_of(notebook: Any) -> str:
    """Return all that the cells answered, without tags."""
    parts = [out["data"] for out in outputs(notebook) if "data" in out]
    return " ".join(
        html.unescape(re.sub(r"<[^>]+>", " ", part.get("text/html", part["text/plain"])))
        for part in parts
    )


def pictures(notebook: Any) -> list[tuple[str, np.ndarray]]:
    """Return the alternative text and the pixels of each picture."""
    found = []
    for out in outputs(notebook):
        if png := out.get("data", {}).get("image/png"):
            with Image.open(io.BytesIO(base64.b64decode(png))) as image:
                found.append(
                    (out["metadata"]["image/png"]["alt"], np.asarray(image.convert("RGB")))
                )
    return found


def test_few_lines_make_tables_pictures_and_sentences() -> None:
    """They are in ``notebooks/vgg_show.py``, so that the cells show what is computed."""
    import jupytext

    shown = lines = 0
    for cell in jupytext.read(SOURCE).cells:
        if cell.cell_type == "code":
            lines += sum(bool(line.strip()) for line in cell.source.splitlines())
            shown += sum(
                node.end_lineno - node.lineno + 1
                for node in ast.walk(ast.parse(cell.source))
                if isinstance(node, ast.Expr)
                and isinstance(node.value, ast.Call)
                and re.match(r"(show\.|print|display|Table|Words|Picture)", ast.unparse(node.value))
            )
    assert 0 < shown <= 0.1 * lines


def test_script_and_committed_notebook_have_the_same_cells(committed: Any) -> None:
    import jupytext

    script = jupytext.read(SOURCE)
    assert [(c.cell_type, c.source) for c in script.cells] == [
        (c.cell_type, c.source) for c in committed.cells
    ], AGAIN


def test_the_committed_notebook_is_executed_and_whole(committed: Any) -> None:
    nbformat.validate(committed)
    code = [cell for cell in committed.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1)), AGAIN
    kinds = {out.output_type for out in outputs(committed)}
    assert kinds <= {"display_data", "execute_result", "stream"}  # no error
    assert {out.name for out in outputs(committed) if out.output_type == "stream"} == {"stdout"}
    assert COMMITTED.stat().st_size < 3 * MEGABYTE
    assert "Left out below" not in text_of(committed), "run it with the ImageNet weights"
    assert "Photos of cat and dog" in text_of(committed), "run it on photos"


def test_the_committed_notebook_keeps_no_trace_of_the_machine(committed: Any) -> None:
    text = COMMITTED.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|Users|tmp|work)/", text)
    assert sys.version.split()[0] not in text
    assert all(not cell.metadata for cell in committed.cells)


@pytest.mark.slow
def test_every_picture_is_a_chart_or_the_drawing(committed: Any) -> None:
    """Photos are counted and learned from, never shown."""
    colourful = [
        alt
        for alt, pixels in pictures(committed)
        if len(np.unique(pixels.reshape(-1, 3), axis=0)) > COLOURS_OF_A_CHART
    ]
    assert len(colourful) == 1
    assert colourful[0].startswith("A drawn cat")
    assert not [out for out in outputs(committed) if "image/jpeg" in out.get("data", {})]


def test_every_picture_has_words_for_those_who_do_not_see_it(committed: Any) -> None:
    alts = [alt for alt, _ in pictures(committed)]
    assert len(alts) == 7
    assert all(len(alt) > 60 for alt in alts)


def test_the_committed_notebook_says_what_the_issue_asks(committed: Any) -> None:
    assert_what_holds_for_any_photos(committed)
    rows = table_after(committed, "network")
    assert len(rows) == 5
    glorot, *_, transferred = rows
    assert float(glorot[2]) == pytest.approx(np.log(2), abs=0.01)
    assert float(transferred[2]) < 0.3


@pytest.mark.slow
def test_the_notebook_executes_from_a_clean_clone(tmp_path: Path) -> None:
    notebook = executed(clean_clone(tmp_path / "clone"), tmp_path, weights="none")
    assert_what_holds_for_any_photos(notebook)
    text = text_of(notebook)
    assert "Drawings of cat and dog" in text
    assert "Left out below is what needs ImageNet's weights" in text
    assert len(table_after(notebook, "network")) == 4


@pytest.mark.weights
def test_all_of_the_notebook_executes_with_the_imagenet_weights(tmp_path: Path) -> None:
    (weights,) = (shared_folder() / "weights").glob("*.h5")
    notebook = executed(PROJECT, tmp_path, weights=str(weights))
    assert_what_holds_for_any_photos(notebook)
    assert len(table_after(notebook, "network")) == 5
    assert len(table_after(notebook, "pixels as")) == 2
    assert len(pictures(notebook)) == 7


def assert_what_holds_for_any_photos(notebook: Any) -> None:
    text = text_of(notebook)
    assert "138,357,544" in text
    assert "134,358,872" in text
    assert [row[0] for row in table_after(notebook, "")][-2:] == ["layers that learn", "weights"]
    assert table_after(notebook, "", header=True)[1:] == [*CONFIGURATIONS]
    assert "3×3 after 1, 5×5 after 2, 7×7 after 3" in text
    for channels, three, by, one, per, _ in table_after(notebook, "channels"):
        width = int(channels)
        assert (int(by), int(per)) == (27, 49)
        assert three == f"{27 * width**2:,}"
        assert one == f"{49 * width**2:,}"
    together = table_after(notebook, "layer")[-1]
    assert together[2::2] == ["60.95 MB", "138,357,544", "15,470 M"]
    difference = re.search(r"differ by more than (\S+) of that", text)
    assert difference is not None
    assert float(difference[1]) < 1e-4
    assert "a map of 4×7 answers" in text


def table_after(notebook: Any, first: str, *, header: bool = False) -> list[Any]:
    """Return the rows, or the header, of the table whose first column is called ``first``."""
    for out in outputs(notebook):
        page = out.get("data", {}).get("text/html", "")
        rows = [
            re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row)
            for row in re.findall(r"<tr>(.*?)</tr>", page, re.DOTALL)
        ]
        if rows and rows[0][0] == first:
            return rows[0] if header else rows[1:]
    raise AssertionError(f"no table begins with {first!r}")


def clean_clone(target: Path) -> Path:
    if not (PROJECT / ".git").exists():
        pytest.skip("the checkout has no history to clone")
    subprocess.run(["git", "clone", "--quiet", str(PROJECT), str(target)], check=True)
    return target


def executed(project: Path, folder: Path, *, weights: str) -> Any:
    """Run the notebook in its smallest form on drawings."""
    path = folder / "small.ipynb"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "app",
            "notebook",
            NAME,
            "--output",
            str(path),
        ],
        cwd=project,
        env={
            **{name: value for name, value in os.environ.items() if name != "CATS_DOGS_PHOTOS"},
            "CATS_DOGS_SMALL": "1",
            "CATS_DOGS_WEIGHTS": weights,
            "MPLCONFIGDIR": str(folder),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return nbformat.read(path, as_version=4)


def test_what_was_said_on_stderr_and_paths_are_left_out() -> None:
    said = nbformat.v4.new_output("stream", name="stderr", text="one moment")
    kept = nbformat.v4.new_output("stream", name="stdout", text=f"{PROJECT}/a, {Path.home()}/b")
    cell = nbformat.v4.new_code_cell("1", outputs=[said, kept])
    notebook = without_machine(nbformat.v4.new_notebook(cells=[cell]))
    (left,) = notebook.cells[0].outputs
    assert left["text"] == f"{PROJECT.name}/a, {Path.home().name}/b"


def test_a_failing_cell_is_answered_in_one_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "failing.py"
    source.write_text("# %%\nprint('so far')\nraise ValueError('no such\\nnumber')\n")
    assert run_command(main, [str(source)]) == AppError.exit_code
    output, error = capfd.readouterr()
    assert output == ""
    assert error.count("\n") == 1
    assert "expected the cells of failing.py to run; received ValueError: no such number" in error
    assert [path.name for path in tmp_path.iterdir()] == ["failing.py"]


def test_a_script_is_run_and_written_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "sum.py"
    source.write_text("# %%\n6 * 7\n")
    assert main([str(source)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'sum.ipynb'}\n"
    (out,) = outputs(nbformat.read(tmp_path / "sum.ipynb", as_version=4))
    assert out["data"]["text/plain"] == "42"


@pytest.mark.parametrize("name", ["nothing.py", "lesson.ipynb"])
def test_what_is_no_script_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "lesson.ipynb").write_text("{}")
    with pytest.raises(UsageError, match=f"such as notebooks/1.*; received .*{name}"):
        main([str(tmp_path / name)])
