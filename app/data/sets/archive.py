"""A .zip of photos to a folder: whole or not at all, and never outside that folder.

An archive from the web or from a user is not trusted. Names, kinds and sizes are checked before
anything is written; ``zipfile`` gives no more bytes than a member declares, and checks its CRC.
"""

from __future__ import annotations

import re
import shutil
import stat
import zipfile
import zlib
from pathlib import Path

from app.core.atomic_files import whole_folder
from app.core.console import progress_bar
from app.core.errors import FetchError

MAX_MEMBERS = 200_000  # eight times the full Dogs vs. Cats set; more names cost memory and inodes
MAX_BYTES = 20 * 1024**3  # unpacked; twenty times the full set, and still fits a laptop's disk
MAX_RATIO = 100  # unpacked / packed bytes: JPEGs give 1, text 10, blank bitmaps 50, a bomb 1,000
FREE_BYTES = 1024**2  # a megabyte does no harm, so tiny archives are spared the ratio

# What any program writes. Others are rare, and LZMA lets a file claim gigabytes of memory.
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
# Everything that zipfile raises for bytes that are not a sound archive.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def unpack_zip(archive: Path, target: Path) -> Path:
    """Unpack a .zip into ``target``, which appears only when every file in it is sound.

    macOS's ``__MACOSX/`` members are left out: they look like photos and are not.

    Args:
        archive: the .zip file; it is only read.
        target: a folder that does not exist yet or is empty. It is returned.

    Raises:
        FetchError: ``target`` is not empty; the file is damaged or no .zip; or a member is
            unsafe: outside the folder, a link, encrypted, there twice, or far too large.

    Source:
        PKWARE's APPNOTE.TXT, sections 4.4.4 (flags), 4.4.15 (attributes), 4.4.17 (names).
    """
    if not archive.is_file():
        raise FetchError(f"Expected a .zip file, got {archive}, which is not there or no file.")
    try:
        with zipfile.ZipFile(archive) as opened:
            members = opened.infolist()
            wanted = [m for m in members if not m.filename.startswith("__MACOSX/")]
            files = [member for member in wanted if not member.is_dir()]
            if reason := _why_not(wanted, len(members), archive.stat().st_size):
                raise _refused(archive, reason)
            with whole_folder(target) as folder, progress_bar() as bar:
                for member in bar.track(files, description=f"Unpacking {archive.name}"):
                    _write(archive, opened, member, folder)
    except DAMAGE as error:
        raise FetchError(
            f"{archive} is damaged or not a .zip: {error}. Nothing was unpacked; get it again."
        ) from error
    except OSError as error:
        raise FetchError(f"Cannot read {archive}: {error.strerror or error}.") from error
    return target


def _why_not(members: list[zipfile.ZipInfo], number: int, packed: int) -> str:
    """Return why an archive with ``number`` members and ``packed`` bytes is refused; else empty."""
    if number > MAX_MEMBERS:
        return f"holds {number:,} members, at most {MAX_MEMBERS:,} are allowed"
    for member in members:
        if fault := _fault(member):
            return f"holds {member.orig_filename!r}, {fault}"
    if all(member.is_dir() for member in members):
        return "holds no files"
    unpacked = sum(member.file_size for member in members)
    if unpacked > MAX_BYTES:
        return f"unpacks to more than {MAX_BYTES:,} bytes"
    if unpacked > FREE_BYTES + MAX_RATIO * packed:
        return f"unpacks to more than {MAX_RATIO} times its size, as only bombs do"
    return ""


def _fault(member: zipfile.ZipInfo) -> str:
    """Return why one member must not be unpacked; empty when it may."""
    name = member.orig_filename  # zipfile cuts .filename at a zero byte
    parts = name.split("/")
    kind = stat.S_IFMT(member.external_attr >> 16)
    if "\\" in name or "\0" in name or name.startswith("/") or ".." in parts:
        return "which points outside the folder"
    if any(re.match("[A-Za-z]:", part) for part in parts):
        return "which names a drive"
    if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "which is a link or a device, not a file"
    if member.flag_bits & 0x1:
        return "which is encrypted: unpack it yourself and name the folder"
    if member.compress_type not in METHODS:
        return "which is packed in an unusual way: pack it again as a plain .zip"
    return ""


def _write(archive: Path, opened: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    file = folder.joinpath(*member.filename.split("/"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        destination = file.open("xb")  # x: a name that comes twice must not win silently
    except (FileExistsError, NotADirectoryError):
        raise _refused(archive, f"holds {member.filename!r} twice") from None
    with destination, opened.open(member) as source:
        shutil.copyfileobj(source, destination)


def _refused(archive: Path, reason: str) -> FetchError:
    return FetchError(f"{archive} is not unpacked: it {reason}. Nothing was written.")
