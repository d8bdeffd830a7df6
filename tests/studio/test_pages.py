"""The studio's tabs in a real Chromium with a camera: what a person does, sees and hears."""

import base64
import csv
import dataclasses
import http.server
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from photos import drawn_photos, encoded, make_photo
from PIL import Image
from studio_page import (
    SIZE,
    chromium_with_camera,
    client_of,
    studio_served,
    tiny_run,
)
from waiting import PATIENCE, eventually

import app.studio.reviewing
import app.studio.teaching
import predict
from app.core.cli import run
from app.core.run_folder import Run, finished_run
from app.data.corrections import read_corrections
from app.data.manifest import read_manifest
from app.evaluation.decision import Thresholds
from app.inference.predictor import Classifier
from app.report.review_queue import ReviewItem, read_review_queue
from app.studio.application import Studio
from tests.serving.test_page import CONTRAST, FAULTS
from tests.serving.test_serve import bomb

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402  it may be missing
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = pytest.mark.browser
ROOT = Path(__file__).parents[2]
PHONE, DESKTOP = (390, 844), (1200, 900)
CLIPBOARD = ["clipboardReadWrite", "clipboardSanitizedWrite"]
HOSTILE = '<img src=x onerror=document.title="hacked">'


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("studio")
    tiny_run(folder)
    return folder


@pytest.fixture(scope="module")
def runs(folder) -> Path:
    return folder / "runs"


@pytest.fixture(scope="module")
def drawn(folder) -> Path:
    return folder / "drawn"


@pytest.fixture(scope="module")
def chromium() -> Iterator["webdriver.Chrome"]:
    with chromium_with_camera() as browser:
        yield browser


class Page:
    """A tab, as a person has it before them.

    Args:
        browser: that shows it.
        link: the address that the program prints, with its secret.
        tab: its name.
    """

    def __init__(self, browser: "webdriver.Chrome", link: str, tab: str) -> None:
        self.browser, self.link = browser, link
        self.size(*DESKTOP)
        self.command("Emulation.setEmulatedMedia", media="")
        self.go(tab)

    def go(self, tab: str) -> None:
        self.browser.get(self.link.replace("/?", f"/{tab}?"))
        self.wait(lambda: self.one("body").get_attribute("data-ready") == "yes")

    def command(self, name: str, **values: object) -> None:
        self.browser.execute_cdp_cmd(name, values)

    def size(self, width: int, height: int) -> None:
        values = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.command("Emulation.setDeviceMetricsOverride", **values)

    def all(self, selector: str) -> list:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def wait(self, holds):
        return eventually(holds, lambda: self.text("body"))

    def script(self, text: str, *arguments: object):
        return self.browser.execute_script(text, *arguments)

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def drop(self, selector: str, *paths: Path) -> None:
        """Drop files as a person does, from outside, at the middle of something."""
        element = self.one(selector)
        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        box = self.script("return arguments[0].getBoundingClientRect().toJSON()", element)
        files = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, data=files, **where)

    def hold(self, selector: str) -> None:
        """Press a button, and keep it pressed, once it has stood still for a third of a second.

        While something above it appears, as the camera's picture does, the pointer would miss it.
        """
        element = self.one(selector)

        def stands() -> bool:
            before = element.rect
            time.sleep(0.3)
            return element.rect == before

        self.script("arguments[0].scrollIntoView({block: 'center'})", element)
        self.wait(stands)
        webdriver.ActionChains(self.browser, duration=0).click_and_hold(element).perform()

    def paste(self, path: Path) -> None:
        self.command("Browser.grantPermissions", permissions=CLIPBOARD)
        data = encoded(Image.open(path), "PNG")
        script = """const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
            const blob = new Blob([bytes], {type: "image/png"});
            return navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);"""
        self.script(script, base64.b64encode(data).decode())
        self.one("body").send_keys(Keys.CONTROL, "v")

    def verdict_of(self, name: str) -> str:
        """Wait for the answer to the photo of a name; return its words."""
        self.wait(lambda: self.text("#name") == name and self.text("#verdict") != "…")
        return self.text("#verdict")


def link_of(address: str, studio: Studio) -> str:
    return studio.entry.link(f"{address}/")


@pytest.fixture
def studio(chromium, runs, folder) -> Iterator:
    """Return what opens a tab; at the end nothing may be on the browser's console."""
    with studio_served(runs, folder / "taught", name="tiny") as both:
        yield lambda tab: Page(chromium, link_of(*both), tab)
        chromium.get("about:blank")
    assert chromium.get_log("browser") == [], "errors, or what the policy forbids"


def words_of(runs: Path, path: Path) -> str:
    (answer,) = Classifier(runs / "tiny" / "bundle").answers([path])
    return str(answer.words)


# ---- ask -----------------------------------------------------------------------------------------


