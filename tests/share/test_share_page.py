"""The shared page in a real Chromium: the answers of ``predict.py``, on the device, offline."""

import base64
import functools
import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from nasty import NAMES
from photos import encoded, picture, shared_folder
from PIL import Image
from profiles import rgb_profile
from served import tiny_bundle
from waiting import eventually

import train
from app.core.cli import run
from app.core.errors import FetchError
from app.core.sanitise import shown
from app.data.decode import load_image, resize
from app.data.sets.synthetic_pets import draw_sample
from app.inference.heatmap import contrastive_cam
from app.inference.predictor import Classifier
from app.inference.wording import in_words, percentage
from app.share.runtime import FILES, runtime_files
from app.share.share import write_share
from tests.serving.test_page import CONTRAST, FAULTS

webdriver = pytest.importorskip("selenium.webdriver")
from selenium.webdriver.common.by import By  # noqa: E402  it may be missing

pytestmark = pytest.mark.browser
PATIENCE = 60  # seconds
CLOSE = 1e-2  # of a probability
PHONE, DESKTOP = (390, 800), (1100, 900)
ISOLATED = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}


@pytest.fixture(scope="module")
def runtime(tmp_path_factory) -> Path:
    """Return ONNX Runtime for browsers, which npm keeps after its first download."""
    folder = tmp_path_factory.mktemp("runtime")
    try:
        files = runtime_files(None)
    except FetchError as error:
        pytest.skip(str(error))
    for name in FILES:
        (folder / name).write_bytes(files[name])
    return folder


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture(scope="module")
def site(bundle, runtime, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    write_share(bundle, folder, runtime)
    return folder


@pytest.fixture(scope="module")
def drawn(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("data") / "drawn"
    draw_sample(folder, per_class=25)
    return sorted(folder.glob("*/*.jpg"))


@contextmanager
def offered(site: Path, headers: dict[str, str] | None = None, lost: str = "") -> Iterator[str]:
    """Serve a folder as any static host does; yield its address.

    Args:
        site: the folder.
        headers: sent with everything.
        lost: the beginning of the name of files that are not found.
    """

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

        def translate_path(self, path: str) -> str:
            if lost and path.lstrip("/").startswith(lost):
                return "/nowhere"
            return super().translate_path(path)

        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Handler, directory=str(site))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def chromium() -> Iterator["webdriver.Chrome"]:
    """Start a browser that has seen nothing yet."""
    program, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not program or not driver:
        pytest.skip("no chromium and chromedriver (on Debian: chromium, chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(flag)
    for flag in ("device", "ui"):
        options.add_argument(f"--use-fake-{flag}-for-media-stream")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


class Page:
    """The page, as a person has it before them."""

    def __init__(self, browser: "webdriver.Chrome", address: str) -> None:
        self.browser, self.address = browser, address
        self.open()

    def open(self, ends: str = "Ready.") -> None:
        self.browser.get(self.address)
        self.wait(lambda: self.status().startswith(ends))

    def status(self) -> str:
        # At one go: the page may be loaded once more in between.
        return self.script("return document.getElementById('status')?.textContent ?? ''")

    def script(self, text: str, *values: object):
        return self.browser.execute_script(text, *values)

    def module(self, text: str, *values: object):
        """Run a script that awaits, with ``values`` as ``a``; return its result."""
        start = "const done = arguments[arguments.length - 1], a = arguments;"
        code = f"{start} (async () => {{ {text} }})().then(done, (e) => done(String(e)))"
        return self.browser.execute_async_script(code, *values)

    def one(self, selector: str):
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def all(self, selector: str) -> list:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def texts(self, selector: str) -> list[str]:
        return [each.text for each in self.all(selector)]

    def wait(self, holds, seconds: float = PATIENCE) -> None:
        eventually(holds, self.status, seconds)

    def size(self, width: int, height: int) -> None:
        values = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", values)

    def ask(self, *paths: Path) -> list[dict]:
        """Choose files; return what the page says of each, its words among it."""
        before = len(self.all("#list .photo"))
        self.one("#choose").send_keys("\n".join(map(str, paths)))
        self.wait(
            lambda: len(self.all("#list .photo:not([aria-busy])")) == before + len(paths),
            PATIENCE + 4 * len(paths),
        )
        script = """return [...document.querySelectorAll("#list .photo")].map((e) => [
            e.dataset.answer ?? "{}", e.querySelector(".verdict").textContent,
            e.querySelector(".trouble").textContent])"""
        rows = self.script(script)[: len(paths)]
        return [json.loads(row) | {"words": words, "trouble": why} for row, words, why in rows]


def errors(browser: "webdriver.Chrome") -> list[str]:
    """Return what stands on the console: errors, or what the policy forbids."""
    return [line["message"] for line in browser.get_log("browser") if line["level"] != "INFO"]


def assert_same(found: list[dict], classifier: Classifier, paths: list[Path]) -> None:
    """Compare the page's answers with those of ``predict.py``: the contract of this page."""
    expected = list(classifier.answers(paths))
    assert [each["words"] for each in found] == [answer.words for answer in expected]
    for each, answer in zip(found, expected, strict=True):
        assert each["probabilities"] == pytest.approx([*answer.probabilities.values()], abs=CLOSE)
        assert each["novelty"] == pytest.approx(answer.novelty, abs=CLOSE)


# ---- the same answers ----------------------------------------------------------------------------


def test_fifty_photos_have_the_answers_of_predict_py(chromium, site, bundle, drawn):
    with offered(site) as address:
        page = Page(chromium, address)
        found = page.ask(*drawn)
    assert len(found) == 50
    assert_same(found, Classifier(bundle), drawn)
    assert len({each["words"] for each in found}) > 2, "not one answer for all"
    assert errors(chromium) == []


def kinds_of_files(folder: Path) -> list[Path]:
    """Write one smooth picture in many kinds: turned by EXIF, see-through, grey, other colours."""
    whole = picture(5, (300, 200))
    for number in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = number
        whole.save(folder / f"turned{number}.jpg", exif=exif, quality=95)
    clear = whole.copy()
    clear.putalpha(Image.linear_gradient("L").resize(whole.size))
    clear.save(folder / "clear.png")
    whole.convert("L").save(folder / "grey.png")
    whole.convert("P", palette=Image.Palette.ADAPTIVE).save(folder / "palette.png")
    whole.save(folder / "p3.jpg", icc_profile=rgb_profile(), quality=95)
    whole.save(folder / "progressive.jpg", progressive=True, quality=95)
    whole.save(folder / "photo.webp", quality=95)
    (folder / "photo.avif").write_bytes(encoded(whole, "AVIF", quality=95))
    whole.resize((40, 700)).save(folder / "tall.png")
    whole.resize((1500, 1400)).save(folder / "strips.png")  # two of them
    whole.resize((8, 5)).save(folder / "tiny.bmp")
    whole.save(folder / "animated.gif", save_all=True, append_images=[picture(9, (300, 200))])
    return sorted(folder.iterdir())


def test_kinds_of_files_have_the_answers_of_predict_py(chromium, site, bundle, tmp_path):
    paths = kinds_of_files(tmp_path)
    with offered(site) as address:
        found = Page(chromium, address).ask(*paths)
    assert_same(found, Classifier(bundle), paths)
    turned = {round(each["probabilities"][0], 2) for each in found[-8:]}
    assert len(turned) > 1, "turning shows"


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(48, 32, 64), (375, 500, 320), (321, 323, 320), (3, 200, 64), (200, 3, 64), (90, 91, 32)],
)
def test_resize_is_pillows_to_the_last_bit(chromium, site, width, height, size):
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rgba = np.dstack([pixels, np.full((height, width), 255, np.uint8)])
    script = """const { Resizer } = await import("./resize.js");
        const data = Uint8Array.from(atob(a[0]), (c) => c.charCodeAt(0));
        const resizer = new Resizer(a[1], a[2], a[3]);
        for (let top = 0; top < a[2]; top += 7) {
          resizer.add(data.subarray(4 * a[1] * top, 4 * a[1] * Math.min(top + 7, a[2])), top);
        }
        return [...resizer.result()];"""
    with offered(site) as address:
        page = Page(chromium, address)
        found = page.module(script, base64.b64encode(rgba).decode(), width, height, size)
    assert np.array_equal(np.array(found).reshape(size, size, 3), resize(pixels, size))


