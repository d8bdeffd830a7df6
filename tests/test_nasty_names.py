"""A table of nasty names is walked through all commands: none acts in what they write."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
from nasty import NAMES
from photos import make_photo
from small_vgg import small_network

import app.data.sets.fetch
import app.export.formats
import app.features.cache_command
import app.report.compare
import app.report.model_card
import app.report.notebook
import app.report.report
import predict
import train
from app.core.cli import run
from app.core.run_folder import Run
from app.data.manifest import excluded_names, read_manifest
from app.inference.bundle_format import Bundle
from app.report.results import read_results

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
Main = Callable[[Sequence[str]], int]
CLASSES = list(NAMES.values())
FOLDER = NAMES["escape sequence"] + NAMES["no UTF-8"] + NAMES["reading direction"] + "<b>;=1"
SMALLEST = ["--weights", "none", "--image-size", "64", "--views", "1", "--stages", "head"]
SMALLEST += ["--precision", "float32", "--no-report", "--cache", "off", "--head-strength", "1"]
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
FORMULA = tuple("=+-@\t\r")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos whose classes have all names, and a run; files and folders have them, too."""
    root = tmp_path_factory.mktemp("nasty") / FOLDER
    for number, label in enumerate(CLASSES):
        for copy, split in enumerate(["train"] * 6 + ["validation", "test"] * 2):
            name = f"{copy}{CLASSES[(number + copy) % len(CLASSES)]}.jpg"
            make_photo(root / "photos" / split / label / name, 10 * number + copy)
    return root


class Shell:
    """Runs commands in the folder and keeps what they say."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.root, self._capsys = root, capsys

    def __call__(self, main: Main, *argv: str | Path) -> tuple[int, str]:
        """Return exit code and standard output; standard error must be harmless."""
        with pytest.MonkeyPatch.context() as patch, small_network():
            patch.chdir(self.root)
            code = run(main, [str(each) for each in argv])
        out, err = self._capsys.readouterr()
        assert_harmless(err)
        return code, out


@pytest.fixture
def shell(root: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(root, capsys)


def assert_harmless(text: str) -> None:
    """Fail for what a terminal would obey."""
    assert not COMMANDS.findall(text), text
    assert "\u200b" not in text


def assert_no_formulas(text: str) -> None:
    """Fail where any spreadsheet program would see a formula, whatever it splits at."""
    cells = {cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row}
    formulas = {cell for cell in cells if cell.startswith(FORMULA)}
    assert not {cell for cell in formulas if not re.fullmatch(r"-?[\d.e-]+", cell)}
    for cell in re.split(r"[;\t\r\n]", text):
        assert not cell.startswith(FORMULA)


class Tags(HTMLParser):
    """Collects the tags and attributes of a page, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_page(path: Path) -> Tags:
    """Fail for a page in which a name is markup, or turns the reading direction."""
    text = path.read_text(encoding="utf-8")  # strictly
    assert_harmless(text)
    tags = Tags()
    tags.feed(text)
    assert "script" not in tags.tags
    assert not {name for name in tags.attributes if name.startswith("on")}
    return tags


@pytest.fixture(scope="module")
def told(root: Path) -> str:
    """Train a run, copy it beside itself, and return all that was said."""
    said = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        small_network(),
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
    ):
        patch.chdir(root)
        argv = ["--data", "photos", "--runs", FOLDER, "--run", FOLDER, *SMALLEST]
        assert run(train.main, argv) == 0, said.getvalue()
    shutil.copytree(root / FOLDER / FOLDER, root / FOLDER / "other")
    return said.getvalue()


@pytest.fixture
def trained(root: Path, told: str) -> Run:
    return Run(root / FOLDER / FOLDER)