def test_ask_by_drop_by_choice_and_by_paste(studio, runs, drawn):
    page = studio("ask")
    page.wait(lambda: len(page.all("#strip img")) == 6)
    dog, cat = drawn / "dog" / "dog.2.jpg", drawn / "cat" / "cat.2.jpg"
    page.drop("#stage", dog)
    assert page.verdict_of(dog.name) == words_of(runs, dog)
    page.one("#choose").send_keys(str(cat))
    assert page.verdict_of(cat.name) == words_of(runs, cat)
    page.paste(dog)
    assert page.verdict_of("image.png") == words_of(runs, dog)
    assert len(page.all("#strip > li")) == 9
    assert page.script("return document.querySelector('#photo').naturalWidth") > 0
    page.wait(lambda: "image.png: " in page.text("#status"))
    page.all("#strip button")[2].click()  # the first of the three
    assert page.verdict_of(dog.name) == words_of(runs, dog)


NO_SCREEN = """const real = window.fetch;
window.fetch = (path, ...others) =>
    path === "/api/screen" ? Promise.reject(new TypeError("cut")) : real(path, ...others)"""


def test_a_photo_that_cannot_be_shown_stops_no_other(studio, runs, drawn, tmp_path):
    page = studio("ask")
    page.script(NO_SCREEN)
    Image.open(drawn / "cat" / "cat.2.jpg").save(tmp_path / "cat.tiff")
    dog = drawn / "dog" / "dog.2.jpg"
    page.drop("#stage", tmp_path / "cat.tiff")
    page.drop("#stage", dog)
    assert page.verdict_of(dog.name) == words_of(runs, dog)
    page.all("#strip button")[1].click()
    page.verdict_of("cat.tiff")
    assert page.text("#empty") == "No picture."


CAMERAS = """const devices = navigator.mediaDevices, real = devices.getUserMedia.bind(devices);
window.cameras = 0;
devices.getUserMedia = (wanted) => { window.cameras += 1; return real(wanted); };
for (const _ of "12") document.querySelector("#camera").click();"""


@pytest.mark.parametrize("tab", ["ask", "teach"])
def test_two_clicks_start_one_camera(studio, tab):
    """A second one would go on when the first one is stopped."""
    page = studio(tab)
    page.script(CAMERAS)
    page.wait(lambda: page.text("#camera") == "Stop the camera")
    assert page.script("return window.cameras") == 1
    page.one("#camera").click()
    page.wait(lambda: page.text("#camera") == "Use the camera")


def test_the_camera_answers_at_once_and_stops(studio):
    page = studio("ask")
    page.wait(lambda: page.text("#verdict") != "…")
    begun = time.monotonic()
    page.one("#camera").click()
    page.wait(lambda: page.one("#video").get_attribute("data-answers"))
    first = time.monotonic() - begun
    assert page.text("#name") == "the camera, live"
    assert len(page.all("#bars li")) == 2

    def answers() -> int:
        return int(page.one("#video").get_attribute("data-answers"))

    page.wait(lambda: answers() >= 8)
    assert answers() <= 5 * (time.monotonic() - begun) + 1, "five a second at most"
    assert time.monotonic() - begun < 20, "not far below five a second, on a slow machine too"
    page.one("#camera").click()
    assert page.script("return document.querySelector('#video').srcObject") is None
    page.wait(lambda: page.text("#name") == "drawing 1")
    print(f"first answer of the camera after {first:.2f} s")


HELD = """const real = window.fetch;
window.asked = 0;
const held = new Promise((done) => { window.letGo = done; });
window.fetch = async (path, ...others) => {
    const found = await real(path, ...others);
    if (path === "/api/why" && (window.asked += 1) === 1) await held;
    return found;
}"""


@pytest.fixture
def twin(runs) -> Iterator[None]:
    """Put a second run beside the first, with the same answers."""
    shutil.copytree(runs / "tiny", runs / "twin")
    yield
    shutil.rmtree(runs / "twin")


def test_another_run_is_asked_again_what_speaks_for_its_answers(studio, twin):
    page = studio("ask")
    page.script(HELD)
    page.wait(lambda: page.one("#why").is_enabled())
    page.one("#why").click()
    page.wait(lambda: page.script("return window.asked") == 1)
    page.one("#run option[value=twin]").click()
    page.wait(lambda: "run twin tells" in page.text("#knows"))
    page.script("window.letGo()")
    page.wait(lambda: page.script("return window.asked") == 2)
    page.wait(lambda: page.one("#overlay").is_displayed())