def test_words_are_those_of_predict_py(chromium, site):
    generator = np.random.default_rng(0)
    many = ["cat", "dog", "hare", "fox", "owl", "elk", "bee"]
    cases = []
    for classes in (many[:2], many[:3], many):
        rows = generator.dirichlet(np.full(len(classes), 0.3), 40)
        rows = [*rows, *np.eye(len(classes)), np.full(len(classes), 1 / len(classes))]
        for row in rows:
            label = classes[int(np.argmax(row))]
            cases += [[answer, classes, list(row)] for answer in (label, "unsure", "neither")]
    shares = [*np.linspace(0, 1, 501), 0.9994999, 0.9995001, 0.99, 0.66, 0.0004999, 0.0005001]
    script = """const { inWords } = await import("./words.js");
        const { percentage } = await import("./answers.js");
        return [a[0].map((each) => inWords(...each)), a[1].map(percentage)];"""
    with offered(site) as address:
        words, shown_shares = Page(chromium, address).module(script, cases, shares)
    assert words == [in_words(*case) for case in cases]
    assert shown_shares == [percentage(share) for share in shares]


def test_limits_are_those_of_the_decision(chromium, site):
    """At a limit itself the class is named, as ``app.evaluation.decision`` does."""
    script = """const { decide } = await import("./words.js");
        const limits = { confidence: 0.6, novelty: 0.5 };
        return [[0.6, 0.5], [0.599, 0.5], [0.6, 0.501], [0.5, 0.9]].map(([share, novelty]) =>
          decide(["cat", "dog"], [share, 1 - share], novelty, limits));"""
    with offered(site) as address:
        found = Page(chromium, address).module(script)
    assert found == ["cat", "unsure", "neither", "neither"]


