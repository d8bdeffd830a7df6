"""The members of an archive, one at a time and where they lie: nothing is unpacked to the disk.

A tar is read by the places of its members, so it needs no list of them in memory; a .tar.gz as
well, forwards only. A zip has its list at its end, and Python holds it in memory.
"""

from __future__ import annotations

import calendar
import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from os.path import isfile
from pathlib import Path
from typing import IO, NamedTuple

from app.core.errors import DataError, ImageError
from app.data.photo_file import MAX_BYTES
from app.data.sets.archive import DAMAGE, FREE_BYTES, MAX_MEMBERS, MAX_RATIO, MAX_READ, METHODS

NO_FILE = -1  # the place of a member that is a link, a device, or packed in an unusual way
_BILLION = 1_000_000_000


class Member(NamedTuple):
    """One file in an archive: where its bytes begin, how many they are, and its time (ns)."""

    name: str
    place: int
    size: int
    modified: int


def members(archive: Path) -> Iterator[Member]:
    """Yield the files of an archive, in the order in which they lie there.

    Raises:
        DataError: when it cannot be read or is damaged, at the place where that is found; when it
            unpacks to more than a hundred times its size; or a zip has more than 200,000 members.
    """
    try:
        if not isfile(archive):
            raise DataError(f"expected an archive; received {archive}, which is no file")
        yield from _of_zip(archive) if _is_zip(archive) else _of_tar(archive)
    except DAMAGE as error:
        raise DataError(f"expected a whole archive; received {archive} ({error})") from error
    except OSError as error:
        raise DataError(
            f"expected an archive that can be read; received {archive} ({error.strerror or error})"
        ) from error


def _is_zip(archive: Path) -> bool:
    with archive.open("rb") as file:
        beginning = file.read(2)
    return beginning == b"PK" or (
        beginning != b"\x1f\x8b" and archive.name.lower().endswith(".zip")
    )


def _of_zip(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as opened:
        every = opened.infolist()
        if len(every) > MAX_MEMBERS:
            raise DataError(
                f"expected a zip of at most {MAX_MEMBERS:,} members, which Python holds in memory; "
                f"received {archive} with {len(every):,}; unpack it and name the folder"
            )
        for info in every:
            # Of a name that comes twice the last one counts, as for ``ZipFile.open``.
            if not info.is_dir() and opened.NameToInfo[info.filename] is info:
                kind = stat.S_IFMT(info.external_attr >> 16)
                plain = (
                    kind in (0, stat.S_IFREG)
                    and not info.flag_bits & 1  # encrypted
                    and info.compress_type in METHODS
                )
                place = info.header_offset if plain else NO_FILE
                yield Member(info.filename, place, info.file_size, _time(info.date_time))


def _time(date: tuple[int, ...]) -> int:
    """Return the time of a zip's member in ns; zip knows no time zone: it is taken for UTC."""
    try:
        return calendar.timegm((*date, 0, 0, 0)) * _BILLION
    except (ValueError, OverflowError):  # the 0th month
        return 0


def _of_tar(archive: Path) -> Iterator[Member]:
    most = FREE_BYTES + MAX_RATIO * archive.stat().st_size
    with _raw(archive) as raw:
        headers = _Headers(raw)
        with tarfile.open(fileobj=headers, mode="r:", errorlevel=2) as opened:
            for info in opened:
                opened.members = []  # type: ignore[attr-defined]  # tarfile would keep all
                if opened.offset > most:
                    raise DataError(
                        f"expected an archive; received {archive}, which unpacks to more than "
                        f"{MAX_RATIO} times its size, as only bombs do"
                    )
                if not info.isdir():
                    plain = info.isreg() and not info.issparse()
                    place = info.offset_data if plain else NO_FILE
                    yield Member(info.name, place, info.size, int(info.mtime) * _BILLION)
        if any(headers.last) or not headers.last:  # tarfile ends silently at a damaged header
            raise tarfile.ReadError("it ends too early")


def _raw(archive: Path) -> IO[bytes]:
    """Open a tar, or what is packed in a .tar.gz."""
    file = archive.open("rb")
    if file.read(2) == b"\x1f\x8b":
        file.close()
        return gzip.GzipFile(archive)  # type: ignore[return-value]
    file.seek(0)
    return file


class _Headers(io.RawIOBase):
    """What ``tarfile`` reads headers from: it remembers the last block, and reads no large ones."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.last = file, b""

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise tarfile.ReadError("a header is larger than any program writes")
        self.last = self.file.read(size)
        return self.last

    def tell(self) -> int:
        return self.file.tell()

    def seek(self, place: int, whence: int = 0, /) -> int:
        return self.file.seek(place, whence)


class ArchiveReader:
    """Reads members of archives; the one that was read last stays open. Not for several threads.

    Members of a .tar.gz are to be read in their order: going back begins at its beginning.
    """

    def __init__(self) -> None:
        self._path = ""
        self._open: zipfile.ZipFile | IO[bytes] | None = None

    def read(self, path: str, member: str, place: int, size: int) -> bytes:
        """Return the bytes of a member, as ``members`` described it.

        Raises:
            ImageError: when it is no file, too large for a photo, damaged or not there.
        """
        if place == NO_FILE:
            raise ImageError(
                "a link or a device in an archive, or packed in an unusual way", "not_read"
            )
        if size > MAX_BYTES:
            raise ImageError(f"{size:,} bytes, larger than any photo that is read", "too_costly")
        try:
            archive = self._archive(path)
            if isinstance(archive, zipfile.ZipFile):
                data = archive.read(member)
            else:
                archive.seek(place)
                data = archive.read(size)
        except KeyError:
            raise ImageError("no longer in the archive", "unreadable") from None
        except DAMAGE as error:
            raise ImageError(f"damaged in the archive: {error}") from error
        except OSError as error:
            reason = error.strerror or str(error)
            raise ImageError(f"cannot be read: {reason}", "unreadable") from error
        if len(data) != size:
            raise ImageError("the archive ends within it")
        return data

    def close(self) -> None:
        """Close the archive that is open."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _archive(self, path: str) -> zipfile.ZipFile | IO[bytes]:
        if self._open is None or path != self._path:
            self.close()
            archive = Path(path)
            self._open = zipfile.ZipFile(archive) if _is_zip(archive) else _raw(archive)
            self._path = path
        return self._open