def test_a_run_that_another_window_opens_answers_all_photos_again(chromium, runs, folder, twin):
    with studio_served(runs, folder / "taught", name="tiny") as both:
        page = Page(chromium, link_of(*both), "ask")
        page.wait(lambda: page.one("#why").is_enabled())
        page.one("#why").click()
        page.wait(lambda: page.one("#overlay").is_displayed())
        both[1].open_run(finished_run(runs, "twin"))
        page.wait(lambda: len(page.all("#strip img")) == 6)
        page.script(HELD.replace("/api/why", "/api/ask"))
        page.all("#strip button")[1].click()
        page.wait(lambda: "run twin tells" in page.text("#knows"))
        page.wait(lambda: page.script("return window.asked") == 1)
        assert not page.one("#overlay").is_displayed(), "the answer and what speaks for it are gone"
        assert page.text("#verdict") == "…"
        page.script("window.letGo()")
        page.wait(lambda: page.script("return window.asked") == 6)
        page.wait(lambda: page.one("#overlay").is_displayed() and page.text("#verdict") != "…")
        chromium.get("about:blank")
    assert chromium.get_log("browser") == []


def test_why_lies_over_the_photo(studio, drawn):
    page = studio("ask")
    page.drop("#stage", drawn / "dog" / "dog.1.jpg")
    page.verdict_of("dog.1.jpg")
    page.one("#why").click()
    page.wait(lambda: page.one("#overlay").is_displayed())
    boxes = """return ['#photo', '#overlay'].map((each) =>
        document.querySelector(each).getBoundingClientRect().toJSON())"""
    photo, overlay = page.script(boxes)
    assert photo == overlay
    coloured = """const c = document.querySelector('#overlay');
        const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
        return data.some((value, place) => place % 4 === 3 && value > 200);"""
    assert page.script(coloured)
    assert "speaks for" in page.text("#legend")
    opacity = "return Number(getComputedStyle(document.querySelector('#overlay')).opacity)"
    assert page.script(opacity) == pytest.approx(0.7)
    page.one("#evidence").send_keys(Keys.HOME)
    page.wait(lambda: page.script(opacity) == 0)
    page.one("#why").click()
    page.wait(lambda: not page.one("#overlay").is_displayed())


OVERLAY = "return document.querySelector('#overlay').toDataURL()"

DECODED = """return Promise.all([...document.querySelectorAll('#similar-list img')]
    .map(async (each) => (await each.decode(), each.naturalWidth)))"""


def test_neither_has_its_reason(chromium, runs, folder, drawn):
    """The nearest five are shown, as long as they are there."""
    with studio_served(runs, folder / "taught", name="tiny") as (address, studio):
        studio.answering.classifier.thresholds = Thresholds(confidence=0.0, novelty=0.0)
        page = Page(chromium, link_of(address, studio), "ask")
        page.drop("#stage", drawn / "cat" / "cat.0.jpg")
        assert page.verdict_of("cat.0.jpg") == "neither cat nor dog"
        page.wait(lambda: len(page.all("#similar-list img")) == 5)
        assert min(page.script(DECODED)) > 0
        assert page.all("#similar-list img")[0].get_attribute("alt") == "cat/cat.0.jpg"
        assert "are far from it" in page.text("#similar-words")
        away = drawn.with_name("away")
        drawn.rename(away)
        try:
            page.drop("#stage", away / "cat" / "cat.1.jpg")
            page.wait(lambda: len(page.all("#similar-list .gone")) == 5)
        finally:
            away.rename(drawn)
        chromium.get("about:blank")
    assert chromium.get_log("browser") == []


def test_hostile_photos_and_names_show_as_text(studio, tmp_path, drawn):
    page = studio("ask")
    hostile = tmp_path / f"{HOSTILE}.jpg"
    shutil.copy(drawn / "cat" / "cat.1.jpg", hostile)
    (tmp_path / "bomb.png").write_bytes(bomb())
    page.drop("#stage", tmp_path / "bomb.png")
    assert page.verdict_of("bomb.png") == "no answer"
    assert "pixels, more than" in page.text("#trouble")
    assert not page.one("#photo").is_displayed()
    page.drop("#stage", hostile)
    page.verdict_of(hostile.name)
    assert page.browser.title == "Ask – studio"
    assert page.all("img[src=x]") == []


# ---- teach ---------------------------------------------------------------------------------------


