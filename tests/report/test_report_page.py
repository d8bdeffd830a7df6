"""The report in a real Chromium: at a desk, on a phone, in the dark, on paper."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat.v4 as notebooks
import numpy as np
import pytest
from made_up import SPLITS, made_up_photos, run_with_photos
from photos import picture

from app.evaluation.prediction_set import PredictionSet
from app.report import report
from app.report.evidence import evidence
from app.report.first_screen import outcomes
from app.report.html import Parts
from app.report.images import Album, ReportImage
from app.report.tokens import read_tokens

webdriver = pytest.importorskip("selenium.webdriver")

pytestmark = pytest.mark.browser
PHONE, DESK = (390, 800), (1200, 900)
Look = Callable[..., Any]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of a made-up run, and a page of one gallery with heat maps."""
    folder = tmp_path_factory.mktemp("pages")
    run = run_with_photos(folder / "run", made_up_photos(folder / "photos", SPLITS))
    whole = report.render(report.execute(run, report.photos_of(run)), title="whole")
    (folder / "whole.html").write_text(whole, encoding="utf-8")
    gallery = report.render(heat_maps(), title="heat maps")
    (folder / "heat.html").write_text(gallery, encoding="utf-8")
    return folder


def heat_maps() -> Any:
    """Return a notebook whose only section shows two photos with heat maps."""
    small = np.asarray(picture(size=(300, 200)))
    given = PredictionSet(
        ("a", "b"), np.array([0, 1]), np.array([[0.1, 0.9], [0.2, 0.8]]), np.array([0.1, 0.1])
    )
    layer = evidence(np.array([[3.0, 0.0], [0.0, -3.0]]), 3.0, small.shape)
    album = Album(
        False,
        {name: ReportImage(small, small) for name in given.names},
        [],
        given,
        [],
        [],
        tuple(outcomes(given, 0.6)),
        {(name, 1): layer for name in given.names},
    )
    answers = Parts("report.html.j2", album=album, classes=["x", "y"]).answers([0, 1], "mistake")
    shown = notebooks.new_output("display_data", {"text/html": str(answers)})  # type: ignore[no-untyped-call]
    cells = [
        notebooks.new_markdown_cell("# Heat maps"),  # type: ignore[no-untyped-call]
        notebooks.new_markdown_cell("## Mistakes"),  # type: ignore[no-untyped-call]
        notebooks.new_code_cell(outputs=[shown]),  # type: ignore[no-untyped-call]
    ]
    return notebooks.new_notebook(cells=cells)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not program or not driver:
        pytest.skip("no chromium and chromedriver (on Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture
def look(chromium: Any, pages: Path) -> Iterator[Look]:
    """Open a page at a size, in a scheme or on paper; return what a script of it returns."""

    def open_page(
        name: str, size: tuple[int, int], dark: bool = False, media: str = ""
    ) -> Callable[..., Any]:
        width, height = size
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        chromium.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        chromium.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"media": media, "features": [scheme]}
        )
        chromium.get((pages / f"{name}.html").as_uri())

        def ask(script: str) -> Any:
            return chromium.execute_script(script)

        return ask

    yield open_page
    assert chromium.get_log("browser") == []


def rgb(colour: str) -> str:
    """Return ``#rrggbb`` as a browser says it."""
    return f"rgb({', '.join(str(int(colour[k : k + 2], 16)) for k in (1, 3, 5))})"


@pytest.mark.parametrize("size", [PHONE, DESK, (800, 600), (1099, 900), (1100, 900)])
def test_nothing_is_wider_than_the_page(look: Look, size: tuple[int, int]) -> None:
    ask = look("whole", size)
    ask("for (const fold of document.querySelectorAll('details')) fold.open = true")
    assert ask("return document.documentElement.scrollWidth") <= size[0]
    wide = ask(
        "return [...document.querySelectorAll('svg.figure, img, .tiles, h3')]"
        f".filter(each => each.getBoundingClientRect().right > {size[0]}).length"
    )
    assert wide == 0


def test_the_list_of_sections_stays_in_sight(look: Look) -> None:
    place = (
        "window.scrollTo(0, 3000); const box = document.querySelector('nav')"
        ".getBoundingClientRect(); return [box.left, box.top, box.right, box.bottom]"
    )
    _, top, right, bottom = look("whole", DESK)(place)
    assert 0 <= top < bottom <= DESK[1]
    ask = look("whole", DESK)
    assert right <= ask("return document.querySelector('section').getBoundingClientRect().left")
    _, top, _, bottom = look("whole", PHONE)(place)
    assert (top, bottom < 80) == (0, True), "on a phone it is a line at the top"


