"""The model card: what it says is what the run says, and what users named cannot break it."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest
from made_up import made_up_run, second_of

from app.core.cli import run as run_command
from app.core.config import TrainConfig
from app.core.errors import BundleError, UsageError
from app.core.records import read_record
from app.core.run_folder import Run
from app.core.run_metrics import Metrics
from app.evaluation.metrics import wilson_interval
from app.export.int8_gate import Int8Gate
from app.pipeline import write_reports
from app.report.model_card import main, plain, put_into, readme_block, write_model_card
from app.training.checkpoint import KEEP_NOTHING
from app.training.tracking import Tracking

ROOT = Path(__file__).parents[2]
CC_BY = "https://creativecommons.org/licenses/by/4.0/"
CONFIG = TrainConfig(report=False)
SOURCE = "docs/results/small.json"
WILD = (
    "a|b *c* <img src=x> [x](https://e.vil) `d` & &amp; ~~e~~ \\* $f$ _g_",
    "```\n# h\r| --- \u202e www \udcff",
)


def card_of(run: Run) -> str:
    return write_model_card(run).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    return made_up_run(tmp_path_factory.mktemp("runs") / "made-up", second_of(40))


def test_its_figures_are_those_of_the_run(run):
    card, metrics = card_of(run), json.loads(run.metrics.read_text())
    test = metrics["test"]
    low, high = test["accuracy_interval_95"]
    assert (
        "Of 40 test photos: 36 right (90.0 %), 1 wrong (2.5 %), 1 neither (2.5 %), 2 unsure" in card
    )
    assert f"accuracy {test['accuracy']:.4f} (95 % interval {low:.4f}–{high:.4f})" in card
    assert f"log-loss {test['log_loss']:.4f}, calibration error {test['ece']:.4f}." in card
    assert f"error {test['ece']:.4f} ({test['ece_bias']:.4f} is what" in card
    assert "| test | 40 | 36 | 1 | 1 | 2 |" in card
    (right, wrong), _ = test["confusion"]
    low, high = wilson_interval(right, 20)
    assert wrong > 0
    assert f"| cat | 20 | {right / 20:.4f} ({low:.4f}–{high:.4f}) |" in card
    assert f"| dog, {wrong} |" in card
    assert "| cat | 4 | 3 | 20 |" in card  # photos of each split
    assert "python 3.11.0, keras 3.9.9, backend tensorflow" in card
    assert "Files not used: 1 " in card
    assert "$ python train.py --data photos --image-size 320 --seed 3\n" in card


def test_the_chapters_are_those_of_the_paper_and_every_one_says_something(run):
    chapters = re.split(r"^## ", card_of(run), flags=re.MULTILINE)[1:]
    titles = [chapter.splitlines()[0] for chapter in chapters]
    for title in ("Model details", "Intended use", "Training data", "Ethical considerations"):
        assert title in titles
    assert all(len(chapter.split()) > 20 for chapter in chapters)


def test_the_header_is_yaml_with_the_figures(run):
    yaml = pytest.importorskip("yaml")
    _, text, _ = card_of(run).split("---\n", 2)
    header = yaml.safe_load(text)
    (result,) = header["model-index"][0]["results"]
    assert result["dataset"]["name"] == "photos"
    accuracy, log_loss = result["metrics"]
    test = json.loads(run.metrics.read_text())["test"]
    assert accuracy["value"] == pytest.approx(test["accuracy"])
    assert log_loss["value"] == pytest.approx(test["log_loss"], rel=1e-5)


def test_what_users_named_is_shown_as_it_is_and_breaks_nothing(tmp_path):
    """Names of classes and folders; and no path of the machine is told."""
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark").enable("table")
    yaml = pytest.importorskip("yaml")
    data = tmp_path / "my |photos| <b> ``` x"
    config = TrainConfig(data=data, weights=str(tmp_path / "vgg16.h5"), runs=tmp_path)
    run = made_up_run(tmp_path / "*run* <i> _1_", classes=WILD, config=config)
    card = card_of(run)
    assert str(tmp_path) not in card
    _, header, body = card.split("---\n", 2)
    assert yaml.safe_load(header)["model-index"][0]["name"] == run.folder.name
    page = markdown.render(body)
    tags = set(re.findall(r"<(\w+)", page))
    usual = {"h1", "h2", "p", "ul", "li", "strong", "code", "pre", "a"}
    assert tags <= usual | {"table", "thead", "tbody", "tr", "th", "td"}
    assert re.findall(r'href="([^"]+)"', page) == [CC_BY]
    assert [
        len(re.findall("<td", row)) for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL)
    ] == [
        *[0, 4, 4],  # photos of each split
        *[0, 6],  # answers
        *[0, 7],  # scores; test has too few photos
        *[0, 5, 5],  # each class
    ]
    shown = (
        re.sub(r"</?\w+[^>]*>", "", page)
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&amp;", "&")
    )
    assert f"Model card: {run.folder.name}" in shown
    assert WILD[0] in shown
    assert "```\\n# h\\r| --- \\u202e www \ufffd" in shown
    assert "--data 'my |photos| <b> ``` x'" in shown


def test_text_stays_text():
    assert plain("cat") == "cat"
    assert plain("golden_retriever") == r"golden\_retriever"
    assert plain("a\nb") == r"a\\nb"


def test_what_is_unknown_is_left_open(tmp_path):
    """A class that test lacks, an older run without the bias, no weights."""
    run = made_up_run(
        tmp_path / "run", second_of(40), config=TrainConfig(data=Path("p"), weights="none")
    )
    metrics = json.loads(run.metrics.read_text())
    metrics["test"] |= {"confusion": [[0, 0], [2, 0]], "roc_auc": None}
    metrics["min_confidence"] = 1.5
    del metrics["test"]["ece_bias"]
    run.metrics.write_text(json.dumps(metrics), encoding="utf-8")
    card = card_of(run)
    assert "| cat | 0 | – | 0.0000 | – |" in card
    assert "| dog | 2 | 0.0000 (0.0000–0.6576) | – | cat, 2 |" in card
    assert "Every other answer is unsure." in card
    assert "by chance" not in card
    assert "Simonyan and Andrew" not in card
    assert "no other model's terms" in card


def test_of_few_test_photos_only_counts_are_told(tmp_path):
    card = card_of(made_up_run(tmp_path / "run", [0.1, 0.9]))
    assert "Test photos: 2 of 2 right, 0 wrong, 0 neither, 0 unsure; too few to say more." in card
    assert "| cat | 1 | 1 of 1 | – | – |" in card
    assert "| test | 2 | 2 | 0 | 0 | 0 |" in card
    assert card.count("| test | 2 |") == 1  # no scores
    assert "- type: right" in card
    assert "accuracy" not in card.partition("# Model card")[0]


def test_both_scores_stand_where_test_photos_were_excluded(tmp_path, run):
    test = json.loads(run.metrics.read_text())["test"]
    without = {**test, "n": 39, "counts": {"right": 36, "wrong": 0, "neither": 1, "unsure": 2}}
    more = {
        "test_without_excluded": without,
        "answered_by": {"file": "f.onnx", "precision": "int8"},
    }
    card = card_of(made_up_run(tmp_path / "run", second_of(40), metrics=more))
    assert "| test, without the excluded ones | 39 | 36 | 0 | 1 | 2 |" in card
    assert "| test, without the excluded ones | 39 |" in card
    assert "Of the 39 test photos that were not excluded: 36 right" in card
    assert "f.onnx answered them" in card


def test_attribution_goes_along_and_says_what_was_changed(run):
    card = card_of(run)
    for words in ("Karen Simonyan", "Andrew Zisserman", "CC BY 4.0", "François Chollet"):
        assert words in card
    assert "is new, and these stages trained blocks of it further: block5." in card
    assert "Apache License 2.0" in card


def test_a_card_that_cannot_be_written_does_not_lose_the_run(tmp_path, capsys):
    run = made_up_run(tmp_path / "run")
    run.model_card.mkdir()  # in the way
    before = {path: path.read_bytes() for path in run.folder.glob("*.*") if path.is_file()}
    assert write_reports(CONFIG, run, Tracking([], {}, run, KEEP_NOTHING)) == run
    assert f"again: python -m app card {run.folder}" in capsys.readouterr().err.replace("\n", " ")
    assert {path: path.read_bytes() for path in before} == before
    assert not list(run.folder.glob(".*"))
    run.model_card.rmdir()
    write_reports(CONFIG, run, Tracking([], {}, run, KEEP_NOTHING))
    assert run.model_card.is_file()


def test_a_report_that_cannot_be_written_does_not_lose_the_run(tmp_path, capsys, monkeypatch):
    def fails(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("app.report.report.write_report", fails)
    monkeypatch.setattr("app.pipeline.export_formats", fails)
    run, config = made_up_run(tmp_path / "run"), TrainConfig(export="litert")
    assert write_reports(config, run, Tracking([], {}, run, KEEP_NOTHING)) == run
    said = " ".join(capsys.readouterr().err.split())
    assert f"again: python -m app report {run.folder}" in said
    assert f"again: python -m app export {run.folder} litert" in said


def test_the_model_in_int8_is_named_with_its_cost(tmp_path, run):
    gate = dataclasses.asdict(Int8Gate(1000, 45, 0.001, 0.004, -3e-7, 0.002, 0.0092))
    card = card_of(made_up_run(tmp_path / "with", metrics={"int8": {"why_not": "", **gate}}))
    assert "`bundle/model.int8.onnx`" in card
    assert "on 1,000 photos of validation and training: accuracy -0.10 points" in card
    assert "points, calibration error +0.0000, another answer for 0.40 %, and 0.20 %" in card
    assert "neither. Of new photos at most 0.92 % get another answer, with 95 % confidence." in card
    assert "The share of wrong answers is not promised." in card
    promise = {"max_wrong": 0.01, "confidence": 0.9, "photos": 980, "given": 980, "wrong": 4}
    promised = made_up_run(tmp_path / "promised", metrics={"promise": {**promise, "bound": 0.0082}})
    assert "At most 1 % of the answers that name a class are wrong, with 90 %" in card_of(promised)
    none = made_up_run(tmp_path / "none", metrics={"int8": {"why_not": "the *mirror* image"}})
    assert "- **In int8:** there is no such model. The reason: the \\*mirror\\* image." in card_of(
        none
    )
    assert "int8.onnx" not in card_of(run)


def test_of_relative_paths_the_last_part_is_told_too(tmp_path):
    config = TrainConfig(data=Path("../Jane/photos"), exclude=Path("Jane/list.txt"))
    card = card_of(made_up_run(tmp_path / "run", config=config))
    assert "$ python train.py --data photos --exclude list.txt --image-size 320\n" in card
    assert "Jane" not in card


def test_numbers_that_are_none_are_answered_in_one_line(tmp_path):
    run = made_up_run(tmp_path / "run", metrics={"stages": [{"name": "head"}]})
    with pytest.raises(BundleError, match=r"stages\[0\].trainable_parameters to be there"):
        write_model_card(run)
    assert not run.model_card.exists()
    with pytest.raises(UsageError, match="expected the folder of a run"):
        write_model_card(Run(tmp_path / "nowhere"))


def test_the_readme_has_the_card_of_its_source():
    readme = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    metrics = read_record(ROOT / SOURCE, Metrics, BundleError, "")
    again = f"run python -m app card {SOURCE} --readme docs/results.md"
    assert put_into(readme, readme_block(metrics, SOURCE)) == readme, again


def test_the_command_replaces_the_readmes_part_and_nothing_else(run, tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text("above\n<!-- model card: x -->\nold\n<!-- end of the model card -->\nbelow\n")
    for source in (run.folder, run.metrics):  # a folder, or its metrics.json
        assert run_command(main, [str(source), "--readme", str(page)]) == 0
        assert capsys.readouterr().out == f"{page}\n"
        text = page.read_text(encoding="utf-8")
        assert text.startswith("above\n<!-- model card: made by")
        assert text.endswith("<!-- end of the model card -->\nbelow\n")
        assert "\nold\n" not in text
        assert text.count("| cat | 20 |") == 1


def test_a_readme_without_markers_is_left_alone(run, tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_text("nothing here\n")
    assert run_command(main, [str(run.folder), "--readme", str(page)]) == 2
    assert "expected a line that begins with '<!-- model card:'" in capsys.readouterr().err
    assert page.read_text() == "nothing here\n"
    assert run_command(main, [str(run.manifest), "--readme", str(page)]) == 2
    assert "expected JSON in" in capsys.readouterr().err


def test_the_command_writes_the_card(run, capsys):
    assert run_command(main, [str(run.folder)]) == 0
    assert capsys.readouterr().out == f"{run.model_card}\n"


def test_a_page_that_is_no_text_is_one_line_and_stays(run, tmp_path, capsys):
    page = tmp_path / "README.md"
    page.write_bytes(b"caf\xe9")
    assert run_command(main, [str(run.folder), "--readme", str(page)]) == 2
    assert "expected --readme to be a text in UTF-8" in capsys.readouterr().err
    assert page.read_bytes() == b"caf\xe9"
