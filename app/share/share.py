"""A classifier as a folder that answers in a browser: ``python -m app share RUN FOLDER``.

The folder has a page, the classifier, and ONNX Runtime for browsers. Any web server of plain files
can offer it. Photos never leave the device of whoever opens the page: it computes the answers.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import exists
from pathlib import Path

from app.core.atomic_files import open_whole, whole_folder, write_json
from app.core.cli import Parser
from app.core.console import say
from app.core.errors import UsageError
from app.core.records import write_record
from app.core.run_folder import DESCRIPTION_FILE, finished_run
from app.core.sanitise import for_json, for_terminal, shown

EPILOG = """\
examples:
  python -m app share runs/first site
  python -m http.server --directory site 8000      then open http://localhost:8000/

The folder can be put on any web server of plain files, under any path. With https (or on
localhost) the page can be installed, works without a network, and computes with several threads.

onnxruntime-web, 33 MB, is downloaded by npm. Without npm or a network, name it: --runtime FILE.
"""
PAGE = Path(__file__).parent / "page"
COMMON = ("page.css", "answers.js", "icon.svg")  # which the page of app.serving has, too
LOOK = Path(__file__).parents[1] / "serving" / "page"  # the service's page, whose look this one has
ICONS = (192, 512)  # pixels: what browsers ask of a page that can be installed
LONGEST_NAME = 30  # characters below an icon


@dataclass(frozen=True)
class LargeFile:
    """A file that the page reads and compares with its digest.

    Attributes:
        file: its path in the folder. It has the beginning of the digest in it, so that no browser
            takes the file of another version for it.
        bytes: its size.
        sha256: in hexadecimal.
    """

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class About:
    """``share.json``: all that the page knows of its classifier.

    Attributes:
        classes: names, made harmless, in the order of the probabilities.
        image_size: height and width in pixels that photos are resized to.
        thresholds: of the bundle: ``confidence`` and ``novelty``.
        quality: sentences about how good the classifier is; none for a bundle without its run.
        model: the classifier, in int8 where the bundle has that.
        runtime: ONNX Runtime's WebAssembly.
    """

    classes: list[str]
    image_size: int
    thresholds: dict[str, float]
    quality: list[str]
    model: LargeFile
    runtime: LargeFile


def main(argv: Sequence[str]) -> int:
    """Parse ``argv``, write the folder, print its path; return the exit code."""
    parser = Parser(
        description="Write a folder of plain files that answers in a browser, on the device of "
        "whoever opens it.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "run", type=Path, metavar="RUN", help="the run's folder, runs/<name>, or a bundle"
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="to be made: new or empty")
    parser.add_argument(
        "--runtime",
        type=Path,
        metavar="FILE",
        help="onnxruntime-web as `npm pack` writes it (.tgz), or a folder with its files; by "
        "default npm downloads it",
    )
    arguments = parser.parse_args(argv)
    folder = arguments.folder
    write_share(arguments.run, folder, arguments.runtime)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    say(
        f"{size / 1e6:.0f} MB; to try it: python -m http.server --directory {folder} 8000, "
        "then open http://localhost:8000/"
    )
    print(for_terminal(str(folder)))
    return 0


def write_share(source: Path, folder: Path, runtime: Path | None = None) -> None:
    """Write the folder of a classifier; it appears whole or not at all.

    Args:
        source: the folder of a finished run, or a bundle.
        folder: new or empty.
        runtime: as for ``app.share.runtime.runtime_files``.

    Raises:
        BundleError: when the run is not finished, or its bundle is damaged.
        UsageError: when ``folder`` holds something or lies among the run's photos, or ``runtime``
            is not what it should be.
        FetchError: when onnxruntime-web cannot be downloaded, or ``folder`` cannot be written.
    """
    from app.inference.bundle_format import INT8_FILE, ONNX_FILE, Bundle
    from app.share.runtime import MODULE, SCRIPT, WASM, runtime_files

    if exists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(
            f"expected a new or empty folder; received {folder}, which holds something; name "
            "another, or move it away"
        )
    place, quality = _bundle_of(source, folder)
    bundle = Bundle.read(place)
    model = bundle.check_file(place, INT8_FILE if bundle.has_int8 else ONNX_FILE)
    files = runtime_files(runtime)
    with whole_folder(folder) as temporary:
        for path in (*PAGE.iterdir(), *(LOOK / name for name in COMMON)):
            shutil.copyfile(path, temporary / path.name)
        (temporary / "runtime").mkdir()
        (temporary / "runtime" / "ort.js").write_bytes(files[SCRIPT])
        # As .js: not every server says of .mjs that it is a script, and browsers insist on that.
        (temporary / "runtime" / "ort-wasm.js").write_bytes(files[MODULE])
        about = About(
            classes=[shown(name) for name in bundle.classes],
            image_size=bundle.image_size,
            thresholds=bundle.thresholds,
            quality=quality,
            model=_put(model.read_bytes(), temporary, "model-{}.onnx"),
            runtime=_put(files[WASM], temporary, "runtime/ort-{}.wasm"),
        )
        write_record(about, temporary / "share.json")
        _write_manifest(about.classes, temporary)
        _write_version(temporary)


def _bundle_of(source: Path, folder: Path) -> tuple[Path, list[str]]:
    """Return the bundle of a run, and how good it is; ``source`` may be a bundle itself.

    Raises:
        UsageError: when ``folder`` lies among the run's photos, with which its icons would be
            trained on.
    """
    if (source / DESCRIPTION_FILE).is_file():
        return source, []
    from app.core.config import read_config
    from app.report.verdict import verdict

    run = finished_run(source.parent, source.name)
    metrics = run.read_metrics()
    photos = read_config(run.config, exact=False).data
    if folder.resolve().is_relative_to(photos.resolve()):
        raise UsageError(
            f"expected a folder outside the photos, which are only read; received {folder}, which "
            f"is in {photos}; name another"
        )
    return run.bundle, verdict(metrics)


def _put(content: bytes, folder: Path, name: str) -> LargeFile:
    """Write a file under a name with the beginning of its digest in place of ``{}``."""
    sha256 = hashlib.sha256(content).hexdigest()
    file = name.format(sha256[:8])
    (folder / file).write_bytes(content)
    return LargeFile(file, len(content), sha256)


def _write_manifest(classes: Sequence[str], folder: Path) -> None:
    """Write what makes an app of the page where it is installed, and its icons."""
    name = " or ".join(classes)
    for size in ICONS:
        _draw_icon(size, folder / f"icon-{size}.png")
    icons = [
        {
            "src": f"icon-{size}.png",
            "sizes": f"{size}x{size}",
            "type": "image/png",
            "purpose": "any maskable",
        }
        for size in ICONS
    ]
    manifest = {
        "name": f"What does this photo show? ({name})" if len(name) <= 60 else "What is on photos?",
        "short_name": name if len(name) <= LONGEST_NAME else "Photos",
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#f6f7f8",
        "theme_color": "#17617a",
        "icons": icons,
    }
    write_json(manifest, folder / "manifest.json")


def _draw_icon(size: int, path: Path) -> None:
    """Draw icon.svg as a PNG, small enough that systems may cut it to a circle."""
    from PIL import Image, ImageDraw

    scale = 4 * size / 64  # of its 32 units, in the middle half, drawn four times too large

    def at(x: float, y: float) -> tuple[float, float]:
        return (x + 16) * scale, (y + 16) * scale

    image = Image.new("RGB", (4 * size, 4 * size), "white")
    draw = ImageDraw.Draw(image)
    head = [at(*point) for point in ((4, 28), (4, 4), (12, 10), (20, 10), (28, 4), (28, 28))]
    draw.polygon(head, fill="#1f6f8b")
    for x in (11.5, 20.5):
        draw.ellipse([at(x - 2, 16), at(x + 2, 20)], fill="white")
    image.resize((size, size), Image.Resampling.BOX).save(path, optimize=True)


def _write_version(folder: Path) -> None:
    """Write version.js: what the service worker keeps, and a name that changes with any of it."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    names = [path.relative_to(folder).as_posix() for path in paths]
    files = ["./", *(name for name in names if name not in ("index.html", "sw.js"))]
    with open_whole(folder / "version.js") as file:
        file.write(f'const VERSION = "{digest.hexdigest()[:16]}";\n')
        file.write(f"const FILES = {for_json(files, indent=2)};\n")