def test_the_first_screen_has_all_of_it_at_a_desk(look: Look) -> None:
    ask = look("whole", DESK)
    lowest = ask(
        "return Math.max(...[...document.querySelectorAll('.tile, .waffle, .lead, .next, .wall "
        "img')].map(each => each.getBoundingClientRect().bottom))"
    )
    assert lowest <= DESK[1]


@pytest.mark.parametrize("dark", [False, True])
def test_page_and_figures_have_the_colours_of_the_scheme(look: Look, dark: bool) -> None:
    ask = look("whole", DESK, dark=dark)
    colours = read_tokens(dark)
    style = "return getComputedStyle(document.querySelector('{}')).{}"
    assert ask(style.format("body", "backgroundColor")) == rgb(colours["page"])
    assert ask(style.format("svg.figure text", "fill")) == rgb(colours["text"])
    assert ask(style.format(".waffle path", "stroke")) == rgb(colours["right"])
    assert ask(style.format(".name.class-1", "color")) == rgb(colours["text"])


def test_paper_is_light_and_nothing_is_folded(look: Look) -> None:
    ask = look("whole", DESK, dark=True, media="print")
    background = ask("return getComputedStyle(document.body).backgroundColor")
    assert background == rgb(read_tokens()["page"])
    assert ask("return getComputedStyle(document.querySelector('nav')).display") == "none"
    heights = ask("return [...document.querySelectorAll('details')].map(each => each.offsetHeight)")
    assert min(heights) > 80, "a summary alone is some 40 high"


def test_photos_fill_their_squares(look: Look) -> None:
    sides = look("whole", DESK)(
        "return [...document.querySelectorAll('a.shots img')].map(each => "
        "[each.clientWidth, each.clientHeight, getComputedStyle(each).objectFit])"
    )
    assert len(sides) > 20
    assert all(abs(width - height) <= 1 for width, height, _ in sides)
    assert {fit for _, _, fit in sides} == {"cover"}


def test_heat_maps_lie_over_their_photos_where_they_are_wanted(look: Look) -> None:
    ask = look("heat", DESK)
    layers = (
        "return [...document.querySelectorAll('.layer')]"
        ".map(each => getComputedStyle(each).opacity)"
    )
    assert ask(layers) == ["0", "0"]
    ask("document.querySelector('label').click()")
    assert ask(layers) == ["1", "1"]
    photo, layer, over = ask(
        "const [photo, layer] = document.querySelectorAll('.shots img'); const box = "
        "each => { const {left, top, width, height} = each.getBoundingClientRect(); "
        "return [left, top, width, height]; }; const [x, y, w, h] = box(photo); return "
        "[box(photo), box(layer), document.elementFromPoint(x + w / 2, y + h / 2).className]"
    )
    assert photo == layer
    assert over == "layer", "it is not hidden by the photo"
    assert "grayscale" in ask(
        "return getComputedStyle(document.querySelector('.shots img')).filter"
    )


def test_a_click_shows_a_photo_whole_and_another_closes_it(look: Look) -> None:
    ask = look("heat", PHONE)
    position = "return getComputedStyle(document.querySelector('.card')).position"
    assert ask(position) == "static"
    ask("document.querySelector('a.shots').click()")
    assert ask(position) == "fixed"
    left, right, fit = ask(
        "const photo = document.querySelector('.card img'), box = photo.getBoundingClientRect();"
        "return [box.left, box.right, getComputedStyle(photo).objectFit]"
    )
    assert 0 <= left < right <= PHONE[0]
    assert fit == "contain", "nothing is cut off"
    ask("document.querySelector('.card .close').click()")
    assert ask(position) == "static"


@pytest.mark.parametrize("size", [PHONE, DESK])
def test_a_photo_and_its_crops_have_one_size(look: Look, size: tuple[int, int]) -> None:
    """Squeezed as the network sees them, so that one compares what they show."""
    sizes = look("whole", size)(
        "return [...document.querySelectorAll('.views .card')].map(card =>"
        " [...card.querySelectorAll('img')].map(img =>"
        " [Math.round(img.clientWidth), Math.round(img.clientHeight)]))"
    )
    assert any(len(pictures) > 1 for pictures in sizes)
    for pictures in sizes:
        assert all(width == height for width, height in pictures)
        assert len({width for width, _ in pictures}) <= 1
