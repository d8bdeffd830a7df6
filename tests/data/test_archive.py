"""Archives as people make them, and as people make them who mean harm."""

from __future__ import annotations

import gzip
import io
import shutil
import stat
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO

import pytest

from app.core.atomic_files import whole_folder
from app.core.errors import DataError, FetchError
from app.data.sets import archive as module
from app.data.sets.archive import unpack_archive, unpacked

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
        unpack_archive(photos_zip, photos_zip.parent / "out")
    assert "\n" not in str(caught.value)
    assert sorted(photos_zip.parent.rglob("*")) == before


def test_photos_are_unpacked_without_what_macos_adds(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/": b"", "cat/0.jpg": PHOTO, "__MACOSX/cat/._0.jpg": b"x", "a.txt": b"a"})
    out = unpack_archive(photos_zip, photos_zip.parent / "new" / "out")
    assert tree(out) == ["a.txt", "cat/0.jpg"]
    assert (out / "cat/0.jpg").read_bytes() == PHOTO
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    # The umask's rights, as for any folder, not the private ones of a temporary folder.
    assert stat.S_IMODE(out.stat().st_mode) == stat.S_IMODE(out.parent.stat().st_mode)


def test_an_empty_folder_may_be_the_target_and_a_full_one_may_not(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO})
    out = photos_zip.parent / "out"
    out.mkdir()
    unpack_archive(photos_zip, out)
    with pytest.raises(FetchError, match="holds something already"):
        unpack_archive(photos_zip, out)
    assert tree(out) == ["cat/0.jpg"]


@pytest.mark.parametrize(
    "name",
    ["../evil.jpg", "cat/../../evil.jpg", "/evil.jpg", "C:/evil.jpg", "cat/c:evil.jpg", "..", "//"],
)
def test_members_outside_the_folder_are_refused(photos_zip: Path, name: str) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO, name: b"evil"})
    assert_refused(photos_zip, "outside the folder|names a drive")


@pytest.mark.parametrize("character", [b"\\", b"\0"])
def test_backslashes_and_zero_bytes_lead_nowhere(photos_zip: Path, character: bytes) -> None:
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


