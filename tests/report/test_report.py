"""The report: a made-up run folder in, one page out."""

from __future__ import annotations

import copy
import dataclasses
import html
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from jinja2 import UndefinedError
from made_up import CLASSES, FOUND, SPLITS, made_up_photos, made_up_run, run_with_photos
from photos import TELLTALE, drawn_photos, pictures, shows_telltale
from PIL import Image

from app.core.cli import run as run_command
from app.core.config import TrainConfig
from app.core.errors import AppError, BundleError, UsageError
from app.core.run_folder import Run, check_complete
from app.evaluation.decision import OOD_THRESHOLD
from app.evaluation.metrics import wilson_interval
from app.inference.bundle_format import ONNX_FILE
from app.report import report
from app.report.evidence import evidence
from app.report.first_screen import A_KIND, outcomes
from app.report.html import MAX_THUMBNAIL, Html, Parts, Picture, jpeg, percent, png
from app.report.images import NO_HEATMAPS, NO_PETS, SAMPLES, SHOWN, VIEWS, drawn_album, photo_album
from app.report.notebook import PROJECT
from app.report.report import SOURCE, main, write_notebook, write_report
from app.report.results import (
    PHOTOS_VARIABLE,
    RUN_VARIABLE,
    chosen_run,
    read_blocks,
    read_results,
)

