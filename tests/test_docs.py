"""What the documents say is what the project does."""

import json
import re
from pathlib import Path

import pytest

import app.serving.serve
import predict
import train
from app.data.sets.fetch import PHOTO_SETS

ROOT = Path(__file__).parent.parent
PAGES = [
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("data/*.md")]
    if path.is_file()
]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def help_text(main, capsys) -> str:
    with pytest.raises(SystemExit):
        main(["--help"])
    return capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_local_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`((?:app|tests|docs|benchmarks|notebooks|tools)/[\w./-]+\.\w+)", text)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_flags_in_the_readme_exist(capsys):
    known = "".join(help_text(each.main, capsys) for each in (train, predict, app.serving.serve))
    for block in re.findall(r"```.*?\n(.*?)```", README, re.DOTALL):
        for line in block.splitlines():
            if re.search(r"train\.py|predict\.py|app\.serve", line):
                for flag in re.findall(r"(?<!\S)--[a-z-]+", line):
                    assert flag in known, flag


def test_figures_in_the_readme_are_those_of_the_run():
    """docs/results/ holds the metrics.json of the runs that the README's table shows."""
    rows = re.findall(r"^\|.*\[run\]\((docs/results/[\w.-]+\.json)\).*$", README, re.MULTILINE)
    assert rows
    for line in README.splitlines():
        match = re.search(r"\[run\]\((docs/results/[\w.-]+\.json)\)", line)
        if match:
            metrics = json.loads((ROOT / match[1]).read_text(encoding="utf-8"))
            test = metrics["test"]
            low, high = test["accuracy_interval_95"]
            assert f"{test['accuracy']:.4f} ({low:.4f}–{high:.4f})" in line
            assert f"{test['log_loss']:.4f}" in line
            assert f"{test['ece']:.4f}" in line


def test_the_data_page_names_each_set_with_its_digest():
    page = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    for photo_set in PHOTO_SETS.values():
        assert f"{photo_set.size:,}" in page
        assert photo_set.sha256 is None or photo_set.sha256 in page


def test_every_room_is_on_the_map():
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rooms = [f"app/{path.name}" for path in sorted((ROOT / "app").glob("*.py"))]
    missing = [room for room in rooms if f"`{room}`" not in design and "__" not in room]
    assert missing == []