@pytest.mark.weights
def test_fifty_real_photos_have_the_answers_of_predict_py(chromium, runtime, tmp_path):
    """With the int8 model where this processor exports one, as those who share do."""
    shared = shared_folder()
    photos = tmp_path / "photos"
    for split, count in {"train": 40, "validation": 20, "test": 25}.items():
        for label in ("cat", "dog"):
            (photos / split / label).mkdir(parents=True)
            source = shared / "data" / "cats_vs_dogs_small" / split / label
            for path in sorted(source.iterdir())[:count]:
                shutil.copy(path, photos / split / label)
    weights = shared / "weights" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
    argv = ["--data", str(photos), "--runs", str(tmp_path / "runs"), "--run", "real"]
    argv += ["--weights", str(weights), "--image-size", "128", "--views", "1", "--stages", "head"]
    assert run(train.main, [*argv, "--no-report"]) == 0
    write_share(tmp_path / "runs" / "real", tmp_path / "site", runtime)
    paths = sorted(photos.glob("test/*/*"))
    assert len(paths) == 50
    with offered(tmp_path / "site") as address:
        page = Page(chromium, address)
        found = page.ask(*paths)
        assert page.texts("#sentences li") != []
    assert_same(found, Classifier(tmp_path / "runs" / "real" / "bundle"), paths)


# ---- with and without a network, threads, a service worker ---------------------------------------


def threads(page: Page) -> tuple[bool, str]:
    return page.script("return self.crossOriginIsolated"), page.one("#speed").text