TEMPLATES = Path(report.__file__).parent / "templates"
MEGABYTE = 1_000_000
OWNER = "John & Jane O'Brien ü"  # what a shell, HTML and JSON each write in their own way
Told = Callable[..., str]
PANELS = [
    "Mistakes",
    "Doubtful answers",
    "Which classes are confused",
    "Neither",
    "Unsure",
    "Photos worth checking",
    "Photos unlike all others",
    "The photos",
    "What training saw",
    "What training brought",
    "How to run it again",
    "For specialists",
]
FOLDED = [
    "All scores",
    "ROC curve",
    "Precision and recall",
    "Calibration",
    "How the head was chosen",
    "Time",
    "Memory",
    "Versions",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the photos of the made-up run; the last dozen of the test photos are gone."""
    folder = tmp_path_factory.mktemp("owner") / OWNER / "photos"
    return made_up_photos(folder, {**SPLITS, "test": SPLITS["test"] - 12})


@pytest.fixture(scope="module")
def run(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return run_with_photos(tmp_path_factory.mktemp("runs") / "made-up", photos)


@pytest.fixture(scope="module")
def notebook(run: Run) -> Any:
    return report.execute(run)  # five seconds, so once for all tests


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    notebook = report.execute(run, report.photos_of(run))
    page = report.render(notebook, title="Report: made-up")
    # Lines and unbroken spaces are for the eye.
    return re.sub(r"[ \n\xa0]+", " ", page)


def test_the_page_says_what_the_metrics_say(run: Run, page: str) -> None:
    test = json.loads(run.metrics.read_text())["test"]
    low, high = test["accuracy_interval_95"]
    assert test["counts"] == {"right": 26, "wrong": 1, "neither": 1, "unsure": 2}
    first = page.partition("<h1>")[2].partition("<nav")[0]
    for outcome, count in test["counts"].items():
        tile = first.partition(f'<li class="tile {outcome}">')[2].partition("</li>")[0]
        assert f'<strong class="number">{percent(count / 30)}</strong>' in tile
        assert f"{count} of 30 test photos" in tile
    assert "Of 30 test photos: right 26, wrong 1, neither 1, unsure 2." in first
    assert "Of 100 new photos like these, expect about 87 right, 3 wrong and 10 without" in first
    assert "Those answered “unsure” are 2 of the 4 without a right answer." in first
    assert "Of 30 test photos: 26 right (86.7 %), 1 wrong (3.3 %), 1 neither (3.3 %), 2" in page
    assert f"(95 % interval {low:.4f}–{high:.4f}), log-loss {test['log_loss']:.4f}" in page
    low, high = wilson_interval(1, 30)
    assert "damaged: cut short" in page
    assert "Not used: 1 of 91 files, for these reasons:" in page
    assert f"between {100 * low:.0f} and {100 * high:.0f} of 100 are wrong on average." in first
    assert f'<th scope="row">{CLASSES[0]}</th><td class="right">0.62</td>' in page
    data = report.photos_of(run)
    command = (
        f"python train.py --data {shlex.quote(str(data))} --image-size 320 --epochs 2 --seed 3"
    )
    assert command in html.unescape(re.sub("</?span>", "", page))


@pytest.mark.slow
def test_of_few_test_photos_the_page_tells_no_share(tmp_path: Path) -> None:
    """Shares and curves of validation stay; the heat of a photo's own answer too."""
    few = made_up_run(tmp_path / "few", [0.1, 0.9])
    page = report.render(report.execute(few), title="few")
    page = re.sub(r"[ \n\xa0]+", " ", page)
    assert re.search(r'number">2</strong> <span class="words">right</span><br>[^/]*of 2 test', page)
    assert "These test photos are too few to say how good it is with new ones." in page
    assert page.count("There are too few test photos to draw this.") == 4
    assert len(re.findall(r"<img[^>]*image/png", page)) == 5
    assert not re.search(
        r"(?i)\btest[^.<>]*?\d %", re.sub(r"<img[^>]*alt=|<style.*?</style>", "", page)
    )


def test_photos_worth_checking_are_shown_with_their_reason(page: str) -> None:
    for found in FOUND:
        name = found.name.replace("/", "/<wbr>")
        caption = f'{html.escape(found.reason)} <span class="file">{name}</span></figcaption>'
        card = page.partition(caption)[0].rpartition("<li")[2]
        assert re.search(r"<img [^>]*data:image/jpeg", card)


def test_mistakes_are_shown_the_surest_first(run: Run, page: str) -> None:
    given = read_results(run).predictions["test"]
    mistakes = given.mistakes()
    confusion = np.array(run.read_metrics().test.confusion)
    assert len(mistakes) == confusion.sum() - np.trace(confusion) > 1
    assert [given.confidence[n] for n in mistakes] == sorted(
        (given.confidence[n] for n in mistakes), reverse=True
    )
    panel = panel_of(page, "Mistakes")
    places = [panel.index(f">{given.names[n].replace('/', '/<wbr>')}<") for n in mistakes[:SHOWN]]
    assert places == sorted(places)
    wrong = sum(outcome == "wrong" for outcome in outcomes(given, 0.625))
    assert f"<h3>{wrong} of 30 test photos are answered wrongly</h3>" in panel
    assert f"and whose likeliest class is wrong: {len(mistakes) - wrong}." in panel


def test_the_least_certain_answers_are_those_with_the_lowest_confidence(run: Run) -> None:
    given = read_results(run).predictions["test"]
    doubtful = given.least_certain()
    assert sorted(doubtful) == list(range(len(given.names)))
    assert np.all(np.diff(given.confidence[doubtful]) >= 0)


def test_photos_that_are_gone_are_named_and_counted(run: Run, page: str) -> None:
    given = read_results(run).predictions["test"]
    shown_ones = given.least_certain()[:SHOWN]
    gone = [given.names[n] for n in shown_ones if n >= SPLITS["test"] - 12]
    assert 0 < len(gone) < SHOWN, "so the sentence has something to say"
    panel = panel_of(page, "Doubtful answers")
    assert f"can be shown: {SHOWN - len(gone)} of {SHOWN};" in panel
    assert panel.count("<img") == SHOWN - len(gone)
    assert all(f">{name.replace('/', '/<wbr>')}<" in panel for name in gone)


def test_a_bundle_that_cannot_answer_leaves_photos_without_heat_maps(page: str) -> None:
    for title in ("Mistakes", "Doubtful answers"):
        panel = panel_of(page, title)
        assert NO_HEATMAPS in html.unescape(panel)
        assert "heat-" not in panel
        assert 'class="layer"' not in panel


def test_the_page_needs_nothing_else(page: str) -> None:
    assert not re.search(r"<script|<link|<iframe|<object|@import|url\((?!#)", page)
    sources = re.findall(r"""(?:src|href|srcset)\s*=\s*["']?([^"'\s>]{0,30})""", page)
    assert sources
    allowed = ("data:image/jpeg;base64", "#")
    assert all(source.startswith(allowed) for source in sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)
    assert len(page.encode()) < 6 * MEGABYTE


def test_every_figure_has_words_for_those_who_do_not_see_it(page: str) -> None:
    images = re.findall(r"<img[^>]*>", page)
    figures = re.findall(r'<svg class="(?:figure|waffle)"[^>]*>', page)
    assert len(figures) == 11
    for image in [*images, *figures]:
        alt = re.search(r'(?:alt|aria-label)="([^"]+)"', image)
        assert alt is not None
        assert len(alt[1]) > (40 if image in figures else 12)
    others = [tag for tag in re.findall(r"<svg[^>]*>", page) if tag not in figures]
    assert all('aria-hidden="true"' in tag for tag in others), "signs beside words"


def test_figures_follow_the_colours_and_the_font_of_the_page(page: str) -> None:
    figures = re.findall(r'<svg class="figure".*?</svg>', page)
    for figure in figures:
        assert "<text" in figure, "words are words"
        assert "font-family" not in figure
        assert not set(re.findall(r"(?:fill|stroke): (#\w+)", figure)) - {"#000000"}
        assert "<style" not in figure, "it would hold for the whole page"
        assert not re.search(r"<g[^>]* id=", figure), "no name is there twice"
    assert re.search(r">area 0\.\d{4}</text>", page), "numbers in words keep their digits"


def test_the_panels_come_in_the_order_of_the_story(page: str) -> None:
    titles = [re.sub(r"<[^>]*>", "", title) for title in re.findall(r"<h2[^>]*>(.*?)</h2>", page)]
    assert titles == PANELS
    folded = re.findall(r"<details><summary>(.*?)</summary>", page)
    assert folded == FOLDED
    links = re.findall(r'<li><a href="#(section-\d+)">(.*?)</a></li>', page)
    assert [title for _, title in links] == PANELS
    assert all(page.count(f'id="{place}"') == 1 for place, _ in links)
    for title in PANELS[:-1]:  # each says what it shows, and then what to see in it
        panel = panel_of(page, title)
        assert re.match(r" *<h3>[^<]{20,}</h3>", panel), title
        assert re.search(r"<p>[^<]{40,}", panel), title


def panel_of(page: str, title: str) -> str:
    """Return what stands under a heading, up to the next one."""
    return page.partition(f">{title}</h2>")[2].partition("<h2")[0]


def test_cells_that_name_rows_and_columns_say_so(page: str) -> None:
    heads = re.findall(r"<th[ >][^>]*", page)
    assert heads
    assert all(re.search(r'scope="(row|col)"', head) for head in heads)
    assert '<th scope="row">keras</th><td>3.9.9</td>' in page


def test_the_report_shows_the_photos_and_the_notebook_does_not(page: str, notebook: Any) -> None:
    """Whatever is passed on holds no pixel of a user's photo."""
    shown_ones = pictures(page)
    assert len(shown_ones) > 20
    assert all(map(shows_telltale, shown_ones)), "the colour is found wherever a photo is shown"
    text = "".join(
        "".join(output["data"]["text/html"])
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "text/html" in output.get("data", {})
    )
    drawings = pictures(text)
    assert len(drawings) == 12, "four drawings with the two views each that training saw"
    assert not any(map(shows_telltale, drawings))
    everything = json.dumps(notebook)
    assert "image/jpeg" not in everything.replace("data:image/jpeg;base64,", "")
    assert everything.count("image/jpeg") == len(drawings), "there is no other picture"
    assert "Drawings stand here" in text


def test_the_notebook_is_executed_without_photos_whatever_the_environment_says(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "telling.py"
    source.write_text("# %%\nfrom app.report.results import chosen_photos\nrepr(chosen_photos())\n")
    monkeypatch.setattr(report, "SOURCE", source)
    monkeypatch.setenv("CATS_DOGS_PHOTOS", str(report.photos_of(run)))
    path = write_notebook(run, tmp_path / "telling.ipynb")
    assert "'None'" in path.read_text(encoding="utf-8")


def test_photos_are_looked_for_where_training_was_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = run_with_photos(tmp_path / "relative")
    values = json.loads(run.config.read_text())
    run.config.write_text(json.dumps({**values, "data": "my photos"}))  # as older runs have it
    monkeypatch.chdir(tmp_path)  # the report's cells run in the project's folder
    assert report.photos_of(run) == tmp_path / "my photos"
    run.config.write_text("{}", encoding="utf-8")
    with pytest.raises(BundleError, match="to be a list of stages"):
        report.photos_of(run)


def test_a_page_of_photos_that_compress_badly_stays_small() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (320, 320, 3), dtype=np.uint8)
    assert len(jpeg(noise)) <= MAX_THUMBNAIL
    pictures_at_most = SAMPLES * (1 + VIEWS) + 5 * SHOWN + 3 * A_KIND  # the last ones: the wall
    assert pictures_at_most * MAX_THUMBNAIL * 4 / 3 < 4.5 * MEGABYTE, "figures need the rest"
    layer = evidence(np.random.default_rng(0).normal(size=(48, 48)), 1.0, (320, 320))
    assert 2 * SHOWN * len(png(layer)) * 4 / 3 < 0.5 * MEGABYTE, "heat maps are small"


def test_no_code_in_the_page(page: str) -> None:
    assert "import" not in re.sub(r"base64,[^\"]*", "", page)


def test_names_cannot_break_the_page(page: str) -> None:
    assert "<b>wolf" not in page
    assert "dog &amp; &lt;b&gt;wolf&lt;/b&gt;" in page
    assert "cat/b\ufffdd.jpg" in page  # a name that is no UTF-8


def test_the_page_is_written_whole_or_not_at_all(
    run: Run, notebook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "execute", lambda *_, **__: notebook)
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
    monkeypatch.setattr(report, "execute", lambda *_: copy.deepcopy(notebook))
    path = write_notebook(run, tmp_path / "report.ipynb")
    text = path.read_text(encoding="utf-8")
    again = write_notebook(run, tmp_path / "again.ipynb")
    assert again.read_text(encoding="utf-8") == text
    assert str(PROJECT) not in text
    assert str(run.folder.parent) not in text
    for part in ("O'Brien", "O&#x27;Brien", "Brien"):
        assert part not in text
    assert "python train.py --data photos --image-size 320 --epochs 2 --seed 3" in text
    for row in (*FOUND, *read_results(run).skipped()):
        assert row.name.encode(errors="replace").decode() not in text
        assert row.name.rpartition("/")[2] not in text
    assert sys.version.split()[0] not in text
    written = nbformat.read(path, as_version=4)
    nbformat.validate(written)
    assert [cell.id for cell in written.cells[:2]] == ["cell-00", "cell-01"]
    assert all(not cell.metadata for cell in written.cells)


def test_paths_in_the_notebook_are_shortened_and_warnings_left_out(
    notebook: Any, tmp_path: Path
) -> None:
    data = f"/home/{OWNER}/photos"
    elsewhere = run_with_photos(tmp_path / "other", Path(data))
    changed = copy.deepcopy(notebook)
    code = next(cell for cell in changed.cells if cell.cell_type == "code")
    stream = {"output_type": "stream", "name": "stdout"}
    texts = f"at {data}", html.escape(f"at {data}")
    code.outputs = [
        *({**stream, "text": text} for text in texts),
        {**stream, "name": "stderr", "text": "/usr/lib/python: UserWarning: beware"},
    ]
    assert "beware" not in report.render(copy.deepcopy(changed), title="")
    report.cleaned(changed, elsewhere)
    assert [output["text"] for output in code.outputs] == ["at photos", "at photos"]


def test_no_cell_warns(notebook: Any) -> None:
    streams = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output["output_type"] == "stream"
    ]
    assert streams == []


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Told:
    """Run the report's script as any other, and return what its cells display, as text."""

    def run_script(run: Run, photos: Path | None = None) -> str:
        monkeypatch.setenv(RUN_VARIABLE, str(run.folder))
        monkeypatch.setenv(PHOTOS_VARIABLE, str(photos or ""))
        capsys.readouterr()
        runpy.run_path(str(SOURCE))
        return Html(capsys.readouterr().out).text

    return run_script


