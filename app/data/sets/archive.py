"""A .zip of photos to a folder: whole or not at all, and never outside that folder.

An archive from the web or from a user is not trusted: names, kinds, sizes and checksums are
looked at before and while it is unpacked.
"""

from __future__ import annotations

import re
import stat
import zipfile
import zlib
from pathlib import Path
from typing import NoReturn

from app.core.atomic_files import whole_folder
from app.core.console import progress_bar
from app.core.errors import FetchError

MAX_MEMBERS = 200_000  # eight times the full Dogs vs. Cats set; more names cost memory and inodes
MAX_BYTES = 20 * 1024**3  # unpacked; twenty times the full set, and still fits a laptop's disk
MAX_RATIO = 100  # unpacked / packed bytes: JPEGs give 1, text 10, blank bitmaps 50, a bomb 1,000
FREE_BYTES = 1024**2  # a megabyte does no harm, so tiny archives are spared the ratio
CHUNK = 1 << 18  # bytes read at a time

# What any program writes. Others are rare, and LZMA lets a file claim gigabytes of memory.
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
# Everything that zipfile raises for bytes that are not a sound archive.
DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError)


def unpack_zip(archive: Path, target: Path) -> Path:
    """Unpack a .zip into ``target``, which appears only when every file in it is sound.

    Use it for downloaded sets and for ``--data photos.zip``. macOS's ``__MACOSX/`` members are
    left out: they look like photos and are not.

    Args:
        archive: the .zip file; it is only read.
        target: a folder that does not exist yet or is empty.

    Returns:
        ``target``.

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
            members = _checked_members(archive, opened)
            with whole_folder(target) as folder:
                _write_all(archive, opened, members, folder)
    except DAMAGE as error:
        raise FetchError(
            f"{archive} is damaged or not a .zip: {error}. Nothing was unpacked; get it again."
        ) from error
    except OSError as error:
        raise FetchError(f"Cannot read {archive}: {error.strerror or error}.") from error
    return target


def _checked_members(archive: Path, opened: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """List the files to unpack; raise FetchError when the listing itself is unacceptable."""
    everything = opened.infolist()
    if len(everything) > MAX_MEMBERS:
        _refuse(archive, f"holds {len(everything):,} members, at most {MAX_MEMBERS:,} are allowed")
    members = [member for member in everything if not member.filename.startswith("__MACOSX/")]
    for member in members:
        fault = _fault(member)
        if fault:
            _refuse(archive, f"holds {member.orig_filename!r}, {fault}")
    files = [member for member in members if not member.is_dir()]
    if not files:
        _refuse(archive, "holds no files")
    _check_amount(archive, sum(member.file_size for member in files))
    return files


def _fault(member: zipfile.ZipInfo) -> str:
    """Say why one member must not be unpacked; empty when it may."""
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


def _check_amount(archive: Path, unpacked: int) -> None:
    """Raise FetchError when ``unpacked`` bytes are more than this archive may give."""
    if unpacked > MAX_BYTES:
        _refuse(archive, f"unpacks to more than {MAX_BYTES:,} bytes")
    if unpacked > FREE_BYTES + MAX_RATIO * archive.stat().st_size:
        _refuse(archive, f"unpacks to more than {MAX_RATIO} times its size, as only bombs do")


def _write_all(
    archive: Path, opened: zipfile.ZipFile, members: list[zipfile.ZipInfo], folder: Path
) -> None:
    """Write every member below ``folder``, counting the bytes that really come out."""
    unpacked = 0
    with progress_bar() as bar:
        for member in bar.track(members, description=f"Unpacking {archive.name}"):
            file = folder.joinpath(*member.filename.split("/"))
            try:
                file.parent.mkdir(parents=True, exist_ok=True)
                destination = file.open("xb")  # x: a name that comes twice must not win silently
            except (FileExistsError, NotADirectoryError):
                _refuse(archive, f"holds {member.filename!r} twice")
            # zipfile checks the CRC when the last byte of the member is read.
            with destination, opened.open(member) as source:
                while chunk := source.read(CHUNK):
                    unpacked += len(chunk)
                    _check_amount(archive, unpacked)
                    destination.write(chunk)


def _refuse(archive: Path, reason: str) -> NoReturn:
    """Raise the one line for an archive that is not unpacked."""
    raise FetchError(f"{archive} is not unpacked: it {reason}. Nothing was written.")
