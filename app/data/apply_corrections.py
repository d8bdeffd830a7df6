"""What a person has decided about photos (``app.data.corrections``) becomes labels and verdicts.

Photos of training and validation get the label that the person gave. Test photos keep theirs, since
whoever looks at mistakes finds more wrong labels among these: what they are said to show is noted
beside it, and test is scored with both.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from app.core.console import say
from app.core.errors import ImageError
from app.core.labels import NEITHER
from app.data.audit import FEW_PHOTOS, Judged
from app.data.corrections import Correction, Corrections, Decision
from app.data.folder_layout import FolderReading, LabelledFile
from app.data.manifest import REASONS, ManifestRow
from app.data.photo_file import read_bytes

LEFT_OUT = "left_out"  # the code in manifest.csv
SAID: dict[Decision, str] = {
    "class": "relabelled",
    "neither": f"{NEITHER} now",
    "leave_out": "left out",
    "right": "confirmed",
}


def with_corrected(reading: FolderReading, root: Path, corrections: Corrections) -> FolderReading:
    """Return a folder's files with those without a label to which a person gave a class.

    Files elsewhere on the disk are named by their whole path, and stay where they are. Fewer photos
    of ``neither`` than can be learned from are not added.

    Args:
        reading: of the folder.
        root: of its photos.
        corrections: by name and content.
    """
    labelled = {file.name for file in reading.files}  # of --neither elsewhere by their whole path
    found = [
        LabelledFile(root / each.name, each.name, label, None)
        for each in corrections.values()
        if each.name not in labelled
        and (reading.others.get(each.name) == "no_class" or _is_elsewhere(each.name, root))
        and (label := _label_of(each))
        and _sha256(root / each.name) == each.sha256
    ]
    strangers = sum(file.label == NEITHER for file in reading.files)
    strangers += sum(each.decision == "neither" for each in corrections.values())
    if strangers < FEW_PHOTOS and any(file.label == NEITHER for file in found):
        _say_few(strangers)
        found = [file for file in found if file.label != NEITHER]
    names = {file.name for file in found}
    others = {name: code for name, code in reading.others.items() if name not in names}
    return replace(reading, files=[*reading.files, *found], others=others)


def apply_corrections(
    judged: Judged, whole: Sequence[ManifestRow], corrections: Corrections
) -> Judged:
    """Return the files with corrected labels, those of test as they were, and say what changes.

    Fewer photos of ``neither`` than can be learned from are left out.

    Args:
        judged: every file, as ``app.data.audit.judge`` returns them.
        whole: the same files, divided as if nothing were corrected.
        corrections: by name and content; those of other files do not count, which is said. What
            they leave out keeps its split, in which it is not used.
    """
    if not corrections:
        return judged
    splits = {row.name: row.split for row in whole}
    test = {name for name, split in splits.items() if split == "test"}
    decided = {
        row.name: replace(each, decision="right", label="") if confirms(each, row) else each
        for row, _ in judged
        if (each := corrections.get(_key(row)))
    }
    _say_counts(decided, test, len(corrections))
    changed = [
        (row if row.name in test else corrected_row(row, decided.get(row.name)), print_)
        for row, print_ in judged
    ]
    strangers = [row for row, _ in changed if row.label == NEITHER and row.verdict == "used"]
    if any(row.corrected for row in strangers) and len(strangers) < FEW_PHOTOS:
        _say_few(len(strangers))
        changed = [
            (_left_out(_as_given(row)) if row.corrected == NEITHER else row, print_)
            for row, print_ in changed
        ]
    return [
        (replace(row, split=splits[row.name]) if row.code == LEFT_OUT else row, print_)
        for row, print_ in changed
    ]


def mark_test_photos(rows: Sequence[ManifestRow], corrections: Corrections) -> list[ManifestRow]:
    """Note beside test photos what a person said of them; they stay as they are."""
    return [
        _marked(row, corrections.get(_key(row)))
        if row.split == "test" and row.verdict == "used" and not row.corrected
        else row
        for row in rows
    ]


def corrected_row(row: ManifestRow, correction: Correction | None) -> ManifestRow:
    """Return a photo of training or validation as a decision about it says."""
    if correction is None:
        return row
    if correction.decision == "leave_out":
        return _left_out(row) if row.verdict == "used" else row
    label = _label_of(correction)
    if label in ("", row.label):
        return row
    return replace(row, label=label, corrected=label, given=row.label, kind="")


def confirms(correction: Correction, row: ManifestRow) -> bool:
    """Return whether a decision says that a photo's label, which nothing corrected, is right."""
    if correction.decision == "right":
        return True
    return not row.corrected and _label_of(correction) == row.label != ""


def _marked(row: ManifestRow, correction: Correction | None) -> ManifestRow:
    if correction is None:
        return row
    if correction.decision == "leave_out":
        return replace(row, reason=REASONS[LEFT_OUT], code=LEFT_OUT)
    label = _label_of(correction)
    return row if label in ("", row.label) else replace(row, corrected=label, given=row.label)


def _label_of(correction: Correction) -> str:
    """Return the label that a decision gives, empty where it gives none."""
    return NEITHER if correction.decision == "neither" else correction.label


def _as_given(row: ManifestRow) -> ManifestRow:
    return replace(row, label=row.given, corrected="", given="")


def _is_elsewhere(name: str, root: Path) -> bool:
    """Return whether a name is the whole path of a file that lies outside of the photos' folder."""
    path = Path(name)
    return path.is_absolute() and not path.resolve().is_relative_to(root.resolve())


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except ImageError:
        return ""


def _left_out(row: ManifestRow) -> ManifestRow:
    return replace(row, verdict="skipped", reason=REASONS[LEFT_OUT], code=LEFT_OUT)


def _key(row: ManifestRow) -> tuple[str, str]:
    return row.name, row.sha256


def _say_few(strangers: int) -> None:
    say(
        f"{strangers} photos of {NEITHER} are too few to learn from, {FEW_PHOTOS} would do: the "
        "corrected ones are left out"
    )


def _say_counts(decided: dict[str, Correction], test: set[str], given: int) -> None:
    """Say how many photos are corrected, and how many decisions do not count."""
    counts = Counter(each.decision for name, each in decided.items() if name not in test)
    parts = [f"{counts[decision]} {what}" for decision, what in SAID.items() if counts[decision]]
    if parts:
        say(f"corrections of training and validation: {', '.join(parts)}")
    if marked := sum(each.decision != "skip" for name, each in decided.items() if name in test):
        say(f"{marked} test photos are marked: test is scored with the labels given and with these")
    if gone := given - len(decided):
        say(
            f"{gone} of {given} corrections do not count: their files are gone, renamed or "
            "changed, or have no label here"
        )