@pytest.mark.parametrize(
    "data", ["/srv/A&B/photos", "/srv/O'Brien/photos", '/srv/ü "x"/photos', "/srv/\udce9/photos"]
)
def test_what_is_passed_on_tells_no_place(data: str, tmp_path: Path, told: Told) -> None:
    run = run_with_photos(tmp_path / "run", Path(data), exclude=Path("../Jane/list.txt"))
    text = run.manifest.read_text(encoding="utf-8", errors="surrogateescape")
    changed = text.replace('"damaged: cut short",0,0,"","damaged"', '"cut off",0,0,"","excluded"')
    run.manifest.write_text(changed, encoding="utf-8", errors="surrogateescape")
    results = read_results(run).without_places()
    assert "--data photos --exclude list.txt " in results.command()
    assert list(results.refusals()) == ["excluded by a list"]
    assert data not in str(results.config)
    if data == "/srv/A&B/photos":  # once is enough for the script, which takes a second
        said = told(run)
        assert "--data photos --exclude list.txt" in said
        assert not re.search("srv|Jane", said)


def test_answers_that_predict_would_not_give_are_called_so(page: str, run: Run) -> None:
    given = read_results(run).predictions["test"]
    panel = panel_of(page, "Mistakes")
    shown_ones = given.mistakes()[:SHOWN]
    strange = [n for n in shown_ones if given.novelty[n] > OOD_THRESHOLD]
    unsure = [n for n in shown_ones if n not in strange and given.confidence[n] < 0.625]
    assert 0 < len(strange) < SHOWN
    assert panel.count("Answer: neither cat nor dog ") == len(strange)
    assert panel.count("Answer: unsure: perhaps ") == len(unsure)
    assert "Answer: unsure: perhaps " in panel_of(page, "Doubtful answers")