def test_teach_from_files_and_camera_save_and_predict(studio, runs, folder, drawn, capsys):
    page = studio("teach")
    first, second = page.all(".class-name")
    for element, name in ((first, "dogs"), (second, HOSTILE.replace("/", ""))):
        element.send_keys(Keys.CONTROL, "a")
        element.send_keys(name, Keys.TAB)
    page.wait(
        lambda: (
            page.one(".card:last-child").text
            and page.all(".record")[1].get_attribute("aria-label").endswith(HOSTILE)
        )
    )
    assert page.browser.title == "Teach – studio"
    assert not page.one("#solve").is_enabled()
    page.drop(".card:first-child", *sorted((drawn / "dog").glob("*.jpg")))
    page.wait(lambda: page.text(".card:first-child .count") == "12 photos")
    page.one("#camera").click()
    page.wait(lambda: page.one("#video").is_displayed())
    page.hold(".card:last-child .record")
    page.wait(lambda: int(page.text(".card:last-child .count").split()[0]) >= 14)
    webdriver.ActionChains(page.browser).release().perform()
    count = eventually(lambda: settled(page))
    page.one("#solve").click()
    page.wait(lambda: page.one("#score").is_displayed())
    page.wait(lambda: int(page.one("#live").get_attribute("data-answers") or 0) >= 3)
    assert len(page.all("#bars li")) == 2
    assert HOSTILE in page.text("#bars")
    page.one("#camera").click()
    page.one("#save-name").send_keys("mine")
    page.one("#save-button").click()
    page.wait(lambda: page.one("#saved").is_displayed())
    saved = folder / "taught" / "mine"
    assert len(list((saved / "dogs").iterdir())) == 12
    assert len(list((saved / HOSTILE).iterdir())) == count
    assert Run(runs / "mine").is_complete()
    said = page.text("#job-lines")
    assert "Everything lies in" in said
    page.one("#ask-it").click()
    page.wait(lambda: page.all("#knows") and "run mine tells" in page.text("#knows"))
    capsys.readouterr()
    dog = str(min((saved / "dogs").iterdir()))
    assert run(predict.main, ["--runs", str(runs), "--run", "mine", "--json", dog]) == 0
    assert json.loads(capsys.readouterr().out)["probabilities"]["dogs"] > 0.5
    shutil.rmtree(runs / "mine")


def settled(page: Page) -> int:
    """Return how many photos the second card has when no more come; 0 until then."""
    before = page.text(".card:last-child .count")
    time.sleep(1)
    return int(before.split()[0]) if page.text(".card:last-child .count") == before else 0


def test_a_click_without_holding_records_some(studio, monkeypatch):
    """As a screen reader clicks."""
    page = studio("teach")
    page.one("#camera").click()
    page.wait(lambda: page.one("#video").is_displayed())
    page.script("document.querySelector('.record').click()")
    page.wait(lambda: page.text(".card:first-child .count") == "10 photos")
    page.wait(lambda: "10 photos of class 1 were recorded" in page.text("#status"))
    monkeypatch.setattr(app.studio.teaching, "MOST_PHOTOS", 10)
    page.script("document.querySelector('.record').click()")
    page.wait(lambda: "0 photos of class 1 were recorded" in page.text("#status"))
    page.wait(lambda: "at most 10 photos" in page.text("#trouble"))
    page.all(".card:first-child .thumbs button")[0].click()
    page.wait(lambda: page.text(".card:first-child .count") == "9 photos")
    page.one("#camera").click()


def test_photos_are_removed_after_a_question(studio, drawn):
    page = studio("teach")
    page.one("#add").click()
    page.wait(lambda: len(page.all(".card")) == 3)
    page.one(".card:last-child input[type=file]").send_keys(str(drawn / "cat" / "cat.0.jpg"))
    page.wait(lambda: page.text(".card:last-child .count") == "1 photo")
    page.one(".card:last-child .remove").click()
    question = page.browser.switch_to.alert
    assert question.text == "Remove class 3 with 1 photo? This cannot be undone."
    question.dismiss()
    page.go("teach")
    assert page.text(".card:last-child .count") == "1 photo"
    page.one(".card:last-child .empty").click()
    page.browser.switch_to.alert.accept()
    page.wait(lambda: page.text(".card:last-child .count") == "0 photos")
    page.one(".card:last-child .remove").click()  # without photos nothing is asked
    page.wait(lambda: len(page.all(".card")) == 2)


def test_the_photos_of_teach_are_there_after_loading_again(studio, drawn):
    page = studio("teach")
    page.one(".card:last-child input[type=file]").send_keys(str(drawn / "cat" / "cat.0.jpg"))
    page.wait(lambda: page.text(".card:last-child .count") == "1 photo")
    page.go("teach")
    assert page.text(".card:last-child .count") == "1 photo"
    page.drop(".card:last-child", drawn / "cat" / "cat.0.jpg")
    page.wait(lambda: "the same file is there already" in page.text("#trouble"))


# ---- review --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def wrong(tmp_path_factory) -> Path:
    """Train on drawings of which some lie in the wrong folder; return the folder of the runs."""
    folder = tmp_path_factory.mktemp("wrong")
    photos = drawn_photos(folder / "photos", per_class=60)
    for number in range(24):
        (photos / "dog" / f"dog.{number}.jpg").rename(photos / "cat" / f"was_dog.{number}.jpg")
    flags = ["--data", str(photos), "--runs", str(folder / "runs"), "--run", "tiny", "--no-report"]
    flags += ["--weights", "none", "--image-size", str(SIZE), "--stages", "head", "--seed", "3"]
    import train

    assert run(train.main, [*flags, "--precision", "float32"]) == 0
    return folder / "runs"


