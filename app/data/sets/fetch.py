"""Get photos to train on: ``python -m app fetch {small,full,drawn} DIR``.

Two public sets of photos and one of drawings are rows of one table, ``PHOTO_SETS``. Where they
come from, their terms and their oddities are described in ``data/README.md``.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.core.atomic_files import whole_folder
from app.core.cli import Parser
from app.core.console import say
from app.core.errors import FetchError
from app.core.sanitise import for_terminal
from app.data.sets.archive import unpack_archive
from app.data.sets.download import download

PER_CLASS = 120  # drawings of each kind: enough to train on in a minute
SUFFIX = ".jpg"  # what every photo of these sets is named


@dataclass(frozen=True)
class PhotoSet:
    """One set of photos on the web, as a .zip."""

    url: str
    sha256: str | None  # None when nobody has published one
    size: int  # bytes
    photos: int  # how many .jpg files it holds
    top: str  # the folder inside the archive that becomes DIR; empty when DIR gets everything
    layout: str  # what lies below DIR, for people


PHOTO_SETS = {
    "small": PhotoSet(
        url="https://storage.googleapis.com/mledu-datasets/cats_and_dogs_filtered.zip",
        # Google publishes no digest and none was found elsewhere. The length is the one the
        # server announces in several public notebooks ("Length: 68606236 (65M)").
        sha256=None,
        size=68_606_236,
        photos=3_000,  # "Found 2000 files", "Found 1000 files" in the same notebooks
        top="cats_and_dogs_filtered",
        layout="train/cats, train/dogs (1,000 each), validation/cats, validation/dogs (500 each)",
    ),
    "full": PhotoSet(
        url="https://download.microsoft.com/download/3/e/1/"
        "3e1c3f21-ecdb-4869-8368-6deba77b919f/kagglecatsanddogs_5340.zip",
        # Length and digest: tensorflow_datasets 4.9.10, url_checksums/cats_vs_dogs.txt.
        sha256="b7974bd00a84a99921f36ee4403f089853777b5ae8d151c76a86e64900334af9",
        size=824_887_076,
        photos=25_000,
        top="",
        layout="PetImages/Cat and PetImages/Dog, 12,500 files each, a few of them broken",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Get the set named on the command line; print its folder and its number of photos.

    Args:
        argv: the arguments without the program's name; ``sys.argv[1:]`` when None.

    Returns:
        The exit code, 0.

    Raises:
        FetchError: the set could not be downloaded or drawn; nothing half-done is left behind.
        UsageError: a number is out of range.
    """
    parser = _parser()
    options = parser.parse_args(argv)
    if options.name == "drawn":
        per_class = PER_CLASS if options.per_class is None else options.per_class
        photos = _draw(options.directory, per_class, options.seed or 0)
        print(f"{for_terminal(str(options.directory))}: {photos:,} drawings")
        return 0
    if options.seed is not None or options.per_class is not None:
        parser.error("--seed and --per-class belong to `drawn`; leave them out for other sets")
    photos = fetch(PHOTO_SETS[options.name], options.directory)
    print(f"{for_terminal(str(options.directory))}: {photos:,} photos")
    return 0


def fetch(photo_set: PhotoSet, directory: Path) -> int:
    """Download one set and unpack it to ``directory``, which appears when it is complete.

    The .zip lies beside ``directory`` meanwhile and is removed afterwards, unless it was there
    before. A folder that holds the set already is left as it is.

    Returns:
        The number of photos in ``directory``.

    Raises:
        FetchError: ``directory`` holds something else, the download failed, or the archive does
            not hold the expected number of photos.
    """
    if _is_complete(directory, photo_set.photos):
        say(f"{directory} is complete already; nothing was downloaded.")
        return photo_set.photos
    archive = directory.parent / photo_set.url.rpartition("/")[2]
    was_there = archive.exists()
    if not was_there:
        say(f"Downloading {photo_set.size / 1e6:,.1f} MB from {photo_set.url}")
    try:
        download(photo_set.url, archive, size=photo_set.size, sha256=photo_set.sha256)
    except FetchError as error:
        raise FetchError(
            f"{error} Or download {photo_set.url} by hand, save it as {archive} and run this again;"
            f" or do without photos: python -m app fetch drawn {directory}"
        ) from error
    try:
        _unpack(archive, photo_set, directory)
    except FetchError:
        if photo_set.sha256 is None and not was_there:
            archive.unlink()  # without a digest the download itself may be what is damaged
        raise
    if not was_there:
        archive.unlink()
    say(f"{directory} holds {photo_set.layout}.")
    return photo_set.photos


