"""A folder of everything that is no plain photo, left alone with the tool: audit and prediction."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from photos import class_folders, picture
from PIL import Image

from app.core.errors import ImageError
from app.data.audit import audit
from app.data.decode import SUFFIXES, decode
from app.data.folder_layout import find_files
from tests.data.test_audit import snapshot
from tests.fuzz.bundles import description, small_model
from tests.fuzz.seeds import encoded, seeds

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no pipes, sockets or such names")


def flipped(data: bytes, every: int) -> bytes:
    """Return data with a bit turned in every so many bytes, its beginning left whole."""
    result = bytearray(data)
    for place in range(40, len(result), every):
        result[place] ^= 4
    return bytes(result)


def contents() -> dict[str, bytes]:
    """Return strange files by name; those that begin with ``sound`` must be read."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("dog.jpg", encoded(picture(), "JPEG"))
    found = {f"sound {name}.jpg": data for name, data in seeds().items()}
    for name, data in seeds().items():
        found |= {
            f"{name} {tenth}0 %.jpg": data[: len(data) * tenth // 10] for tenth in range(1, 10)
        }
        found[f"flipped {name}.jpg"] = flipped(data, 50)
    exif = Image.Exif()
    for orientation in range(10):
        exif[0x0112] = orientation
        found[f"sound exif {orientation}.png"] = encoded(picture(), "JPEG", exif=exif)
    for width, height in ((1, 1), (3000, 7), (7, 3000)):
        found[f"sound {width}x{height}.gif"] = encoded(picture(size=(width, height)), "PNG")
    deep = Image.fromarray(np.full((9, 9), 40_000, np.uint16))
    return found | {
        "sound deep.jpg": encoded(deep, "PNG"),
        "bomb.jpg": encoded(Image.new("1", (9000, 9000)), "PNG"),
        "empty.jpg": b"",
        "zeros.jpg": bytes(20_000),
        "text.jpg": b"Dear dog,\n",
        "page.jpg": b"<html>404</html>",
        "archive.jpg": archive.getvalue(),
        "=cmd.jpg": b"text",
        "\x1b[2J.jpg": b"text",
    }


@pytest.fixture(scope="module")
def strange(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of ten photos, and everything strange among the dogs."""
    root = class_folders(tmp_path_factory.mktemp("strange"), {"cat": 10, "dog": 10})
    dogs = root / "dog"
    for name, data in contents().items():
        (dogs / name).write_bytes(data)
    (dogs / "dangling.jpg").symlink_to("nowhere")
    (dogs / "loop.jpg").symlink_to("loop.jpg")
    (dogs / "folder.jpg").mkdir()
    os.mkfifo(dogs / "pipe.jpg")
    here = Path.cwd()
    os.chdir(dogs)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
    os.chdir(here)
    return root


def names_of_files(root: Path) -> set[str]:
    return {path.name for path in (root / "dog").iterdir() if not path.is_dir()}


def test_the_audit_uses_what_is_sound_and_says_why_not(
    strange: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(strange)
    rows = [row for row in audit(find_files(strange)) if row.label == "dog"]
    assert capfd.readouterr() == ("", "")
    assert snapshot(strange) == before
    assert {Path(row.name).name for row in rows} == names_of_files(strange)
    for row in rows:
        assert row.verdict == "used" or row.reason
        if Path(row.name).name.startswith("sound"):
            assert row.verdict == "used" or "copy" in row.reason, row


@pytest.mark.parametrize("name", seeds())
def test_what_is_cut_short_is_decoded_right_or_refused(name: str) -> None:
    """An animation whose first frame is whole is decoded right; half a picture never is."""
    data = seeds()[name]
    whole = decode(data)[0]
    for tenths in range(1, 10):
        try:
            pixels = decode(data[: len(data) * tenths // 10])[0]
        except ImageError:
            continue
        assert pixels.shape == whole.shape
        assert (pixels == whole).all()


@pytest.mark.parametrize("form", ["--json", "--csv", None])
def test_prediction_answers_for_each_and_stays_silent(
    strange: Path, tmp_path: Path, form: str | None
) -> None:
    (tmp_path / "model.onnx").write_bytes(small_model())
    (tmp_path / "bundle.json").write_bytes(description(small_model()))
    before = snapshot(strange)
    arguments = ["--bundle", str(tmp_path), str(strange / "dog"), *([form] if form else [])]
    arguments += ["--engine", "onnxruntime"]  # else the first of these says what it measured
    done = subprocess.run(
        [sys.executable, "predict.py", *arguments], cwd=ROOT, capture_output=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert snapshot(strange) == before
    lines = done.stdout.decode().splitlines()
    assert len(lines) == len(names_of_files(strange)) + (form == "--csv")
    assert b"\x1b" not in done.stdout or form == "--csv"
    if form == "--json":
        answers = {Path(answer["path"]).name: answer for answer in map(json.loads, lines)}
        assert set(answers) == names_of_files(strange)
        for name, answer in answers.items():
            assert (answer["label"] is None) != (answer["error"] is None)
            assert not name.startswith("sound") or answer["label"], answer
        for name, reason in {
            "bomb.jpg": "81,000,000 pixels",
            "pipe.jpg": "not a regular file",
            "socket.jpg": "not a regular file",
            "dangling.jpg": "No such file",
            "archive.jpg": "zip archive",
        }.items():
            assert reason in answers[name]["error"]


def test_every_format_is_among_them() -> None:
    assert {kind for kind in SUFFIXES.values() if kind != "AVIF"} <= {
        name.split()[0].upper().replace("HEIC", "HEIF") for name in seeds()
    }