@pytest.fixture
def process(wrong, tmp_path) -> Iterator:
    """Return what starts the command itself; it may be killed."""
    started: list[subprocess.Popen[str]] = []

    def start() -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "app", "studio", "--runs", str(wrong), "--port", "0"]
        command += ["--data", str(tmp_path / "taught"), "--weights", "none", "--run", "tiny"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        child = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True
        )
        started.append(child)
        for line in child.stderr:
            if "answers at" in line:
                return child, line.split("answers at ")[1].split()[0]
        raise AssertionError("it ended")

    yield start
    for child in started:
        child.kill()
        child.communicate()


KILLED, REVIEWED = 17, 30  # photos that are decided before the program is killed, and in all


def test_review_with_keys_survives_a_kill_and_trains_again(chromium, process, wrong):
    first = Run(wrong / "tiny")
    queue = read_review_queue(first)
    assert len(queue) > REVIEWED
    child, link = process()
    page = Page(chromium, link, "review")
    expected = {}
    for item in queue[: KILLED - 1]:
        expected[item.name] = decided_by_name(page, item)
    page.press("x")
    expected[queue[KILLED - 1].name] = ("leave_out", "")
    page.wait(lambda: len(decisions(first)) == KILLED)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert decisions(first) == expected
    page.press("s")  # nobody answers
    page.wait(lambda: "Not written" in page.text("#trouble"))
    chromium.get_log("browser")  # the browser itself tells that nobody answers

    _, link = process()
    page = Page(chromium, link, "review")
    assert page.text("#name") == queue[KILLED].name, "it goes on where it was"
    page.press("n")
    page.wait(lambda: len(decisions(first)) == KILLED + 1)
    for count in (KILLED, KILLED - 1):
        page.press("u")
        page.wait(lambda count=count: len(decisions(first)) == count)
    for item in queue[KILLED - 1 : REVIEWED]:
        expected[item.name] = decided_by_name(page, item)
    page.wait(lambda: len(decisions(first)) == REVIEWED)
    assert decisions(first) == expected

    page.one("#preview").click()
    page.wait(lambda: page.text("#job-words") == "This command has ended well:")
    assert "validation" in page.text("#job-lines")
    page.one("#train-button").click()
    page.wait(lambda: "is ready" in page.text("#status"))
    assert_figures_by_hand(first, Run(wrong / "tiny-corrected"), expected)
    chromium.get("about:blank")
    assert chromium.get_log("browser") == []


def decided_by_name(page: Page, item: ReviewItem) -> tuple[str, str]:
    """Press the key of the class that a file was drawn as; return the decision that is meant."""
    page.wait(lambda: page.text("#name") == item.name)
    true = "dog" if "dog" in Path(item.name).name else "cat"
    page.press({"cat": "1", "dog": "2"}[true])
    return ("right", "") if true == item.label else ("class", true)


def assert_figures_by_hand(first: Run, second: Run, expected: dict[str, tuple[str, str]]) -> None:
    """Compare what a corrected run says of itself with what follows from the keys."""
    before = {row.name: row for row in read_manifest(first.manifest)}
    after = {row.name: row for row in read_manifest(second.manifest)}
    labels = {
        name: label
        for name, (decision, label) in expected.items()
        if decision == "class" and before[name].split != "test"
    }
    assert len(labels) > 5
    assert {name: row.label for name, row in after.items()} == {
        name: labels.get(name, row.label) for name, row in before.items()
    }
    assert {name: row.split for name, row in after.items()} == {
        name: row.split for name, row in before.items()
    }
    test = {name for name in expected if before[name].split == "test"}
    right = {name for name, (decision, _) in expected.items() if decision == "right"} - test
    found = second.read_metrics().corrections
    assert found is not None
    counts = (found.relabelled, found.right, found.test, found.left_out, found.others)
    assert counts == (len(labels), len(right), len(test), 0, 0)
    given = first.read_metrics().test.n, second.read_metrics().test.n
    assert given[0] == given[1]

    answers = []
    for each in (first, second):
        with each.predictions.open(newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row["split"] == "validation"]
        answers.append({row["name"]: row["likeliest"] for row in rows})
    truth = {name: after[name].label for name in answers[1]}
    was, now = (sum(each[name] == label for name, label in truth.items()) for each in answers)
    compared = found.validation
    assert compared is not None
    assert (compared.photos, compared.right_before, compared.right_after) == (len(truth), was, now)


def decisions(run_: Run) -> dict[str, tuple[str, str]]:
    if not run_.corrections.is_file():
        return {}
    found = read_corrections(run_.corrections).values()
    return {each.name: (each.decision, each.label) for each in found}


