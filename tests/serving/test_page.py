"""The page in a real Chromium: what a person does, sees and hears; nothing on the console."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from photos import drawn_photos, encoded, picture
from PIL import Image
from served import proxied, served
from waiting import eventually

import train
from app.core.cli import run
from app.evaluation.decision import Thresholds
from app.inference.predictor import Classifier
from app.inference.wording import in_words, percentage
from app.serving.uploads import Limits
from tests.serving.test_serve import bomb

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402  it may be missing
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = pytest.mark.browser
PATIENCE = 20  # seconds
PHONE, DESKTOP = (320, 700), (1100, 900)
MOST = 4  # photos in a request: ten make several


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> Path:
    return drawn_photos(tmp_path_factory.mktemp("data") / "drawn")


@pytest.fixture(scope="module")
def bundle(drawn, tmp_path_factory) -> Path:
    runs = tmp_path_factory.mktemp("runs")
    argv = ["--data", str(drawn), "--runs", str(runs), "--run", "tiny", "--no-report"]
    argv += ["--weights", "none", "--image-size", "64", "--views", "2", "--stages", "head"]
    argv += ["--seed", "3", "--precision", "float32"]
    assert run(train.main, argv) == 0
    return runs / "tiny" / "bundle"


@pytest.fixture(scope="module")
def known(drawn, bundle) -> dict[str, list[Path]]:
    """Return the pictures by their kind, those that a network of random filters gets right."""
    paths = sorted(drawn.glob("*/*.jpg"))
    answers = list(Classifier(bundle).answers(paths))
    right = [path for path, a in zip(paths, answers, strict=True) if a.label == path.parent.name]
    kinds = {kind: [path for path in right if path.parent.name == kind] for kind in ("cat", "dog")}
    assert min(map(len, kinds.values())) >= 5
    return kinds


@pytest.fixture(scope="module")
def address(bundle) -> Iterator[str]:
    with served(Classifier(bundle), Limits(files=MOST, body=1_000_000)) as (address, _):
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator["webdriver.Chrome"]:
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


class Page:
    """The page, as a person has it before them."""

    def __init__(self, browser: "webdriver.Chrome", address: str) -> None:
        self.browser = browser
        self.size(*DESKTOP)
        self.command("Emulation.setEmulatedMedia", media="")
        browser.get(address)
        self.wait(lambda: "tells" in self.text("#knows"))

    def command(self, name: str, **values: object) -> None:
        self.browser.execute_cdp_cmd(name, values)

    def size(self, width: int, height: int, touch: bool = False) -> None:
        values = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": touch}
        self.command("Emulation.setDeviceMetricsOverride", **values)

    def all(self, selector: str) -> list:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def wait(self, holds) -> None:
        eventually(holds, lambda: self.text("body"), PATIENCE)

    def choose(self, *paths: Path) -> None:
        self.one("#choose").send_keys("\n".join(map(str, paths)))

    def drop(self, *paths: Path) -> None:
        """Drop files as a person does: from outside, at the middle of the zone."""
        box = self.one("#zone").rect
        files = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
        where = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.command("Input.dispatchDragEvent", type=kind, data=files, **where)

    def answered(self, count: int) -> list[str]:
        """Wait for so many answers; return the verdicts."""
        self.wait(lambda: len(self.all(".photo:not([aria-busy])")) == count)
        return [element.text for element in self.all(".verdict")]

    def pictures(self) -> list[tuple[int, str]]:
        """Return width and description of each picture that has been decoded."""
        script = """return Promise.all([...document.querySelectorAll(".picture img")].map(
            async (i) => (await i.decode().catch(() => {}), [i.naturalWidth, i.alt])))"""
        return [tuple(each) for each in self.browser.execute_script(script)]


@pytest.fixture
def page(chromium, address) -> Iterator[Page]:
    yield Page(chromium, address)
    assert chromium.get_log("browser") == [], "errors, or what the policy forbids"


# ---- what a person does --------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["drop", "choose"])
def test_a_photo_has_the_right_answer(page, known, bundle, way):
    path = known["dog"][0]
    (expected,) = Classifier(bundle).answers([path])
    getattr(page, way)(path)
    assert page.answered(1) == [expected.words]
    assert page.text(".photo .name") == path.name
    assert [element.text for element in page.all(".class")] == ["cat", "dog"]
    shares = expected.probabilities.values()
    assert [element.text for element in page.all(".value")] == [percentage(p) for p in shares]
    assert page.pictures()[0][0] > 0
    assert page.text("#status") == f"{path.name}: {expected.words}"

    def share() -> float:
        fill, track = (page.one(f".bars li:last-child .{name}") for name in ("fill", "track"))
        return 100 * fill.rect["width"] / track.rect["width"]

    page.wait(
        lambda: share() == pytest.approx(100 * expected.probabilities["dog"], abs=2)
    )  # it grows


def test_broken_files_and_bombs_among_others(page, known, tmp_path):
    (tmp_path / "bomb.png").write_bytes(bomb())
    (tmp_path / "broken.jpg").write_bytes(known["cat"][0].read_bytes()[:900])
    (tmp_path / "large.bin").write_bytes(bytes(1_000_000))
    some = [known["cat"][0], *sorted(tmp_path.iterdir()), known["dog"][0]]
    page.drop(*some)
    cat, *others, dog = page.answered(5)
    assert others == ["no answer"] * 3
    assert (cat.split()[1], dog.split()[1]) == ("cat", "dog")
    reasons = [element.text for element in page.all(".trouble") if element.text]
    expected = ("pixels, more than", "damaged", "too large: 1.0 MB")
    assert all(words in reason for words, reason in zip(expected, reasons, strict=True)), reasons
    assert len(page.pictures()) == 2  # nothing that was refused is decoded by the browser


def test_ten_at_once(page, known, bundle):
    """In requests of at most four, in their order."""
    paths = [*known["cat"][:5], *known["dog"][:5]]
    page.drop(*paths)
    words = [answer.words for answer in Classifier(bundle).answers(paths)]
    assert page.answered(10) == words
    assert [element.text for element in page.all(".photo .name")] == [path.name for path in paths]
    page.one("#clear").click()
    assert page.all(".photo") == []
    assert not page.one("#answers").is_displayed()


def test_a_pasted_picture(page, known):
    page.command("Browser.grantPermissions", permissions=["clipboardReadWrite"])
    data = encoded(Image.open(known["dog"][0]), "PNG")
    script = """const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
        const blob = new Blob([bytes], {type: "image/png"});
        return navigator.clipboard.write([new ClipboardItem({"image/png": blob})]);"""
    page.browser.execute_script(script, base64.b64encode(data).decode())
    page.one("body").send_keys(Keys.CONTROL, "v")
    assert page.answered(1)[0].split()[1] == "dog"


def test_neither_and_unsure_in_words(chromium, known, bundle):
    nothing = Classifier(bundle)
    nothing.thresholds = Thresholds(confidence=0.0, novelty=0.0)  # everything is stranger
    for classifier, verdict, detail in (
        (nothing, "neither cat nor dog", "unlike the photos that were learned from"),
        (
            Classifier(bundle, min_confidence=1.0),
            "unsure: perhaps cat, or dog",
            "Nothing is likely",
        ),
    ):
        with served(classifier) as (address, _):
            page = Page(chromium, address)
            page.choose(known["cat"][0])
            assert page.answered(1) == [verdict]
            assert detail in page.text(".detail")
    assert chromium.get_log("browser") == []


@pytest.mark.parametrize("share", [1.0, 0.9996, 0.9994, 0.95, 0.66, 0.519])
def test_doubt_is_told_as_predict_py_tells_it(chromium, known, bundle, share):
    class Fixed(Classifier):
        def outputs(self, images):
            count = len(images)
            return np.full((count, 2), [1 - share, share], np.float64), np.zeros(count)

    with served(Fixed(bundle, min_confidence=0.0)) as (address, _):
        page = Page(chromium, address)
        page.choose(known["cat"][0])
        words = in_words("dog", ["cat", "dog"], [1 - share, share])
        assert page.answered(1) == [words]
        shown = [element.text for element in page.all(".value")]
        assert shown == [percentage(1 - share), percentage(share)]


def test_below_a_path_of_a_proxy(chromium, known, bundle):
    with (
        served(Classifier(bundle)) as (address, _),
        proxied(address, "/all/cats", removes=True) as offered,
    ):
        page = Page(chromium, f"{offered}/all/cats/")
        page.choose(known["dog"][0])
        assert page.answered(1)[0].split()[1] == "dog"
        page.one(".heat").click()
        page.wait(lambda: page.one(".heat").get_attribute("aria-pressed") == "true")
    assert chromium.get_log("browser") == []


def test_the_heat_map_comes_and_goes(page, known):
    path = known["dog"][0]
    page.choose(path)
    page.answered(1)
    (before,) = page.pictures()
    button = page.one(".heat")
    assert (button.text, button.get_attribute("aria-pressed")) == (
        "Show what speaks for dog",
        "false",
    )
    source = page.one(".picture img").get_attribute("src")
    button.click()
    page.wait(lambda: button.get_attribute("aria-pressed") == "true")
    (shown,) = page.pictures()
    assert shown == (before[0], f"{path.name}: what speaks for dog is in colour")
    assert page.one(".picture img").get_attribute("src") != source
    button.click()
    page.wait(lambda: page.pictures() == [before])


def test_by_keyboard_alone(page, known):
    def focus() -> str:
        return page.browser.switch_to.active_element.get_attribute("id") or ""

    def press(*keys: str) -> None:
        webdriver.ActionChains(page.browser).send_keys(*keys).perform()

    press(Keys.TAB)
    assert focus() == "choose"
    outline = "return getComputedStyle(document.activeElement.closest('label')).outlineStyle"
    assert page.browser.execute_script(outline) == "solid"
    page.browser.switch_to.active_element.send_keys(str(known["cat"][0]))
    page.answered(1)
    for _ in range(6):
        press(Keys.TAB)
        if page.browser.switch_to.active_element == page.one(".heat"):
            break
    press(Keys.ENTER)
    page.wait(lambda: page.one(".heat").get_attribute("aria-pressed") == "true")
    while focus() != "clear":
        webdriver.ActionChains(page.browser).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(
            Keys.SHIFT
        ).perform()
    press(Keys.SPACE)
    page.wait(lambda: focus() == "choose")


def test_what_a_browser_cannot_show_is_answered_all_the_same(page, tmp_path):
    (tmp_path / "photo.heic").write_bytes(encoded(picture(1, (300, 200)), "HEIF"))
    page.choose(tmp_path / "photo.heic")
    assert page.answered(1) != ["no answer"]
    page.wait(lambda: "cannot show" in page.text(".picture"))


def test_a_service_that_has_ended_is_told(chromium, bundle, known):
    with served(Classifier(bundle)) as (address, _):
        page = Page(chromium, address)
    page.choose(known["cat"][0])
    assert page.answered(1) == ["no answer"]
    assert "the service has ended" in page.text(".trouble")
    chromium.get_log("browser")  # the browser itself tells that nobody answers


# ---- how it looks, and to whom -------------------------------------------------------------------

# Of every visible text: its ratio of contrast (WCAG 2.2, 1.4.3), with where it stands.
CONTRAST = """
const numbers = (text) => text.match(/[\\d.]+/g).map(Number);
const linear = (c) => (c /= 255, c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
function behind(element) {
  for (let at = element; at; at = at.parentElement) {
    const colour = numbers(getComputedStyle(at).backgroundColor);
    if (colour[3] !== 0) return colour;
  }
  return [255, 255, 255];
}
return [...document.querySelectorAll("body *")]
  .filter((e) => e.checkVisibility())
  .filter((e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim()))
  .map((e) => {
    const [a, b] = [numbers(getComputedStyle(e).color), behind(e)].map(luminance);
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.outerHTML];
  });
