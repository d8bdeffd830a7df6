"""Archives as people make them, and as people make them who mean harm."""

from __future__ import annotations

import stat
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from app import archive as module
from app.archive import unpack_zip
from app.atomic import whole_folder
from app.errors import FetchError

PHOTO = bytes(range(256)) * 20


@pytest.fixture
def photos_zip(tmp_path: Path) -> Path:
    return tmp_path / "photos.zip"


def pack(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, content in members.items():
            opened.writestr(name, content)


def pack_one(path: Path, member: zipfile.ZipInfo, content: bytes = PHOTO) -> None:
    with zipfile.ZipFile(path, "w") as opened:
        opened.writestr("cat/0.jpg", PHOTO)
        opened.writestr(member, content)


def patch(path: Path, old: bytes, new: bytes) -> None:
    """Change bytes behind zipfile's back, which would not write such an archive itself."""
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new))


def tree(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )


def assert_refused(photos_zip: Path, match: str) -> None:
    """Check that nothing appears inside or outside, and that the reason is one line."""
    before = sorted(photos_zip.parent.rglob("*"))
    with pytest.raises(FetchError, match=match) as caught:
        unpack_zip(photos_zip, photos_zip.parent / "out")
    assert "\n" not in str(caught.value)
    assert sorted(photos_zip.parent.rglob("*")) == before


def test_photos_are_unpacked_without_what_macos_adds(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/": b"", "cat/0.jpg": PHOTO, "__MACOSX/cat/._0.jpg": b"x", "a.txt": b"a"})
    out = unpack_zip(photos_zip, photos_zip.parent / "new" / "out")
    assert tree(out) == ["a.txt", "cat/0.jpg"]
    assert (out / "cat/0.jpg").read_bytes() == PHOTO
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    # The umask's rights, as for any folder, not the private ones of a temporary folder.
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(out.parent.stat().st_mode)


def test_an_empty_folder_may_be_the_target_and_a_full_one_may_not(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO})
    out = photos_zip.parent / "out"
    out.mkdir()
    unpack_zip(photos_zip, out)
    with pytest.raises(FetchError, match="holds something already"):
        unpack_zip(photos_zip, out)
    assert tree(out) == ["cat/0.jpg"]


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "cat/../../evil.jpg", "/evil.jpg", "C:/evil.jpg", "cat/c:evil.jpg", "..", "//"],
)
def test_members_outside_the_folder_are_refused(photos_zip: Path, name: str) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO, name: b"evil"})
    assert_refused(photos_zip, "outside the folder|names a drive")


@pytest.mark.parametrize("character", [b"\\", b"\0"])
def test_backslashes_and_zero_bytes_are_refused(photos_zip: Path, character: bytes) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO, "..Xevil.jpg": b"evil"})
    patch(photos_zip, b"..Xevil.jpg", b".." + character + b"evil.jpg")
    assert_refused(photos_zip, "outside the folder")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_devices_are_refused(photos_zip: Path, kind: int) -> None:
    member = zipfile.ZipInfo("cat/link.jpg")
    member.create_system = 3  # Unix
    member.external_attr = (kind | 0o777) << 16
    pack_one(photos_zip, member, b"/etc/passwd")
    assert_refused(photos_zip, "link or a device")


def test_encrypted_members_are_refused(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO})
    content = bytearray(photos_zip.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1  # the flag in the central directory
    content[6] |= 1  # and in the member's own header
    photos_zip.write_bytes(content)
    assert_refused(photos_zip, "encrypted: unpack it yourself")


def test_unusual_packing_is_refused(photos_zip: Path) -> None:
    member = zipfile.ZipInfo("cat/1.jpg")
    member.compress_type = zipfile.ZIP_LZMA
    pack_one(photos_zip, member)
    assert_refused(photos_zip, "plain .zip")


def test_a_bomb_is_refused_by_what_it_declares(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/0.jpg": bytes(5_000_000)})
    assert_refused(photos_zip, "100 times its size")


def test_a_bomb_is_refused_by_what_comes_out(
    photos_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO * 10})
    checked: list[int] = []
    real = module._check_amount

    def only_while_reading(archive: Path, unpacked: int) -> None:
        checked.append(unpacked)
        if len(checked) > 1:  # the first call is about the header, which we do not trust
            real(archive, unpacked)

    monkeypatch.setattr(module, "_check_amount", only_while_reading)
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    assert_refused(photos_zip, "more than 1,000 bytes")


def test_a_member_larger_than_its_header_says_is_refused(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO})
    size = len(PHOTO).to_bytes(4, "little")
    patch(photos_zip, size, (10).to_bytes(4, "little"))
    assert_refused(photos_zip, "CRC")


def test_too_many_members_are_refused(photos_zip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    pack(photos_zip, {f"cat/{index}.jpg": PHOTO for index in range(4)})
    assert_refused(photos_zip, "4 members, at most 3")


def test_names_that_come_twice_are_refused(photos_zip: Path) -> None:
    with (
        pytest.warns(UserWarning, match="Duplicate name"),
        zipfile.ZipFile(photos_zip, "w") as opened,
    ):
        opened.writestr("cat/0.jpg", PHOTO)
        opened.writestr("cat/0.jpg", b"other")
    assert_refused(photos_zip, "'cat/0.jpg' twice")


def test_a_name_that_is_a_file_and_a_folder_is_refused(photos_zip: Path) -> None:
    pack(photos_zip, {"cat": PHOTO, "cat/0.jpg": PHOTO})
    assert_refused(photos_zip, "twice")


def wrong_byte(content: bytes) -> bytes:
    return content[:60] + bytes([content[60] ^ 255]) + content[61:]


@pytest.mark.parametrize(
    "damage",
    [wrong_byte, lambda content: content[: len(content) // 2], lambda _: b"", lambda _: b"<html>"],
    ids=["one byte", "truncated", "empty", "a web page"],
)
@pytest.mark.parametrize("packing", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_archives_are_refused(
    photos_zip: Path, damage: Callable[[bytes], bytes], packing: int
) -> None:
    with zipfile.ZipFile(photos_zip, "w", packing) as opened:
        opened.writestr("cat/0.jpg", PHOTO)
        opened.writestr("cat/1.jpg", PHOTO)
    photos_zip.write_bytes(damage(photos_zip.read_bytes()))
    assert_refused(photos_zip, "damaged or not a .zip")


def test_an_archive_without_files_or_without_archive_is_refused(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/": b"", "__MACOSX/x.jpg": b"x"})
    assert_refused(photos_zip, "holds no files")
    photos_zip.unlink()
    assert_refused(photos_zip, "not there")


def test_an_interrupted_folder_disappears(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), whole_folder(tmp_path / "out") as folder:
        (folder / "half.jpg").write_bytes(PHOTO)
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_one_line(photos_zip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    assert_refused(photos_zip, "No space left on device")