KEY = """const done = arguments[1], begun = performance.now();
document.body.dispatchEvent(new KeyboardEvent("keydown", {key: arguments[0], bubbles: true}));
requestAnimationFrame(() => setTimeout(() => done(
    [performance.now() - begun, document.querySelector("#name").textContent])));"""
MANY, KEYS = 5_000, 30


def test_a_key_is_answered_at_once_with_5000_photos(chromium, wrong, folder, monkeypatch):
    """From the key to the next photo's name and buttons on the screen: the median of 30."""
    (item, *_) = read_review_queue(Run(wrong / "tiny"))
    many = [
        dataclasses.replace(item, name=f"cat/{n}.jpg", sha256=f"{n:064x}", place=n + 1)
        for n in range(MANY)
    ]
    monkeypatch.setattr(app.studio.reviewing, "read_review_queue", lambda _: list(many))
    copy = folder / "many" / "tiny"
    shutil.copytree(wrong / "tiny", copy)
    (copy / "corrections.csv").unlink(missing_ok=True)
    with studio_served(copy.parent, folder / "taught", name="tiny") as both:
        page = Page(chromium, link_of(*both), "review")
        times = []
        for number in range(KEYS):
            took, name = chromium.execute_async_script(KEY, "12nrxs"[number % 6])
            assert name == many[number + 1].name
            times.append(took)
        page.wait(lambda: len(decisions(Run(copy))) == KEYS)
        chromium.get("about:blank")
    chromium.get_log("browser")  # the photos are not there
    print(f"{statistics.median(times):.0f} ms, at most {max(times):.0f} ms")
    assert statistics.median(times) <= 100


def test_hostile_names_in_review_show_as_text(chromium, wrong, folder, monkeypatch):
    """A name that is no UTF-8, turns the reading direction, or would be markup."""
    (item, *_) = read_review_queue(Run(wrong / "tiny"))
    names = [HOSTILE, "photo\u202egpj.exe", "no\udcffutf8.jpg"]
    items = [
        dataclasses.replace(item, name=name, sha256="", label="cat", like=(name,), reasons=(name,))
        for name in names
    ]
    monkeypatch.setattr(app.studio.reviewing, "read_review_queue", lambda _: list(items))
    copy = folder / "hostile" / "tiny"
    shutil.copytree(wrong / "tiny", copy)
    (copy / "corrections.csv").unlink(missing_ok=True)
    with studio_served(copy.parent, folder / "taught", name="tiny") as (address, studio):
        page = Page(chromium, link_of(address, studio), "review")
        for name in (HOSTILE, "photo\\u202egpj.exe", "no�utf8.jpg"):
            page.wait(lambda name=name: page.text("#name") == name)
            assert name in page.text("#reasons")
            page.press("2")
        page.wait(lambda: len(decisions(Run(copy))) == 3)
        assert set(decisions(Run(copy))) == set(names)
        page.press("g")
        page.wait(lambda: len(page.all("#grid .gone")) == 3)
        assert page.browser.title == "Review – studio"
        with client_of(address, studio) as client:
            for change, words in (
                ({"number": 3}, "expected a photo of the list"),
                ({"decision": "class"}, "expected a class of the run"),
                ({"decision": "class", "class_number": 2}, "expected a class of the run"),
                ({"decision": "undo"}, "expected a decision out of"),
                ({"review": "other"}, "about the photos that are reviewed now"),
            ):
                key = studio.reviewing.key
                values = {"review": key, "number": 0, "decision": "right", **change}
                answer = client.post("/api/review/decide", json=values)
                assert answer.status_code == 400
                assert words in answer.json()["error"]
            client.post("/api/review", json={"name": "tiny"})  # in another window
        page.press("g")
        page.press("1")
        page.wait(lambda: "Not written" in page.text("#trouble"))
        assert "another list" in page.text("#trouble")
        assert {label for _, label in decisions(Run(copy)).values()} == {"dog"}
        chromium.get("about:blank")
    chromium.get_log("browser")  # there are no such photos