def test_a_run_that_is_always_right_and_equally_sure(tmp_path: Path, told: Told) -> None:
    """And of the head alone, by a version that did not measure all that is measured now."""
    config = TrainConfig(data=tmp_path / "photos", stages=("head",))
    shown = {"<i>fox": {"learned": 8, "held_out": 3, "refused": 2}}
    shown[""] = {"learned": 0, "held_out": 1, "refused": 1}
    run = made_up_run(tmp_path / "run", [0.0, 1.0] * 15, config=config, metrics={"neither": shown})
    metrics = json.loads(run.metrics.read_text())
    for split in ("validation", "test"):
        del metrics[split]["ece_bias"]
    run.metrics.write_text(json.dumps(metrics), encoding="utf-8")
    said = told(run, tmp_path / "photos")
    assert "So there is no mistake to show: for all 30 the likeliest class is right." in said
    assert "The head, which alone was trained, learned from each photo itself." in said
    assert "random crop" not in said
    assert "Perfectly calibrated" not in said
    few = read_results(run).predictions["validation"]
    refused = percent(float((few.novelty > OOD_THRESHOLD).mean()))
    assert refused != "2.0 %"
    assert f"of these validation photos {refused} are." in said
    assert "learned from 8 of them. Of 4 others it refuses 3." in said
    assert "of no named kind 0 1 1" in said


