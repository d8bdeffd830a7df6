"""An archive of photos (.zip, .tar, .tar.gz, .tgz) to a folder: whole or not at all.

An archive from the web or from a user is not trusted. The name, kind and size of each member are
checked before it is written, never outside the folder; what comes out is counted while it is read.
Only files and folders are made, by this module: ``tarfile`` extracts nothing, so its filters have
nothing to do here.
"""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

from app.core.atomic_files import whole_folder
from app.core.console import progress_bar
from app.core.errors import AppError, DataError, FetchError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
KINDS = ".zip, .tar, .tar.gz or .tgz"
MAX_MEMBERS = 200_000  # eight times the full Dogs vs. Cats set; more names cost memory and inodes
MAX_BYTES = 20 * 1024**3  # unpacked; twenty times the full set, and still fits a laptop's disk
MAX_RATIO = 100  # unpacked / packed bytes: JPEGs give 1, text 10, blank bitmaps 50, a bomb 1,000
FREE_BYTES = 1024**2  # a megabyte does no harm, so tiny archives are spared the ratio
MAX_READ = 1024**2  # at once: tarfile reads a header's whole comment into memory

# What any program writes. Others are rare, and LZMA lets a file claim gigabytes of memory.
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
# Everything that zipfile, tarfile and gzip raise for bytes that are not a sound archive.
DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error,
    EOFError, NotImplementedError, RuntimeError, ValueError,
)  # fmt: skip
NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}
UNPACK_IT = "unpack it yourself and name the folder"


_Member = tuple[str, IO[bytes]]  # a file's name, with forward slashes, and its bytes


class _Refused(Exception):
    """Raised with the reason why an archive is not unpacked, which follows "it"."""


class _Budget:
    """What an archive may give, those in it included."""

    def __init__(self, packed: int) -> None:
        self.packed, self.members, self.bytes = packed, 0, 0

    def member(self, number: int = 1) -> None:
        """Count members."""
        self.members += number
        if self.members > MAX_MEMBERS:
            raise _Refused(f"holds {self.members:,} members, at most {MAX_MEMBERS:,} are allowed")

    def unpack(self, size: int) -> None:
        """Count bytes."""
        self.bytes += size
        if self.bytes > MAX_BYTES:
            raise _Refused(f"unpacks to more than {MAX_BYTES:,} bytes")
        if self.bytes > FREE_BYTES + MAX_RATIO * self.packed:
            raise _Refused(f"unpacks to more than {MAX_RATIO} times its size, as only bombs do")


def is_archive(path: Path) -> bool:
    """Return whether a file is called as the archives are that can be unpacked."""
    return path.name.lower().endswith(SUFFIXES)


@contextmanager
def unpacked(archive: Path) -> Iterator[Path]:
    """Unpack an archive into a temporary folder, yield that, and remove it at the end.

    Messages of errors that pass through name the archive in place of that folder.

    Raises:
        DataError: when the archive is damaged or hostile, or there is no room for it.
    """
    try:
        place = tempfile.TemporaryDirectory(prefix="photos-")
    except OSError as error:
        raise _no_room(archive, error.strerror or str(error)) from error
    with place as temporary:
        folder = Path(temporary) / "photos"
        try:
            try:
                unpack_archive(archive, folder)
            except FetchError as error:
                cause = error.__cause__
                if isinstance(cause, OSError) and cause.errno in NO_ROOM:
                    raise _no_room(archive, os.strerror(errno.ENOSPC)) from error
                raise DataError(str(error)) from error
            yield folder
        except AppError as error:
            error.args = (str(error).replace(str(folder), str(archive)),)
            raise


def _no_room(archive: Path, reason: str) -> DataError:
    return DataError(
        f"expected room to unpack {archive} for as long as it is read; received: {reason}; set "
        f"TMPDIR to a folder on a larger disk, or {UNPACK_IT}"
    )


def unpack_archive(archive: Path, target: Path) -> Path:
    r"""Unpack an archive into ``target``, which appears only when every file in it is sound.

    macOS's ``__MACOSX/`` members are left out: they look like photos and are not. Backslashes in
    names separate folders. Of an archive that holds archives and no photos, those in it are
    unpacked too, each into a folder of its name unless it brings that itself.

    Args:
        archive: the file; it is only read. Its first bytes decide how, not its name.
        target: a folder that does not exist yet or is empty. It is returned.

    Raises:
        FetchError: ``target`` is not empty; the file is damaged or no archive; or a member is
            unsafe: outside the folder, a link, encrypted, there twice, or far too large.

    Source:
        PKWARE's APPNOTE.TXT, sections 4.4.4 (flags), 4.4.15 (attributes), 4.4.17 (names).
    """
    if not archive.is_file():
        raise FetchError(f"Expected {KINDS}, got {archive}, which is not there or no file.")
    shown = str(archive)
    try:
        budget = _Budget(archive.stat().st_size)
        archive.open("rb").close()
        with whole_folder(target) as folder:
            for inner in _archives_without_photos(_unpack(archive, folder, budget)):
                shown = f"{inner.relative_to(folder).as_posix()} in {archive}"
                _unpack_inner(inner, budget)
    except _Refused as error:
        raise FetchError(f"{shown} is not unpacked: it {error}. Nothing was written.") from None
    except DAMAGE as error:
        raise FetchError(
            f"{shown} is damaged or not a {KINDS}: {error}. Nothing was unpacked; get it again."
        ) from error
    except OSError as error:
        raise FetchError(f"Cannot read {shown}: {error.strerror or error}.") from error
    return target


def _archives_without_photos(files: Sequence[Path]) -> list[Path]:
    from app.data.decode import SUFFIXES as PHOTOS  # brings Pillow: not for --help

    photos = any(path.suffix.lower() in PHOTOS for path in files)
    return [] if photos else sorted(filter(is_archive, files))


