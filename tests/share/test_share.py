"""``python -m app share``: what lies in the folder, and what is refused (page: test_share_page)."""

import hashlib
import io
import json
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest
from nasty import NAMES
from PIL import Image
from served import CLASSES, tiny_bundle

from app.core.cli import run
from app.inference.bundle_format import INT8_FILE, ONNX_FILE, Bundle
from app.share import runtime, share
from app.share.runtime import MODULE, SCRIPT, WASM

CONTENT = {name: name.encode() * 10 for name in (SCRIPT, MODULE, WASM)}


@pytest.fixture(autouse=True)
def small_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """Expect small files: the real ones are downloaded by the tests in Chromium only."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in CONTENT.items()}
    monkeypatch.setattr(runtime, "FILES", digests)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return tiny_bundle(tmp_path_factory.mktemp("bundle") / "bundle")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    return packed(tmp_path / runtime.ARCHIVE, CONTENT)


def packed(path: Path, content: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in {"README.md": b"", **content}.items():
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def shared(bundle: Path, folder: Path, package: Path) -> dict:
    assert run(share.main, [str(bundle), str(folder), "--runtime", str(package)]) == 0
    return json.loads((folder / "share.json").read_text())


def files_of(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


# ---- the folder ----------------------------------------------------------------------------------


def test_the_folder_has_all_that_the_page_needs(bundle, package, tmp_path, capsys):
    folder = tmp_path / "site"
    about = shared(bundle, folder, package)
    description = Bundle.read(bundle)
    assert about["classes"] == list(description.classes)
    assert about["thresholds"] == description.thresholds
    assert about["image_size"] == description.image_size
    for part, content in (("model", (bundle / ONNX_FILE).read_bytes()), ("runtime", CONTENT[WASM])):
        listed = about[part]
        assert (folder / listed["file"]).read_bytes() == content
        assert listed["bytes"] == len(content)
        assert listed["sha256"] == hashlib.sha256(content).hexdigest()
    assert (folder / "runtime" / "ort.js").read_bytes() == CONTENT[SCRIPT]
    assert (folder / "runtime" / "ort-wasm.js").read_bytes() == CONTENT[MODULE]
    assert "Microsoft" in (folder / "LICENCES.txt").read_text()
    out, err = capsys.readouterr()
    assert out == f"{folder}\n"
    assert "python -m http.server" in err


def test_the_service_worker_keeps_every_file(bundle, package, tmp_path):
    folder = tmp_path / "site"
    shared(bundle, folder, package)
    text = (folder / "version.js").read_text()
    kept = json.loads(re.search(r"const FILES = (\[.*?\]);", text, re.DOTALL)[1])
    assert set(kept) == files_of(folder) - {"index.html", "sw.js", "version.js"} | {"./"}


def test_what_the_files_name_is_there(bundle, package, tmp_path):
    """Links of the page and imports of its scripts: a wrong name would show in a browser only."""
    folder = tmp_path / "site"
    shared(bundle, folder, package)
    named = set()
    for path in [*folder.glob("*.html"), *folder.glob("*.js"), folder / "manifest.json"]:
        text = path.read_text(encoding="utf-8")
        named |= set(re.findall(r'(?:href|src|from|"src":) ?=? ?"(?:\./)?([\w./-]+)"', text))
    assert len(named) >= 10
    assert named <= files_of(folder)


def test_the_icons_have_their_sizes(bundle, package, tmp_path):
    shared(bundle, tmp_path / "site", package)
    manifest = json.loads((tmp_path / "site" / "manifest.json").read_text())
    for icon in manifest["icons"]:
        with Image.open(tmp_path / "site" / icon["src"]) as image:
            assert icon["sizes"] == f"{image.width}x{image.height}"
            assert len(image.getcolors(1_000_000)) > 2, "something is drawn"
    assert manifest["short_name"] == " or ".join(CLASSES)


def changed(bundle: Path, folder: Path, **values: object) -> Path:
    """Return a copy of a bundle with other values in bundle.json."""
    shutil.copytree(bundle, folder)
    before = json.loads((folder / "bundle.json").read_text())
    (folder / "bundle.json").write_text(json.dumps(before | values))
    return folder


def test_int8_is_shared_where_there_is_one(bundle, package, tmp_path):
    digests = Bundle.read(bundle).sha256 | {INT8_FILE: hashlib.sha256(b"int8").hexdigest()}
    changed(bundle, tmp_path / "bundle", sha256=digests)
    (tmp_path / "bundle" / INT8_FILE).write_bytes(b"int8")
    about = shared(tmp_path / "bundle", tmp_path / "site", package)
    assert (tmp_path / "site" / about["model"]["file"]).read_bytes() == b"int8"


def test_another_classifier_is_another_version(bundle, package, tmp_path):
    shared(bundle, tmp_path / "one", package)
    shared(bundle, tmp_path / "same", package)
    other = changed(bundle, tmp_path / "other", classes=["ant", "bee"])
    shared(other, tmp_path / "two", package)
    one, same, two = (
        (tmp_path / name / "version.js").read_text() for name in ("one", "same", "two")
    )
    assert one == same
    assert one.splitlines()[0] != two.splitlines()[0]


def test_nasty_names_stay_data(bundle, package, tmp_path):
    names = [name for key, name in NAMES.items() if "UTF-8" not in key and "half" not in key]
    folder = tmp_path / "site"
    about = shared(changed(bundle, tmp_path / "bundle", classes=names), folder, package)
    assert len(about["classes"]) == len(names)
    for path in (*folder.glob("*.html"), *folder.glob("*.js"), *folder.glob("*.css")):
        if path.name != "version.js":
            known = [*share.PAGE.iterdir(), *share.LOOK.iterdir()]
            assert path.read_bytes() in [each.read_bytes() for each in known], path.name
    assert (folder / "share.json").read_bytes().isascii()


# ---- what is refused -----------------------------------------------------------------------------


def refused(arguments: list[object], capsys) -> str:
    assert run(share.main, [str(each) for each in arguments]) in (1, 2)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert out == ""
    assert "error: " in lines[-1]
    assert "Traceback" not in err
    return lines[-1]


def test_a_folder_that_holds_something_stays_as_it_is(bundle, package, tmp_path, capsys):
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "mine.txt").write_text("mine")
    line = refused([bundle, tmp_path / "site", "--runtime", package], capsys)
    assert "holds something" in line
    assert files_of(tmp_path / "site") == {"mine.txt"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: content | {WASM: b"another"}, "SHA-256"),
        (lambda content: {SCRIPT: content[SCRIPT]}, "received none"),
    ],
)
def test_another_runtime_is_refused(bundle, tmp_path, capsys, change, words):
    package = packed(tmp_path / "x.tgz", change(CONTENT))
    assert words in refused([bundle, tmp_path / "site", "--runtime", package], capsys)
    assert not (tmp_path / "site").exists()


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_package_is_refused(bundle, tmp_path, capsys, content):
    package = tmp_path / "x.tgz"
    if content is not None:
        package.write_bytes(content)
    line = refused([bundle, tmp_path / "site", "--runtime", package], capsys)
    assert "npm pack onnxruntime-web@" in line


def test_a_damaged_bundle_and_no_run_are_refused(bundle, package, tmp_path, capsys):
    bundle = changed(bundle, tmp_path / "bundle")
    (bundle / ONNX_FILE).write_bytes(b"cut")
    assert "SHA-256" in refused([bundle, tmp_path / "site", "--runtime", package], capsys)
    assert "bundle" in refused([tmp_path / "none", tmp_path / "site"], capsys)


def test_a_folder_of_npm_is_taken(bundle, tmp_path):
    (tmp_path / "node_modules" / "dist").mkdir(parents=True)
    for name, content in CONTENT.items():
        (tmp_path / "node_modules" / "dist" / name).write_bytes(content)
    shared(bundle, tmp_path / "site", tmp_path / "node_modules")


# ---- npm -----------------------------------------------------------------------------------------


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """Return what puts a program called npm, and no other, before all that is on the path."""
    monkeypatch.delenv(runtime.REGISTRY, raising=False)
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def put(script: str) -> None:
        (tmp_path / "bin" / "npm").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / "npm").chmod(0o755)

    return put


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
def test_npm_downloads_it(bundle, package, tmp_path, npm):
    npm(f'echo "$@" > {tmp_path}/called; while [ "$1" != --pack-destination ]; do shift; done; '
        f'/bin/cp {package} "$2"')  # fmt: skip
    assert run(share.main, [str(bundle), str(tmp_path / "site")]) == 0
    called = (tmp_path / "called").read_text()
    assert called.startswith(f"pack onnxruntime-web@{runtime.VERSION} ")
    assert "--ignore-scripts" in called


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
def test_what_npm_says_is_told_in_one_line(bundle, tmp_path, capsys, npm):
    npm("echo 'npm error code E404'; echo 'npm error 404 Not Found'; exit 1")
    line = refused([bundle, tmp_path / "site"], capsys)
    assert "npm error code E404 npm error 404 Not Found" in line
    assert "--runtime" in line


def test_without_npm_it_says_what_to_do(bundle, tmp_path, capsys, npm):
    line = refused([bundle, tmp_path / "site"], capsys)
    assert "expected npm" in line
    assert "--runtime" in line
    assert not (tmp_path / "site").exists()


def test_without_npm_a_registry_that_is_set_is_asked(bundle, package, tmp_path, npm, monkeypatch):
    asked = []

    def download(url: str, target: Path, *, size: int, sha256: str) -> Path:
        asked.append((url, size, sha256))
        target.write_bytes(package.read_bytes())
        return target

    monkeypatch.setattr(runtime, "download", download)
    monkeypatch.setenv(runtime.REGISTRY, "https://registry.example/npm/")
    assert run(share.main, [str(bundle), str(tmp_path / "site")]) == 0
    url = f"https://registry.example/npm/onnxruntime-web/-/{runtime.ARCHIVE}"
    assert asked == [(url, runtime.ARCHIVE_SIZE, runtime.ARCHIVE_SHA256)]