def test_names_in_any_alphabet_are_drawn_or_at_least_written(tmp_path: Path) -> None:
    from app.report import figures as plots

    names = ["猫", "犬 ᚠ", "_bg"]
    picture = Picture(plots.confusion(np.eye(3, dtype=int).tolist(), names), "three")
    assert picture._repr_mimebundle_()[0]["image/png"]  # a warning would be an error
    assert plots.STYLE["font.family"][0] == "DejaVu Sans"


@pytest.mark.parametrize("place", ["cat/photo.ipynb", "cat/train0.jpg", ".", "elsewhere.jpg"])
def test_the_notebook_is_not_written_over_photos(
    place: str, run: Run, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / place if place == "elsewhere.jpg" else photos / place
    before = [(each, each.stat().st_mtime_ns) for each in photos.rglob("*")]
    assert run_command(main, [str(run.folder), "--notebook", str(path)]) == 2
    assert "expected a " in capsys.readouterr().err
    assert [(each, each.stat().st_mtime_ns) for each in photos.rglob("*")] == before
    assert not path.is_file() or path.suffix == ".jpg"


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.json", "{}"),
        ("config.json", "[]"),
        ("config.json", '{"data": "p", "stages": ["head"]}'),
        ("history.csv", "stage,epoch\n"),
        ("predictions.csv", "name,split,label\n"),
    ],
)
def test_a_damaged_file_is_answered_in_one_line(
    file: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with_photos(tmp_path / "damaged")
    (run.folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(BundleError, match=r"received a damaged one|expected in .*config\.json"):
        read_results(run)
    assert run_command(main, [str(run.folder)]) == BundleError.exit_code
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("missing", ["metrics.json", "predictions.csv"])
def test_an_unfinished_run_is_answered_in_one_line(
    missing: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with_photos(tmp_path / "unfinished")
    (run.folder / missing).unlink()
    assert run_command(main, [str(run.folder)]) == BundleError.exit_code
    output, error = capsys.readouterr()
    assert output == ""
    assert error.count("\n") == 1
    assert "expected a finished run" in error
    assert missing in error
    assert not run.report.exists()


def test_a_report_needs_no_bundle(tmp_path: Path) -> None:
    run = run_with_photos(tmp_path / "without")
    shutil.rmtree(run.bundle)
    check_complete(run)
    results = read_results(run)
    assert drawn_album(results, run.bundle).lacking == NO_PETS
    assert photo_album(results, run.bundle, tmp_path).lacking == NO_HEATMAPS
    assert read_blocks(run.bundle / ONNX_FILE) == []


def test_a_folder_that_is_none_is_answered_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="expected the folder of a run"):
        write_report(Run(tmp_path / "nowhere"))


def test_damaged_files_are_named(tmp_path: Path) -> None:
    run = run_with_photos(tmp_path / "damaged")
    run.predictions.write_text("name,split\na.jpg,validation\na.jpg,test\n", encoding="utf-8")
    with pytest.raises(BundleError, match=r"damaged one \(KeyError: 'label'\)"):
        read_results(run)


def test_a_failing_cell_is_answered_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
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
    newest = run_with_photos(tmp_path / "runs" / "newest")
    assert chosen_run(tmp_path) == newest


def test_a_default_needs_no_flag_to_be_repeated(run: Run, tmp_path: Path) -> None:
    results = read_results(run)
    config = TrainConfig(data=Path("photos"), run="mine", report=False)
    assert dataclasses.replace(results, config=config).command() == "python train.py --data photos"


def test_what_was_excluded_is_excluded_again(run: Run) -> None:
    config = TrainConfig(data=Path("photos"), exclude=Path("my list.txt"))
    command = dataclasses.replace(read_results(run), config=config).command()
    assert command == "python train.py --data photos --exclude 'my list.txt'"


def test_every_sentence_of_the_report_is_used() -> None:
    words = (TEMPLATES / "report.html.j2").read_text(encoding="utf-8")
    cells = SOURCE.read_text(encoding="utf-8")
    macros = re.findall(r"{% macro (\w+)\(", words)
    assert len(macros) > 40
    for name in macros:
        assert f"say.{name}(" in cells or len(re.findall(rf"\b{name}\(", words)) > 1, name


def test_a_value_that_a_template_lacks_is_an_error() -> None:
    with pytest.raises(UndefinedError, match="'album' is undefined"):
        Parts("report.html.j2").about_drawings()


@pytest.mark.slow
def test_report_and_notebook_of_a_run_trained_with_small_settings(tmp_path: Path) -> None:
    """From a clean clone: photos are drawn, weights random, pictures small."""
    data = drawn_photos(tmp_path / "photos")
    for path in data.glob("*/*.jpg"):  # a band of the telltale colour marks them as the user's
        with Image.open(path) as image:
            image.paste(TELLTALE, (0, 0, image.width, image.height // 3))
            image.save(path, quality=95)
    small = ["--weights", "none", "--image-size", "64", "--views", "2", "--epochs", "1"]
    flags = ["--data", str(data), "--runs", str(tmp_path), "--run", "small", *small]
    subprocess.run([sys.executable, "train.py", *flags], cwd=PROJECT, check=True)
    run = Run(tmp_path / "small")
    page = run.report.read_text(encoding="utf-8")
    assert 'class="layer"' in page
    assert "Show the heat maps" in page
    assert "memory at most" in page
    assert any(map(shows_telltale, pictures(page)))
    assert len(page.encode()) < 6 * MEGABYTE

    path = write_notebook(run, tmp_path / "report.ipynb")
    text = path.read_text(encoding="utf-8")
    assert text.count("Heat map of") > SHOWN  # of the drawings
    drawings = pictures(text)
    assert len(drawings) == text.count("image/jpeg") > 2 * SHOWN
    assert not any(map(shows_telltale, drawings))


def test_script_and_committed_notebook_have_the_same_cells() -> None:
    import jupytext

    committed = PROJECT / "notebooks" / "report.ipynb"
    assert committed.is_file()

    script, notebook = jupytext.read(SOURCE), jupytext.read(committed)
    assert [(c.cell_type, c.source) for c in script.cells] == [
        (c.cell_type, c.source) for c in notebook.cells
    ], "run python -m app report RUN --notebook notebooks/report.ipynb"


def test_help_is_quick_because_nothing_heavy_is_imported() -> None:
    heavy = ["matplotlib", "sklearn", "scipy", "jupytext", "nbclient", "nbconvert", "keras"]
    code = f"import sys, app.report.report; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