def test_it_answers_offline_with_the_server_stopped(chromium, site, bundle, drawn):
    with offered(site) as address:
        page = Page(chromium, address)
        page.wait(lambda: "without a network" in page.one("#kept").text)
    chromium.execute_cdp_cmd("Network.enable", {})
    lost = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
    chromium.execute_cdp_cmd("Network.emulateNetworkConditions", lost)
    page.open()
    assert threads(page)[0]
    assert_same(page.ask(*drawn[:3]), Classifier(bundle), drawn[:3])


def test_a_plain_host_gets_threads_from_the_service_worker(chromium, site):
    with offered(site) as address:
        isolated, speed = threads(Page(chromium, address))
    assert isolated
    assert speed.endswith(" threads")


def test_a_host_with_the_headers_needs_no_second_load(chromium, site):
    with offered(site, ISOLATED) as address:
        page = Page(chromium, address)
        assert threads(page)[0]
        assert page.script("return sessionStorage.length") == 0


def test_without_a_service_worker_it_answers_with_one_thread(chromium, site, bundle, drawn):
    with offered(site, lost="sw.js") as address:
        page = Page(chromium, address)
        assert threads(page) == (False, "one thread")
        assert_same(page.ask(*drawn[:3]), Classifier(bundle), drawn[:3])
        assert page.one("#kept").text == ""