def test_no_more_bytes_come_out_than_were_declared(
    photos_zip: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So a bomb whose header lies is no bomb: what is declared has been checked."""
    pack(photos_zip, {"cat/0.jpg": bytes(5_000_000)})
    patch(photos_zip, (5_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little"))
    written: list[int] = []
    copy = shutil.copyfileobj

    def counting(source: IO[bytes], destination: IO[bytes]) -> None:
        try:
            copy(source, destination)
        finally:
            written.append(destination.tell())

    monkeypatch.setattr(shutil, "copyfileobj", counting)
    assert_refused(photos_zip, "CRC")
    assert len(written) == 1
    assert written[0] <= 1000


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


# ---- What zipfile would not write, and what file systems make of names ----


def central(archive: bytes, number: int = 0) -> int:
    """Return where the central directory's entry of a member begins."""
    place = archive.index(b"PK\x01\x02")
    for _ in range(number):
        place = archive.index(b"PK\x01\x02", place + 4)
    return place


@pytest.mark.parametrize(
    "names",
    [("cat/0.jpg", "Cat/0.JPG"), ("cat/é.jpg", "cat/e\u0301.jpg"), ("CAT", "cat/0.jpg")],
)
def test_names_that_some_systems_take_for_one_never_win_silently(
    photos_zip: Path, names: tuple[str, str]
) -> None:
    pack(photos_zip, {name: name.encode() for name in names})
    out = photos_zip.parent / "out"
    try:
        unpack_archive(photos_zip, out)
    except FetchError as error:  # macOS and Windows
        assert "twice" in str(error)
        assert not out.exists()
    else:
        assert {name: (out / name).read_bytes() for name in names} == {
            name: name.encode() for name in names
        }


def test_members_that_share_their_bytes_are_refused(photos_zip: Path) -> None:
    """Fifield's bomb of 2019: every entry of the directory points at the same compressed bytes."""
    pack(photos_zip, {f"cat/{number}.jpg": PHOTO for number in range(5)})
    content = bytearray(photos_zip.read_bytes())
    for number in range(1, 5):  # all begin where the first one begins
        place = central(bytes(content), number)
        content[place + 42 : place + 46] = bytes(4)
    photos_zip.write_bytes(content)
    assert_refused(photos_zip, "damaged|Overlapped|overlap")


def zipped(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return file.getvalue()


def tarred(*members: tuple[str | tarfile.TarInfo, bytes], end: bool = True) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as opened:
        for member, content in members:
            info = tarfile.TarInfo(member) if isinstance(member, str) else member
            info.size = info.size or len(content)
            opened.addfile(info, io.BytesIO(content))
        place = opened.offset
    return file.getvalue() if end else file.getvalue()[:place]


def test_an_archive_beside_photos_is_a_file_like_any_other(photos_zip: Path) -> None:
    inner = zipped({"cat/0.jpg": PHOTO})
    pack(photos_zip, {"cat/0.jpg": PHOTO, "cat/inner.zip": inner})
    out = unpack_archive(photos_zip, photos_zip.parent / "out")
    assert (out / "cat" / "inner.zip").read_bytes() == inner


def test_archives_without_photos_beside_them_are_unpacked(photos_zip: Path) -> None:
    """As Kaggle packs a competition; one level deep, each into a folder of its name."""
    inner = {
        "train.zip": zipped({"train/cat.0.jpg": PHOTO, "train/dog.0.jpg": PHOTO}),
        "sets/test1.tgz": gzip.compress(tarred(("1.jpg", PHOTO), ("2.zip", zipped({"a": b"a"})))),
        "sampleSubmission.csv": b"id,label",
        "more.zip": zipped({"0.jpg": PHOTO}),
        "more/notes.txt": b"",
    }
    pack(photos_zip, inner)
    assert tree(unpack_archive(photos_zip, photos_zip.parent / "out")) == [
        "more.zip/0.jpg", "more/notes.txt", "sampleSubmission.csv",
        "sets/test1/1.jpg", "sets/test1/2.zip", "train/cat.0.jpg", "train/dog.0.jpg",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("inner", "match"),
    [
        (zipped({"../evil.jpg": b"x"}), r"^train\.zip in .*photos\.zip .*outside the folder"),
        (b"PK no", r"^train\.zip in .*photos\.zip is damaged"),
        (zipped({f"{number}": b"" for number in range(9)}), "11 members, at most 10"),
        (gzip.compress(tarred(("a", bytes(3_000_000)))), "100 times its size"),
    ],
)
def test_an_archive_in_an_archive_is_trusted_no_more(
    photos_zip: Path, monkeypatch: pytest.MonkeyPatch, inner: bytes, match: str
) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 10)
    pack(photos_zip, {"train.zip": inner, "readme.txt": b""})
    assert_refused(photos_zip, match)


def test_backslashes_separate_folders(photos_zip: Path) -> None:
    pack(photos_zip, {"petsXcatX0.jpg": PHOTO, "petsXdogX": b""})
    patch(photos_zip, b"petsXcatX0", b"pets\\cat\\0")
    patch(photos_zip, b"petsXdogX", b"pets\\dog\\")
    assert tree(unpack_archive(photos_zip, photos_zip.parent / "out")) == ["pets/cat/0.jpg"]


# ---- .tar, .tar.gz ----


def info(name: str = "cat/x.jpg", **values: object) -> tarfile.TarInfo:
    result = tarfile.TarInfo(name)
    for key, value in values.items():
        setattr(result, key, value)
    return result


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.tgz", "A.TGZ", "wrong.zip"])
def test_a_tar_is_unpacked(tmp_path: Path, name: str) -> None:
    long = "cat/" + "x" * 150 + "é.jpg"  # a header of its own
    members = (info("./cat", type=tarfile.DIRTYPE), b""), ("./cat/0.jpg", PHOTO), (long, b"")
    macos = ("__MACOSX/cat/._0.jpg", b"x")
    content = tarred(*members, ("dog\\0.jpg", bytes(512)), macos)
    (tmp_path / name).write_bytes(content if name == "a.tar" else gzip.compress(content))
    out = unpack_archive(tmp_path / name, tmp_path / "out")
    assert tree(out) == ["cat/0.jpg", long, "dog/0.jpg"]
    assert (out / "cat/0.jpg").read_bytes() == PHOTO
    assert stat.S_IMODE((out / "cat/0.jpg").stat().st_mode) & 0o111 == 0


SPARSE = info(pax_headers={"GNU.sparse.major": "1", "GNU.sparse.minor": "0"})
TARS = {
    "outside": (tarred(("../evil.jpg", b"x")), "outside the folder"),
    "absolute": (tarred(("/evil.jpg", b"x")), "outside the folder"),
    "backslashes": (tarred(("cat\\..\\..\\evil.jpg", b"x")), "outside the folder"),
    "drive": (tarred(("C:\\evil.jpg", b"x")), "names a drive"),
    "symbolic link": (tarred((info(type=tarfile.SYMTYPE, linkname="/"), b"")), "link or a device"),
    "hard link": (tarred((info(type=tarfile.LNKTYPE, linkname="/x"), b"")), "link or a device"),
    "device": (tarred((info(type=tarfile.CHRTYPE), b"")), "link or a device"),
    "pipe": (tarred((info(type=tarfile.FIFOTYPE), b"")), "link or a device"),
    "twice": (tarred(("a.jpg", b"x"), ("a.jpg", b"y")), "'a.jpg' twice"),
    "through a file": (tarred(("a", b"x"), ("a/b", b"y")), "twice"),
    "members": (tarred(*((f"{n}", b"") for n in range(11))), "11 members, at most 10"),
    "bomb": (gzip.compress(tarred(("a.jpg", bytes(3_000_000)))), "100 times its size"),
    "large header": (tarred((info(pax_headers={"comment": "x" * 2**21}), b"")), "header"),
    "sparse": (tarred((SPARSE, b"1\n0\n9\n" + bytes(506))), "unusual way|damaged"),
    "cut in a file": (tarred(("a.jpg", PHOTO))[:2000], "damaged"),
    "cut behind a file": (tarred(("a.jpg", PHOTO), end=False), "ends too early"),
    "damaged header": (tarred(("a", b"a"), ("b", b"b")).replace(b"b\0", b"c\0", 1), "too early"),
    "cut .gz": (gzip.compress(tarred(("a.jpg", PHOTO)))[:-9], "damaged"),
    "checksum of .gz": (gzip.compress(tarred(("a.jpg", PHOTO)))[:-8] + bytes(8), "damaged"),
    "no tar in .gz": (gzip.compress(b"text"), "damaged"),
    "no files": (tarred((info("cat", type=tarfile.DIRTYPE), b"")), "holds no files"),
    "empty": (b"", "damaged"),
}


@pytest.mark.parametrize(("content", "match"), TARS.values(), ids=TARS)
def test_a_tar_is_trusted_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, match: str
) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 10)
    (tmp_path / "photos.tar").write_bytes(content)
    assert_refused(tmp_path / "photos.tar", match)