"""
# Controls without a name, pictures without words, ids that come twice, headings that skip a level.
FAULTS = """
const all = (selector) => [...document.querySelectorAll(selector)];
const seen = (selector) => all(selector).filter((e) => e.checkVisibility());
const levels = seen("h1, h2, h3, h4").map((h) => +h.tagName[1]);
const ids = all("[id]").map((e) => e.id);
return [
  ...seen("button, a").filter((e) => !e.textContent.trim()).map((e) => e.outerHTML),
  ...all("input").filter((e) => !e.labels.length).map((e) => e.outerHTML),
  ...all("img").filter((e) => !e.alt).map((e) => e.outerHTML),
  ...ids.filter((id, number) => ids.indexOf(id) !== number),
  ...levels.filter((level, number) => level > (levels[number - 1] ?? 0) + 1),
  ...seen("button, .button").filter((e) => e.getBoundingClientRect().height < 44)
    .map((e) => `small: ${e.outerHTML}`),
  ...(document.documentElement.lang && document.title ? [] : ["no language or title"]),
  ...(document.querySelector("[aria-live=polite]") ? [] : ["nothing is read out"]),
];
"""


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_everyone(page, known, tmp_path, scheme, size):
    page.size(*size, touch=size == PHONE)
    features = [
        {"name": "prefers-color-scheme", "value": scheme},
        {"name": "prefers-reduced-motion", "value": "reduce"},
    ]
    page.command("Emulation.setEmulatedMedia", features=features)
    name = tmp_path / ("a_very_long_name_without_any_place_to_break_it" * 2 + ".png")
    Image.effect_noise((200, 150), 250).save(name)
    (tmp_path / "text.txt").write_text("text")
    page.choose(known["cat"][0], name, tmp_path / "text.txt")
    page.answered(3)
    ground = page.browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(246, 247, 248)") == (scheme == "light")
    found = page.browser.execute_script(CONTRAST)
    assert len(found) > 15
    assert [text for ratio, text in found if ratio < 4.5] == []
    assert page.browser.execute_script(FAULTS) == []
    width = page.browser.execute_script("return document.documentElement.scrollWidth")
    assert width == size[0], "nothing is wider than the window"
    script = "return getComputedStyle(document.querySelector('.fill')).transitionProperty"
    assert page.browser.execute_script(script) == "none"
