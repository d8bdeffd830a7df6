"""The command that gets photos, against a tiny set on a server on this machine."""

from __future__ import annotations

import hashlib
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from app.core.cli import run
from app.data.sets.fetch import PHOTO_SETS, PhotoSet, main
from tests.data.test_download import Behaviour, closed_port, serving

ROOT = Path(__file__).resolve().parents[2]
FILES = ["train/cats/cat.0.jpg", "train/dogs/dog.0.jpg", "validation/cats/cat.1.jpg"]


def tiny_zip(files: list[str] = FILES) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        for file in [*files, "vectorize.py"]:
            opened.writestr(f"top/{file}", file.encode() * 50)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def offer(
    monkeypatch: pytest.MonkeyPatch, url: str, content: bytes, sha256: str | None = None
) -> None:
    """Make `small` a tiny set at ``url``."""
    row = PhotoSet(
        url=url,
        sha256=sha256,
        size=len(content),
        photos=len(FILES),
        top="top",
        layout="three files",
    )
    monkeypatch.setitem(PHOTO_SETS, "small", row)


def names(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def test_a_set_is_downloaded_unpacked_and_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = tiny_zip()
    how = Behaviour(body=content)
    with serving(how) as url:
        offer(monkeypatch, url, content, hashlib.sha256(content).hexdigest())
        for _ in range(2):  # the second time there is nothing to do
            assert run(main, ["small", str(tmp_path / "photos")]) == 0
            out = capsys.readouterr()
            assert out.out == f"{tmp_path / 'photos'}: 3 photos\n"
    assert "complete already" in out.err
    assert len(how.seen) == 1
    assert names(tmp_path) == sorted(f"photos/{file}" for file in [*FILES, "vectorize.py"])


def test_a_zip_downloaded_by_hand_is_used_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny_zip()
    (tmp_path / "photos.zip").write_bytes(content)
    offer(monkeypatch, f"http://127.0.0.1:{closed_port()}/photos.zip", content)
    assert run(main, ["small", str(tmp_path / "photos")]) == 0
    assert (tmp_path / "photos.zip").read_bytes() == content


@pytest.mark.parametrize("fault", ["digest", "a photo missing", "damaged"])
def test_a_wrong_set_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fault: str,
) -> None:
    content = tiny_zip(FILES[:2]) if fault == "a photo missing" else tiny_zip()
    if fault == "damaged":
        content = content[:100] + b"!" + content[101:]
    with serving(Behaviour(body=content)) as url:
        offer(monkeypatch, url, content, "0" * 64 if fault == "digest" else None)
        assert run(main, ["small", str(tmp_path / "photos")]) == 1
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 2  # what is downloaded, and the one line
    assert err[1].startswith("error: ")
    assert list(tmp_path.iterdir()) == []


def test_a_verified_zip_survives_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = tiny_zip()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with serving(Behaviour(body=content)) as url:
        offer(monkeypatch, url, content, hashlib.sha256(content).hexdigest())
        monkeypatch.setattr(Path, "rename", full)
        assert run(main, ["small", str(tmp_path / "photos")]) == 1
    assert names(tmp_path) == ["photos.zip"]  # 800 MB need not be downloaded twice


def test_a_folder_with_something_else_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"the user's")
    offer(monkeypatch, f"http://127.0.0.1:{closed_port()}/photos.zip", b"zip")
    assert run(main, ["small", str(tmp_path)]) == 1
    assert "Expected 3 .jpg files or nothing" in capsys.readouterr().err
    assert names(tmp_path) == ["mine.jpg"]


def test_without_a_network_one_line_names_the_other_ways(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"http://127.0.0.1:{closed_port()}/photos.zip"
    offer(monkeypatch, url, b"zip")
    assert run(main, ["small", str(tmp_path / "photos")]) == 1
    out = capsys.readouterr()
    line = out.err.splitlines()[-1]
    assert out.out == ""
    assert "Cannot download from 127.0.0.1" in line
    assert f"download {url} by hand" in line
    assert f"python -m app fetch drawn {tmp_path / 'photos'}" in line
    assert list(tmp_path.iterdir()) == []


def test_a_user_sees_no_traceback(tmp_path: Path) -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"  # no road to the real address, wherever this runs
    done = subprocess.run(
        [sys.executable, "-m", "app", "fetch", "small", str(tmp_path / "photos")],
        cwd=ROOT,
        env={"PATH": "", "http_proxy": proxy, "https_proxy": proxy},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: Cannot download from storage.google")


def test_help_teaches_without_loading_what_is_heavy() -> None:
    code = (
        "import sys\nfrom app.data.sets.fetch import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'PIL', 'keras', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "train.py --data" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_drawn_draws_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "drawn"
    arguments = ["drawn", str(folder), "--per-class", "2", "--seed", "3"]
    assert run(main, arguments) == 0
    assert capsys.readouterr().out == f"{folder}: 4 drawings\n"
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert run(main, arguments) == 0
    assert "complete already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times
    assert run(main, [*arguments[:-1], "4"]) == 1  # other pictures are not these pictures
    (folder / "cat/cat.0.jpg").unlink()
    assert run(main, arguments) == 1
    assert "found 3" in capsys.readouterr().err


def test_options_of_drawn_are_refused_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["small", "photos", "--seed", "1"])
    assert caught.value.code == 2
    assert "belong to `drawn`" in capsys.readouterr().err


def test_the_table_is_sound() -> None:
    assert sorted(PHOTO_SETS) == ["full", "small"]
    for row in PHOTO_SETS.values():
        assert row.url.startswith("https://")
        assert row.url.endswith(".zip")
        assert row.sha256 is None or len(bytes.fromhex(row.sha256)) == 32