def test_photos_without_labels_are_labelled(chromium, wrong, folder):
    """In the data folder, and anywhere else. What is decided is not queued again."""
    copy = folder / "unlabelled" / "tiny"
    shutil.copytree(wrong / "tiny", copy)
    (copy / "corrections.csv").unlink(missing_ok=True)
    inside, elsewhere = wrong.parent / "photos" / "unlabeled", folder / "elsewhere"
    for number in range(3):
        make_photo(inside / f"{number}.jpg", 100 + number)
        make_photo(elsewhere / f"{number}.jpg", 200 + number)
    try:
        with studio_served(copy.parent, folder / "taught", name="tiny") as both:
            page = Page(chromium, link_of(*both), "review")
            page.one("summary").click()
            queue_of(page, folder / "none")
            page.wait(lambda: "which is none" in page.text("#trouble"))
            queue_of(page, inside)
            page.wait(lambda: "3 photos are queued" in page.text("#status"))
            assert page.text("#question") == "What does this show?"
            page.one("h1").click()
            for key in "r12":  # there is no label that could be right
                page.press(key)
            page.wait(lambda: len(decisions(Run(copy))) == 2)
            queue_of(page, elsewhere)
            page.wait(lambda: "elsewhere" in page.text("#name"))
            page.wait(lambda: page.script(SHOWN) > 0)
            page.one("h1").click()
            page.press("1")
            page.wait(lambda: len(decisions(Run(copy))) == 3)
            for place, left in ((inside, 1), (elsewhere, 2)):
                queue_of(page, place)
                page.wait(
                    lambda n=left: page.text("#done-words") == f"0 of {n} photos are decided."
                )
            made = decisions(Run(copy))
            assert sorted(made.values()) == [("class", "cat"), ("class", "cat"), ("class", "dog")]
            whole = [name for name in made if not name.startswith("unlabeled/")]
            assert [Path(name).parent for name in whole] == [elsewhere]
            chromium.get("about:blank")
    finally:
        shutil.rmtree(inside)
    chromium.get_log("browser")  # the refusal


SHOWN = "return document.querySelector('#photo').naturalWidth"


def queue_of(page: Page, folder: Path) -> None:
    page.one("#folder").send_keys(Keys.CONTROL, "a")
    page.one("#folder").send_keys(str(folder), Keys.ENTER)


def test_why_lies_over_the_photo_that_is_reviewed(chromium, process, wrong):
    """It is what Ask shows of that file, by the bundle of the run that is reviewed."""
    _, link = process()
    page = Page(chromium, link, "review")
    queue = read_review_queue(Run(wrong / "tiny"))
    (number, item) = next((n, each) for n, each in enumerate(queue) if each.split == "train")
    page.press(*([Keys.ARROW_LEFT] * len(queue)), *([Keys.ARROW_RIGHT] * number))
    page.wait(lambda: page.text("#name") == item.name and page.one("#why").is_enabled())
    page.press("w")
    page.wait(lambda: page.one("#overlay").is_displayed())
    words = words_of(wrong, wrong.parent / "photos" / item.name)
    assert page.text("#why-words").endswith(f"which learned from this photo, says: {words}.")
    assert "speaks for" in page.text("#legend")
    boxes = """return ['#photo', '#overlay'].map((each) =>
        document.querySelector(each).getBoundingClientRect().toJSON())"""
    photo, overlay = page.script(boxes)
    assert photo == overlay
    reviewed = page.script(OVERLAY)
    page.press(Keys.ARROW_RIGHT)
    page.wait(lambda: page.text("#name") == queue[number + 1].name)
    page.wait(lambda: page.one("#overlay").is_displayed())
    assert page.script(OVERLAY) != reviewed, "the next photo has its own"
    page.one("#why").click()
    page.wait(lambda: not page.one("#overlay").is_displayed())
    assert page.text("#why-words") == ""
    page.go("ask")
    page.drop("#stage", wrong.parent / "photos" / item.name)
    page.verdict_of(Path(item.name).name)
    page.one("#why").click()
    page.wait(lambda: page.one("#overlay").is_displayed())
    assert page.script(OVERLAY) == reviewed
    chromium.get("about:blank")
    assert chromium.get_log("browser") == []


def test_the_grid_shows_all_and_opens_one(chromium, process, wrong):
    _, link = process()
    page = Page(chromium, link, "review")
    count = len(read_review_queue(Run(wrong / "tiny")))
    page.press("g")
    page.wait(lambda: len(page.all("#grid li")) == count)
    name = page.all("#grid .unseen")[2].get_attribute("textContent")
    page.all("#grid button")[2].click()
    page.wait(lambda: page.text("#name") == name)
    chromium.get("about:blank")  # before the program is killed with photos under way
    assert chromium.get_log("browser") == []


# ---- other sites ---------------------------------------------------------------------------------

