"""What the names of folders and files say: a split, a helper of a data set, or a class."""

from __future__ import annotations

import re
from typing import Literal

from app.core.labels import plain_name
from app.data.decode import SUFFIXES

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")

_SPLIT_WORDS: dict[str, Split] = {
    "train": "train", "training": "train", "trn": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "development": "validation", "eval": "validation", "evaluation": "validation",
    "test": "test", "testing": "test", "tst": "test", "holdout": "test",
}  # fmt: skip
# What stands beside such a word: training_set, train_images, seg_train, "Test Data", valset.
_BESIDE_SPLIT = re.compile(
    r"(data)?sets?|data|images?|imgs?|photos?|pics?|pictures?|split|out|hold"
)
# What people call folders of photos that say nothing about what the photos show.
_PHOTOS = {
    "images", "image", "imgs", "img", "photos", "photo", "pictures", "picture", "pics", "pic",
    "jpegimages", "jpg", "jpgs", "jpeg", "jpegs", "png", "pngs", "data", "dataset", "originals",
    "original", "raw", "files", "all", "thumbs", "thumbnails", "unlabeled", "unlabelled",
    "samples", "examples",
}  # fmt: skip
# What people call folders of photos that are to be predicted.
_UNLABELLED = re.compile(r"un-?label+ed|(.*[ ._-])?(to[ ._-]?)?pred(ict|iction|ictions)?")
# What belongs to photos in a folder beside it, and is drawn, not taken.
_ANNOTATIONS = {
    "annotations", "annotation", "annots", "labels", "masks", "mask", "trimaps", "segmentations",
    "segmentation", "bboxes", "boxes", "groundtruth", "gt", "xmls", "json",
}  # fmt: skip
# Folders that cameras make (100CANON, 101_PANA) and programs that copy photos (2024-05-31).
_FROM_CAMERAS = re.compile(
    r"(?i:dcim)|[1-9]\d\d[A-Z_][A-Z0-9_]{4}|(?:19|20)\d\d([-_. ]?)[01]\d\1[0-3]\d"
)
# The name of an annotation that lies among the photos: that of a photo, and this.
_ANNOTATES = re.compile(r"[ ._-]+(mask|seg|segmentation|gt|groundtruth|trimap|label)([ ._-]?\d+)?")
# What cameras, phones and programs write before a number.
_CAMERAS = {
    "img", "imgp", "imag", "image", "images", "picture", "pic", "photo", "photos", "foto", "bild",
    "dsc", "dscn", "dscf", "dscs", "pxl", "mvimg", "gopr", "gp", "dji", "sam", "cimg", "hpim",
    "pict", "kif", "vid", "mov", "p", "screenshot", "screen shot", "screen", "scan", "frame",
    "whatsapp image", "fb_img", "received", "signal", "snapchat", "burst", "pano", "download",
    "downloaded", "unnamed", "untitled", "file", "copy", "capture", "wp",
}  # fmt: skip
_DOCUMENTS = {
    ".txt", ".md", ".rst", ".csv", ".tsv", ".json", ".xml", ".yaml", ".yml", ".html", ".htm",
    ".pdf", ".doc", ".docx", ".xls", ".xlsx", ".py", ".ipynb", ".m", ".mat", ".npy", ".npz", ".h5",
    ".pkl", ".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".ini", ".db", ".log", ".sh", ".bat",
}  # fmt: skip
# cat.0.jpg as Kaggle names them; cat_0, cat-0, cat 0, cat (0), cat0 and great_dane_0 as people do.
_CLASS_BEFORE_NUMBER = re.compile(r"(?P<label>[^\W\d_](.*[^\W\d_])?)[._ -]*\(?\d+\)?\.\w+")


def split_of(name: str) -> Split | None:
    """Return the split that a folder's or a table's name says, or None.

    One of its words is that of a split (train, val, dev, test, holdout …), written in any case and
    joined to others by anything or nothing: ``training_set``, ``seg_train``, ``Test Images``,
    ``testset``, ``test1``, ``hold-out``.
    """
    text = plain_name(name).casefold()
    words = re.findall(r"[^\W\d_]+", text)
    if words == ["hold", "out"]:
        return "test"
    found = {split for word in words if (split := _split_word(word))}
    return found.pop() if len(found) == 1 else None


def _split_word(word: str) -> Split | None:
    for known, split in _SPLIT_WORDS.items():
        before, separator, after = word.partition(known)
        if separator and all(not rest or _BESIDE_SPLIT.fullmatch(rest) for rest in (before, after)):
            return split
    return None


def is_helper(name: str) -> bool:
    """Return whether a folder's name says no more than that photos, or notes on them, are in it.

    Those are ``images`` and ``masks``, and folders that cameras make: ``100CANON``, ``2024-05-31``.
    """
    return (
        holds_photos(name)
        or holds_annotations(name)
        or bool(_FROM_CAMERAS.fullmatch(plain_name(name)))
    )


def holds_photos(name: str) -> bool:
    """Return whether a folder's name says that photos are in it, and nothing else: ``images``."""
    return plain_name(name).casefold() in _PHOTOS


def holds_annotations(name: str) -> bool:
    """Return whether a folder's name says that masks or other notes are in it."""
    return plain_name(name).casefold() in _ANNOTATIONS


def holds_unlabelled(name: str) -> bool:
    """Return whether a folder's name says that its photos are to be predicted.

    That is, beside folders of classes: ``test1``, ``Validation``, ``unlabeled``,
    ``single_prediction``.
    """
    text = plain_name(name).casefold()
    return split_of(name) in ("validation", "test") or bool(_UNLABELLED.fullmatch(text))


def annotated_by(name: str) -> str | None:
    """Return the name without suffix of the photo that ``cat_1_mask.png`` belongs to; else None."""
    stem = name.rpartition(".")[0].casefold()
    found = list(_ANNOTATES.finditer(stem))
    last = found[-1] if found and found[-1].end() == len(stem) else None
    return name[: last.start()] if last else None


def is_photo_name(name: str) -> bool:
    """Return whether a file is called as photos are."""
    return suffix_of(name) in SUFFIXES


def may_be_photo(name: str) -> bool:
    """Return whether a file could be a photo: it is not called as documents are."""
    return suffix_of(name) not in _DOCUMENTS


def class_before_number(name: str) -> str | None:
    """Return the class in the name of a photo, such as ``cat.0.jpg``, in lower case; else None.

    What cameras and programs write before a number (``IMG_``, ``DSC``, ``download (1)``) is no
    class.
    """
    match = _CLASS_BEFORE_NUMBER.fullmatch(name.rpartition("/")[2])
    if not match or not is_photo_name(name):
        return None
    label = plain_name(match["label"]).lower()
    return None if label.strip(" ._-") in _CAMERAS else label


def stem_of(name: str) -> str:
    """Return a file's name without folders and suffix."""
    return name.rpartition("/")[2].rpartition(".")[0] or name


def suffix_of(name: str) -> str:
    """Return a file's suffix in lower case, with its dot; empty without one."""
    own = name.rpartition("/")[2]
    stem, dot, suffix = own.rpartition(".")
    return f".{suffix.lower()}" if dot and stem else ""