def test_training_says_nothing_that_acts_and_keeps_the_names(
    root: Path, trained: Run, told: str
) -> None:
    assert_harmless(told)
    classes = {name.strip() for name in CLASSES}
    assert set(Bundle.read(trained.bundle).classes) == classes
    assert set(read_results(trained).classes) == classes
    files = {path.relative_to(root / "photos").as_posix() for path in root.glob("photos/*/*/*")}
    assert {row.name for row in read_manifest(trained.manifest)} == files
    for path in (trained.manifest, trained.predictions, trained.audit, trained.history):
        assert_no_formulas(path.read_bytes().decode("utf-8", "surrogateescape"))
    for path in (trained.config, trained.metrics, trained.bundle / "bundle.json"):
        assert path.read_bytes().isascii()


def test_the_tables_name_all_photos_for_exclude(trained: Run, root: Path) -> None:
    names = {row.name for row in read_manifest(trained.manifest)}
    assert excluded_names(trained.manifest, root / "photos", names) == names


def test_answers(trained: Run, root: Path, shell: Shell) -> None:
    where = ["--runs", FOLDER, "--run", FOLDER]
    code, out = shell(predict.main, *where, "photos", "no such\x1b[2J")
    assert code == 1
    assert_harmless(out)
    photos = sorted(str(path) for path in root.glob("photos/*/*/*"))
    code, out = shell(predict.main, *where, "--json", "photos")
    assert out.isascii()
    answers = [json.loads(line) for line in out.splitlines()]
    assert [str(root / answer["path"]) for answer in answers] == photos
    code, out = shell(predict.main, *where, "--csv", "photos")
    assert_no_formulas(out)
    code, out = shell(
        predict.main, *where, "--explain", FOLDER + "/why", "photos/test/" + CLASSES[0]
    )
    assert code == 0
    assert_harmless(out)


def test_pages_and_the_card(trained: Run, root: Path, shell: Shell) -> None:
    both = [f"{FOLDER}/{FOLDER}", f"{FOLDER}/other"]
    code, out = shell(app.report.compare.main, *both)
    assert code == 0
    assert_harmless(out)
    (page,) = (root / FOLDER).glob("compare-*.html")
    assert "<b>;=1" in assert_page(page).text, "names are shown as text"
    code, out = shell(app.report.compare.main, *both, "--json")
    assert out.isascii()
    assert shell(app.report.model_card.main, both[0])[0] == 0
    card = trained.model_card.read_text(encoding="utf-8")
    assert_harmless(card)
    assert not re.search(r"(?<!\\)<(img|script|b)", card.split("---\n", 2)[2].partition("```")[0])


def test_other_commands(trained: Run, root: Path, shell: Shell) -> None:
    for name in CLASSES:
        name = "./" + name  # as one writes a name that begins with a hyphen
        for main, argv, codes in (
            (train.main, ["--data", name], {2}),
            (train.main, ["--resume", name], {2}),
            (predict.main, ["--bundle", name, name], {2}),
            (predict.main, ["--runs", name, "photos"], {2}),
            (app.report.report.main, [name], {2}),
            (app.report.compare.main, [name, name], {2}),
            (app.report.model_card.main, [name], {1, 2}),
            (app.export.formats.main, [name, name], {2}),
            (app.features.cache_command.main, ["--runs", name, "--clear", name], {2}),
            (app.features.cache_command.main, ["--runs", name], {0}),
            (app.report.notebook.main, [name], {2}),
            (app.data.sets.fetch.main, ["small", "photos/" + name], {1}),
        ):
            code, out = shell(main, *argv)
            assert code in codes, (main, argv)
            assert_harmless(out)


def test_folders_that_are_made(root: Path, shell: Shell) -> None:
    for name in (FOLDER, *CLASSES[:3]):
        code, out = shell(app.data.sets.fetch.main, "drawn", "./drawn/" + name, "--per-class", "1")
        assert code == 0
        assert_harmless(out)


@pytest.mark.slow
def test_the_report(trained: Run, root: Path, shell: Shell) -> None:
    code, out = shell(app.report.report.main, f"{FOLDER}/{FOLDER}")
    assert code == 0
    assert_harmless(out)
    assert_page(trained.report)
    assert shell(app.report.report.main, f"{FOLDER}/{FOLDER}", "--notebook", "report.ipynb")[0] == 0
    assert_harmless((root / "report.ipynb").read_text(encoding="utf-8"))