ATTACK = """
const target = arguments[0], done = arguments[1];
const body = '{"what":"add","name":"evil"}';
const tries = [
  fetch(`${target}/api/state`).then((r) => r.text()),
  fetch(`${target}/api/teach/change`, {method: "POST", body}).then((r) => r.text()),
  fetch(`${target}/api/teach/change`, {method: "POST", mode: "no-cors", body})
    .then((r) => { if (r.type !== "opaque") return "read"; throw new Error("opaque"); }),
  new Promise((good, bad) => {
    const image = new Image();
    [image.onload, image.onerror] = [good, bad];
    image.src = `${target}/api/sample/0`;
  }),
  new Promise((good, bad) => {
    const frame = document.createElement("iframe");
    frame.allow = "camera";
    frame.src = `${target}/ask`;
    frame.onload = () => setTimeout(() => {
      try { frame.contentDocument.title ? good() : bad(); } catch { bad(); }
    }, 500);
    document.body.append(frame);
  }),
  new Promise((good, bad) => {
    const opened = window.open(`${target}/ask`);
    setTimeout(() => { try { opened.document.title ? good() : bad(); } catch { bad(); } }, 1000);
  }),
];
Promise.allSettled(tries).then((all) => done(all.map((each) => each.status)));
"""


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_page_of_another_site_can_neither_post_nor_read(chromium, runs, folder, tmp_path, host):
    """In a browser that has opened the studio. Another port of its host gets its cookie as well."""
    (tmp_path / "index.html").write_text("<!doctype html><title>evil</title><body></body>")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    evil = http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), lambda *each: Quiet(*each, directory=str(tmp_path))
    )
    threading.Thread(target=evil.serve_forever, args=[0.05], daemon=True).start()
    try:
        with studio_served(runs, folder / "taught", name="tiny") as (address, studio):
            Page(chromium, link_of(address, studio), "ask")
            chromium.get(f"http://{host}:{evil.server_port}/")
            chromium.set_script_timeout(PATIENCE)
            assert chromium.execute_async_script(ATTACK, address) == ["rejected"] * 6
            assert [each.name for each in studio.teaching.classes] == ["class 1", "class 2"]
            first, *others = chromium.window_handles
            for handle in others:
                chromium.switch_to.window(handle)
                chromium.close()
            chromium.switch_to.window(first)
            chromium.get("about:blank")
    finally:
        evil.shutdown()
        evil.server_close()
        chromium.get_log("browser")  # the refusals


def test_the_address_opens_from_a_link_in_another_page(chromium, runs, folder):
    """Such as a terminal of Jupyter: a browser withholds strict cookies then."""
    with studio_served(runs, folder / "taught", name="tiny") as both:
        chromium.get(f"data:text/html,<a href='{link_of(*both)}'>studio</a>")
        chromium.find_element(By.TAG_NAME, "a").click()
        eventually(lambda: chromium.find_elements(By.ID, "stage"))
        assert "secret" not in chromium.current_url
        chromium.get("about:blank")
    assert chromium.get_log("browser") == []


# ---- how it looks, and to whom -------------------------------------------------------------------


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", ["ask", "teach", "review", "share"])
def test_it_can_be_read_by_everyone(studio, drawn, tab, scheme, size):
    page = studio(tab)
    page.size(*size)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    page.command("Emulation.setEmulatedMedia", features=features)
    if tab == "ask":
        page.drop("#stage", drawn / "cat" / "cat.3.jpg")
        page.verdict_of("cat.3.jpg")
        page.one("#why").click()
        page.wait(lambda: page.one("#overlay").is_displayed())
    if tab == "teach":
        page.one(".card:last-child input[type=file]").send_keys(str(drawn / "cat" / "cat.0.jpg"))
        page.wait(lambda: page.text(".card:last-child .count") == "1 photo")
    if tab == "review":
        page.wait(lambda: page.one("#why").is_enabled())
        page.one("#why").click()
        page.wait(lambda: page.one("#overlay").is_displayed())
    found = page.script(CONTRAST)
    assert len(found) > 10
    assert [text for ratio, text in found if ratio < 4.5] == []
    faults = page.script(FAULTS)
    # A thumbnail is described by its button or by the name that stands beside it.
    assert [each for each in faults if "aria-label" not in each and 'alt=""' not in each] == []
    assert page.script("return document.documentElement.scrollWidth") == size[0]
    labels = """return [...document.querySelectorAll('button, select, input')]
        .filter((e) => e.checkVisibility())
        .filter((e) => !(e.textContent.trim() || e.ariaLabel || e.labels?.length))
        .map((e) => e.outerHTML)"""
    assert page.script(labels) == []


OUTLINE = """const at = document.activeElement;
return getComputedStyle(at.closest('.button') ?? at).outlineStyle"""


@pytest.mark.parametrize("tab", ["ask", "teach", "review", "share"])
def test_tabs_and_controls_by_keyboard(studio, tab):
    page = studio(tab)
    if tab == "ask":
        page.wait(lambda: page.one("#why").is_enabled())
    page.press(Keys.TAB)
    assert page.browser.switch_to.active_element.text == "Skip to the content"
    seen = []
    for _ in range(40):
        page.press(Keys.TAB)
        element = page.browser.switch_to.active_element
        if element.tag_name == "body":
            break
        seen.append(element.get_attribute("id") or element.text)
        assert page.script(OUTLINE) != "none", seen[-1]
    assert seen[:4] == ["Ask", "Teach", "Review", "Share"]
    wanted = {
        "ask": {"choose", "camera", "why"},
        "teach": {"add", "camera", "save-name"},
        "review": {"run", "view", "next", "train-button"},
        "share": {"run", "folder", "write"},
    }
    assert wanted[tab] <= set(seen)