def test_a_new_version_takes_over(chromium, site, runtime, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    with offered(folder) as address:
        page = Page(chromium, address)
        assert "hare" in page.one("#knows").text
        shutil.rmtree(folder)
        write_share(tiny_bundle(tmp_path / "other", ["ant", "bee"]), folder, runtime)
        page.open()  # it still answers from what it keeps, and looks for a newer version meanwhile
        page.wait(lambda: len(page.module("return caches.keys()")) == 1)
        # Chromium looks for a newer version a second after a page was loaded and left alone.
        page.wait(lambda: time.sleep(2) or page.open() or "ant" in page.one("#knows").text)
        assert len(page.module("return caches.keys()")) == 1


def test_it_can_be_installed(chromium, site):
    with offered(site) as address:
        page = Page(chromium, address)
        page.wait(lambda: "without a network" in page.one("#kept").text)
        found = chromium.execute_cdp_cmd("Page.getInstallabilityErrors", {})
        assert [
            e["errorId"] for e in found["installabilityErrors"] if e["errorId"] != "in-incognito"
        ] == []
        assert chromium.execute_cdp_cmd("Page.getAppManifest", {})["errors"] == []


def test_a_damaged_file_is_told_and_not_kept(chromium, site, tmp_path):
    folder = tmp_path / "site"
    shutil.copytree(site, folder)
    (model,) = folder.glob("model-*.onnx")
    whole = model.read_bytes()
    model.write_bytes(whole[:-1] + b"?")
    with offered(folder) as address:
        chromium.get(address)
        page = Page.__new__(Page)
        page.browser, page.address = chromium, address
        page.open("It cannot answer: model-")
        assert "load this page again" in page.status()
        model.write_bytes(whole)
        page.open()


# ---- what a person does --------------------------------------------------------------------------


def test_files_that_are_no_photos_get_no_answer(chromium, site, drawn, tmp_path):
    (tmp_path / "text.jpg").write_text("text")
    with offered(site) as address:
        text, photo = Page(chromium, address).ask(tmp_path / "text.jpg", drawn[0])
    assert text["words"] == "no answer"
    assert "cannot read" in text["trouble"]
    assert photo["trouble"] == ""


def test_the_heat_map_comes_and_goes(chromium, site, bundle, drawn):
    """What speaks for the likeliest class; the numbers behind it are those of ``predict.py``."""
    classifier = Classifier(bundle)
    with offered(site) as address:
        page = Page(chromium, address)
        (found,) = page.ask(drawn[0])
        maps = classifier.activation_maps(load_image(drawn[0], classifier.bundle.image_size)[None])
        cam = contrastive_cam(maps[0], int(np.argmax(found["probabilities"])))
        assert found["evidence"] == pytest.approx(
            list(cam.ravel()), abs=0.1 * float(np.abs(cam).max())
        )
        photo, button = page.one("#list img").get_attribute("src"), page.one(".heat")
        button.click()
        page.wait(lambda: "is in colour" in page.one("#list img").get_attribute("alt"))
        shown_map = page.one("#list img").get_attribute("src")
        assert shown_map != photo
        script = """const blob = await (await import("./heat.js")).heatPicture(
            new Blob([Uint8Array.from(atob(a[0]), (c) => c.charCodeAt(0))]), [0, 0, 0, 1]);
            const bitmap = await createImageBitmap(blob);
            const context = new OffscreenCanvas(40, 20)
              .getContext("2d", { willReadFrequently: true });
            context.drawImage(bitmap, 0, 0);
            const colour = ([x, y]) => [...context.getImageData(x, y, 1, 1).data];
            return [[2, 2], [37, 17]].map(colour);"""
        red = base64.b64encode(encoded(Image.new("RGB", (40, 20), "red"), "PNG")).decode()
        dim, lit = page.module(script, red)
        assert dim[:3] == pytest.approx([0.45 * 0.299 * 255] * 3, abs=2)
        assert lit[:3] == pytest.approx([255, 0, 0], abs=2)
        button.click()
        page.wait(lambda: page.one("#list img").get_attribute("src") == photo)
    assert errors(chromium) == []


def test_the_camera_answers_until_it_is_stopped(chromium, site):
    with offered(site) as address:
        page = Page(chromium, address)
        page.one("#camera").click()
        page.wait(lambda: page.texts("#live .verdict") not in ([], ["…"], [""]))
        assert len(page.all("#live .bars li")) == 3
        page.one("#camera").click()
        assert not page.one("#live").is_displayed()
        playing = "return document.getElementById('video').srcObject.active"
        assert page.script(playing) is False
    assert errors(chromium) == []


def test_nothing_leaves_the_page(chromium, site, drawn):
    """What the policy forbids, scripts on the page cannot do either."""
    with offered(site) as address, offered(site) as elsewhere:
        page = Page(chromium, address)
        assert "Failed to fetch" in page.module(f"return (await fetch('{elsewhere}')).status")
        script = "document.body.insertAdjacentHTML('beforeend', '<b>x</b>')"
        assert "TrustedHTML" in page.module(script)
        worker = "new Worker('resize.js', { type: 'module' })"
        assert "TrustedScriptURL" in page.module(worker)


def test_nasty_class_names_show_as_text(chromium, runtime, tmp_path, drawn):
    names = [NAMES["HTML"], NAMES["end of an attribute"], NAMES["reading direction"]]
    write_share(tiny_bundle(tmp_path / "bundle", names), tmp_path / "site", runtime)
    odd = tmp_path / "<img src=x onerror=alert(1)>.jpg"
    shutil.copy(drawn[0], odd)
    with offered(tmp_path / "site") as address:
        page = Page(chromium, address)
        page.ask(odd)
        assert page.texts(".class") == [shown(name) for name in names]
        assert page.texts(".photo .name") == [odd.name]
        assert page.all("main img[src=x]") == []
    assert errors(chromium) == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_can_be_read_by_everyone(chromium, site, drawn, tmp_path, scheme, size):
    long_name = tmp_path / ("a_very_long_name_without_any_place_to_break_it" * 2 + ".jpg")
    shutil.copy(drawn[0], long_name)
    (tmp_path / "text.jpg").write_text("text")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    with offered(site) as address:
        page = Page(chromium, address)
        page.size(*size)
        chromium.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        page.ask(drawn[-1], long_name, tmp_path / "text.jpg")
        page.one("#camera").click()
        page.wait(lambda: page.texts("#live .verdict") not in ([], ["…"], [""]))
        time.sleep(0.4)  # colours of buttons and bars change for 0.3 s
        found = page.script(CONTRAST)
        assert len(found) > 15
        assert [text for ratio, text in found if ratio < 4.5] == []
        assert page.script(FAULTS) == []
        assert page.script("return document.documentElement.scrollWidth") == size[0]