def _unpack_inner(archive: Path, budget: _Budget) -> None:
    """Unpack an archive beside itself, and remove it."""
    name = re.sub(r"(\.tar)?\.\w+$", "", archive.name)
    place = archive.with_name(f"{archive.name}.unpacked")
    place.mkdir()
    _unpack(archive, place, budget)
    archive.unlink()
    brought = place / name
    only = brought.is_dir() and len(list(place.iterdir())) == 1
    # Where a folder of that name lies beside it, the archive's own name is free now.
    target = archive.with_name(name)
    (brought if only else place).rename(archive if target.exists() else target)
    if only:
        place.rmdir()


def _unpack(archive: Path, folder: Path, budget: _Budget) -> list[Path]:
    """Unpack into a folder that is there; return the files."""
    with archive.open("rb") as file:
        beginning = file.read(2)
    if beginning == b"\x1f\x8b":
        members = _tar_members(gzip.GzipFile(archive), budget)
    elif beginning == b"PK" or archive.name.lower().endswith(".zip"):
        members = _zip_members(archive, folder, budget)
    else:
        members = _tar_members(archive.open("rb"), budget)
    with closing(members), progress_bar() as bar:
        unpacking = bar.track(members, description=f"Unpacking {archive.name}")
        files = [_write(name, source, folder) for name, source in unpacking]
    if not files:
        raise _Refused("holds no files")
    return files


def _zip_members(archive: Path, folder: Path, budget: _Budget) -> Generator[_Member, None, None]:
    """Yield the files of a .zip, after all of them were checked.

    ``zipfile`` gives no more bytes than a member declares, and checks its CRC.
    """
    with zipfile.ZipFile(archive) as opened:
        budget.member(len(opened.infolist()))
        files = []
        for member in opened.infolist():
            _safe_name(member.orig_filename)  # zipfile cuts .filename at a zero byte
            name = _safe_name(member.filename)
            kind = stat.S_IFMT(member.external_attr >> 16)
            if not name:
                continue
            if kind not in {0, stat.S_IFREG, stat.S_IFDIR}:
                raise _Refused(f"holds {name!r}, which is a link or a device: {UNPACK_IT}")
            if member.flag_bits & 0x1:
                raise _Refused(f"holds {name!r}, which is encrypted: {UNPACK_IT}")
            if member.compress_type not in METHODS:
                raise _Refused(
                    f"holds {name!r}, which is packed in an unusual way: pack it again as a plain "
                    ".zip"
                )
            if not name.endswith("/"):
                budget.unpack(member.file_size)
                files.append((name, member))
        if sum(member.file_size for _, member in files) > shutil.disk_usage(folder).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for name, member in files:
            with opened.open(member) as source:
                yield name, source


def _tar_members(
    file: IO[bytes] | gzip.GzipFile, budget: _Budget
) -> Generator[_Member, None, None]:
    """Yield the files of a .tar, each after its check."""
    with file:
        counted = _CountedFile(file, budget)
        with tarfile.open(fileobj=counted, mode="r:", errorlevel=2) as opened:
            for member in opened:
                budget.member()
                name = _safe_name(member.name)
                if not name or member.isdir():
                    continue
                if not member.isreg():
                    raise _Refused(f"holds {name!r}, which is a link or a device: {UNPACK_IT}")
                if member.issparse() or member.size < 0:
                    raise _Refused(
                        f"holds {name!r}, which is packed in an unusual way: {UNPACK_IT}"
                    )
                source = opened.extractfile(member)
                if source is not None:  # it is for what is no file
                    yield name, source
        if any(counted.last) or not counted.last:  # tarfile ends silently where a header is damaged
            raise tarfile.ReadError("it ends too early")
        while counted.read(MAX_READ):  # to the checksum of .gz
            pass


class _CountedFile(io.RawIOBase):
    """A file that is read forwards only, in pieces of a limited size, each of which counts.

    Attributes:
        last: the last block that was read.
    """

    def __init__(self, file: IO[bytes] | gzip.GzipFile, budget: _Budget) -> None:
        self.file, self.budget, self.place, self.last = file, budget, 0, b""

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise _Refused("has a header that is larger than any program writes")
        try:
            self.last = self.file.read(size)
        except gzip.BadGzipFile as error:  # an OSError, as if the disk were at fault
            raise tarfile.ReadError(str(error)) from error
        self.place += len(self.last)
        self.budget.unpack(len(self.last))
        return self.last

    def tell(self) -> int:
        return self.place

    def seek(self, place: int, whence: int = 0, /) -> int:
        if whence or place < self.place:  # it would unpack a .gz from its beginning again
            raise tarfile.ReadError("it leads backwards")
        while self.place < place and self.read(min(MAX_READ, place - self.place)):
            pass
        return self.place


def _safe_name(name: str) -> str:
    """Return a member's name with forward slashes; empty for one that is left out.

    Raises:
        _Refused: when it leads outside the folder.
    """
    name = name.replace("\\", "/")
    parts = name.split("/")
    if "\0" in name or name.startswith("/") or ".." in parts:
        raise _Refused(f"holds {name!r}, which points outside the folder")
    if any(re.match("[A-Za-z]:", part) for part in parts):
        raise _Refused(f"holds {name!r}, which names a drive")
    return "" if "__MACOSX" in parts else name


def _write(name: str, source: IO[bytes], folder: Path) -> Path:
    file = folder.joinpath(*name.split("/"))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        destination = file.open("xb")  # x: a name that comes twice must not win silently
    except (FileExistsError, NotADirectoryError):
        raise _Refused(f"holds {name!r} twice") from None
    with destination:
        shutil.copyfileobj(source, destination)
    return file