def _unpack(archive: Path, photo_set: PhotoSet, directory: Path) -> None:
    """Unpack ``archive`` so that ``directory`` appears only with the expected photos in it."""
    with whole_folder(directory) as folder:
        unpacked = unpack_archive(archive, folder / "unpacked")
        root = unpacked / photo_set.top
        found = _count_photos(root)
        if found != photo_set.photos:
            raise FetchError(
                f"Expected {photo_set.photos:,} {SUFFIX} files in {archive}"
                f"{f' below {photo_set.top}/' if photo_set.top else ''}, found {found:,}."
                " Nothing was kept; the set has changed, please report it."
            )
        for entry in list(root.iterdir()):
            entry.rename(folder / entry.name)
        shutil.rmtree(unpacked)


def _is_complete(directory: Path, photos: int) -> bool:
    """Return whether ``directory`` holds the set; raise FetchError when it holds something else."""
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return False
    found = _count_photos(directory)
    if found != photos:
        raise FetchError(
            f"Expected {photos:,} {SUFFIX} files or nothing in {directory}, found {found:,}"
            f"{'' if directory.is_dir() else ' (it is no folder)'}."
            " Nothing was changed; name another folder or move this one away."
        )
    return True


def _count_photos(directory: Path) -> int:
    return sum(file.is_file() for file in directory.rglob(f"*{SUFFIX}"))


def _draw(directory: Path, per_class: int, seed: int) -> int:
    """Draw the sample into ``directory`` unless the very same one is there; return its size."""
    # It brings NumPy and Pillow.
    from app.data.sets.synthetic_pets import draw_sample, sample_note

    note = directory / "README.txt"
    if note.is_file() and note.read_text(encoding="utf-8") == sample_note(per_class, seed):
        _is_complete(directory, 2 * per_class)  # raises when pictures are missing
        say(f"{directory} is complete already; nothing was drawn.")
        return 2 * per_class
    photos = draw_sample(directory, per_class=per_class, seed=seed)
    say("These are drawings for trying the software out, not photographs.")
    return photos


def _parser() -> argparse.ArgumentParser:
    sets = "\n".join(
        f"  {name:6} {row.photos:,} photos, {row.size / 1e6:,.0f} MB to download;\n"
        f"         {row.layout}"
        for name, row in PHOTO_SETS.items()
    )
    parser = Parser(
        description="Get a folder of cats and dogs for `python train.py --data DIR`.",
        epilog=f"""the sets:
{sets}
  drawn  {2 * PER_CLASS} drawings, made here in seconds, without a network;
         cat/ and dog/; for trying the software out, never for claims

examples:
  python -m app fetch small data/small     then: python train.py --data data/small
  python -m app fetch drawn data/drawn     then: python train.py --data data/drawn

A download that broke is resumed by the same command. DIR appears when it is complete; a DIR
that is complete already is left as it is. Terms and oddities of each set: data/README.md""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", choices=[*PHOTO_SETS, "drawn"], help="which set, see below")
    parser.add_argument("directory", metavar="DIR", type=Path, help="the folder to make")
    parser.add_argument("--seed", type=int, help="drawn only: another number, other pictures (0)")
    parser.add_argument(
        "--per-class", type=int, metavar="N", help=f"drawn only: pictures per kind ({PER_CLASS})"
    )
    return parser