# ---- --data ----


def test_messages_name_what_was_given_and_no_temporary_folder(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO})
    with pytest.raises(DataError) as caught, unpacked(photos_zip) as folder:
        raise DataError(f"expected photos; received {folder / 'cat'}")
    assert str(caught.value) == f"expected photos; received {photos_zip / 'cat'}"
    pack(photos_zip, {"cat/" + "x" * 300: PHOTO})
    with pytest.raises(DataError) as caught, unpacked(photos_zip):
        pass
    assert tempfile.gettempdir() not in str(caught.value).replace(str(photos_zip), "")


def test_too_little_room_names_tmpdir(photos_zip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO})
    usage = type(shutil.disk_usage("/"))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(5000, 0, 5000))
    with pytest.raises(DataError, match=r"room to unpack .*photos\.zip .*No space .*set TMPDIR"):
        unpacked(photos_zip).__enter__()
    monkeypatch.setattr(tempfile, "tempdir", str(photos_zip / "none"))
    with pytest.raises(DataError, match=r"room to unpack .*photos\.zip .*set TMPDIR"):
        unpacked(photos_zip).__enter__()


@pytest.mark.parametrize(
    ("field", "size"), [(20, 1), (24, 1), (24, 2**32 - 2)], ids=["packed", "less", "more"]
)
def test_sizes_that_lie_are_refused(photos_zip: Path, field: int, size: int) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO})
    content = bytearray(photos_zip.read_bytes())
    place = central(bytes(content)) + field
    content[place : place + 4] = size.to_bytes(4, "little")
    photos_zip.write_bytes(content)
    assert_refused(photos_zip, "damaged|CRC|times its size")


@pytest.mark.parametrize("size", [2**64 - 1, 2**63, 10**13])
def test_zip64_sizes_that_lie_are_refused(photos_zip: Path, size: int) -> None:
    member = zipfile.ZipInfo("cat/1.jpg")
    extra = b"\x01\x00\x10\x00" + (10**13).to_bytes(8, "little") * 2
    member.extra = extra
    pack_one(photos_zip, member)
    content = bytearray(photos_zip.read_bytes())
    place = central(bytes(content), 1)
    content[place + 20 : place + 28] = b"\xff" * 8  # both sizes: look into the extra field
    at = content.index(extra, place) + 4
    content[at : at + 8] = size.to_bytes(8, "little")
    photos_zip.write_bytes(content)
    assert_refused(photos_zip, "unpacks to more than")


@pytest.mark.slow
def test_a_hundred_thousand_empty_members_are_unpacked_in_a_minute(photos_zip: Path) -> None:
    pack(photos_zip, {f"cat/{number}": b"" for number in range(100_000)})
    start = time.process_time()
    out = unpack_archive(photos_zip, photos_zip.parent / "out")
    assert time.process_time() - start < 60
    assert sum(1 for _ in (out / "cat").iterdir()) == 100_000


def test_names_that_are_no_utf_8_are_unpacked_as_zip_means_them(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/cafX.jpg": PHOTO})
    patch(photos_zip, b"cafX", b"caf\x82")  # é in code page 437, the standard's default
    assert tree(unpack_archive(photos_zip, photos_zip.parent / "out")) == ["cat/café.jpg"]


def test_names_that_claim_to_be_utf_8_and_are_not_are_refused(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/é.jpg": PHOTO})
    patch(photos_zip, "é".encode(), b"\xff\xff")
    assert_refused(photos_zip, "damaged")


@pytest.mark.parametrize("name", ["cat/" + "x" * 300 + ".jpg", "/".join(["cat"] * 3000)])
def test_names_too_long_for_the_disk_are_one_line(photos_zip: Path, name: str) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO, name: PHOTO})
    assert_refused(photos_zip, "(?i)cannot (read|write)")


def test_controls_in_a_name_do_not_reach_the_message(photos_zip: Path) -> None:
    pack(photos_zip, {"cat/0.jpg": PHOTO, "../\x1b[2J\u202e.jpg": PHOTO})
    with pytest.raises(FetchError) as caught:
        unpack_archive(photos_zip, photos_zip.parent / "out")
    assert str(caught.value).isprintable()
