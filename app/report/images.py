"""The pictures that a report shows: the photos of the run, or drawn ones in their place.

The report shows photos. The notebook is made to be passed on, so it shows drawings
(``app.data.sets.synthetic_pets``), which the run's own bundle has classified.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from app.core.errors import AppError, BundleError
from app.data.augmentation import make_view, read_photo
from app.data.decode import Pixels, resize
from app.data.folder_layout import data_folder
from app.data.manifest import ManifestRow, Photo
from app.data.sets.synthetic_pets import KINDS, draw_animal
from app.evaluation.findings import Finding
from app.evaluation.prediction_set import PredictionSet
from app.inference.heatmap import contrastive_cam
from app.inference.predictor import Classifier
from app.inference.wording import percentage
from app.report.evidence import evidence, full_scale
from app.report.first_screen import Outcome, outcomes, refused, wall
from app.report.results import Results

SHOWN = 12  # pictures a gallery
SAMPLES, VIEWS = 4, 4  # photos whose views are shown, and at most how many random views of each
PHOTO_SIDE = 320  # pixels of the longer side: sharp at half a phone's width
DRAWN_SIDE = 160  # less, since the notebook is kept in the repository
DRAWN_PER_KIND = 24
EXCHANGED = 6  # drawings whose label is made wrong, to be found
BATCH = 4  # pictures at once: maps take some MB a picture and class
LABELLED = "labelled {label}; answered {answer} ({probability})"
ON_PURPOSE = "labelled {label} on purpose; answered {answer} ({probability})"
NO_ANSWERS = (
    "The run's bundle is gone, damaged or of another version, so there are no answers to show."
)
NO_PETS = "The drawings show cats and dogs, which are not the classes of this run."
NO_HEATMAPS = (
    "There are no heat maps: the run's bundle is gone, damaged or of a version that has none."
)


@dataclass(frozen=True)
class ReportImage:
    """One picture.

    Attributes:
        small: to be shown, uint8 ``(height, width, 3)``.
        seen: what the network sees of it, uint8 ``(size, size, 3)``.
        views: random views 1, 2, ... of it, to be shown, uint8; of samples only.
    """

    small: Pixels
    seen: Pixels
    views: tuple[Pixels, ...] = ()


@dataclass(frozen=True)
class Album:
    """The pictures of a report, and what is known of them.

    Attributes:
        drawn: whether they are drawings that stand for photos.
        images: by name; a photo that is gone or was changed has none.
        samples: names of training photos, whose images have the views that a stage learned from.
        answered: what the galleries of answers choose from; None where no bundle answers drawings.
        labels: pictures that look like another class than their label, the surest first.
        outliers: those unlike all others, the most unlike first.
        outcomes: what became of each of the answered pictures.
        heatmaps: by name and number of the answer: a layer over the picture that shows what speaks
            for that answer, and what against it (``app.report.evidence``).
        lacking: what is lacking and why, a sentence; empty where nothing is.
    """

    drawn: bool
    images: dict[str, ReportImage]
    samples: list[str]
    answered: PredictionSet | None
    labels: list[Finding]
    outliers: list[Finding]
    outcomes: tuple[Outcome, ...] = ()
    heatmaps: dict[tuple[str, int], Pixels] = field(default_factory=dict)
    lacking: str = ""


def photo_album(results: Results, bundle: Path, photos: Path) -> Album:
    """Return the album of a run's own photos.

    Args:
        results: of the run.
        bundle: the run's; where it cannot answer there are no heat maps.
        photos: the folder or archive that the run was trained on. There is no image of what is gone
            from it, or is no longer what the manifest saw.
    """
    answered = results.predictions["test"]
    samples = [row.name for row in sample_rows(results)]
    labels = results.findings_of("label")[:SHOWN]
    outliers = results.findings_of("outlier")[:SHOWN]
    found = tuple(outcomes(answered, results.metrics.min_confidence))
    shown = [*wall(answered, found), *chosen(answered), *refused(answered, found)[:SHOWN]]
    names = [*samples, *(answered.names[n] for n in shown)]
    names += [finding.name for finding in (*labels, *outliers)]
    images = read_images(results, photos, list(dict.fromkeys(names)), samples)
    album = Album(False, images, samples, answered, labels, outliers, found, lacking=NO_HEATMAPS)
    with suppress(BundleError):
        return with_heatmaps(album, Classifier(bundle))
    return album


def drawn_album(results: Results, bundle: Path) -> Album:
    """Return an album of drawings, answered by the run's bundle if it knows cats and dogs."""
    numbers = {kind_of(name): number for number, name in enumerate(results.classes)}
    known = set(KINDS) <= set(numbers)
    with suppress(BundleError):
        if known:
            # Not in int8, which only some processors compute: drawings get the same answers
            # everywhere.
            return answered_drawings(results, Classifier(bundle, precision="float32"), numbers)
    images = {name: image for name, (_, image) in draw(results, SAMPLES // len(KINDS)).items()}
    lacking = NO_ANSWERS if known else NO_PETS
    return Album(True, images, list(images), None, [], [], lacking=lacking)


def answered_drawings(
    results: Results, classifier: Classifier, numbers: Mapping[str, int]
) -> Album:
    """Return an album of drawings with a classifier's answers.

    Args:
        results: of the run.
        classifier: what answers.
        numbers: the class of each kind of animal.

    Raises:
        BundleError: when the classifier gives no numbers, or another shape than it should.
    """
    drawings = draw(results, DRAWN_PER_KIND)
    images = {name: image for name, (_, image) in drawings.items()}
    outputs = [
        classifier.outputs(np.stack([image.seen for image in batch]))
        for batch in batches(list(images.values()))
    ]
    probabilities, novelty = (np.concatenate(each) for each in zip(*outputs, strict=True))
    answered = PredictionSet(
        tuple(images),
        np.array([numbers[kind] for kind, _ in drawings.values()]),
        probabilities.astype(np.float64),
        novelty.astype(np.float64),
    )
    labels, outliers = exchanged_labels(answered, results.classes), most_unlike(answered)
    samples = list(images)[:SAMPLES]
    found = tuple(outcomes(answered, results.metrics.min_confidence))
    album = Album(True, images, samples, answered, labels, outliers, found, lacking=NO_HEATMAPS)
    with suppress(BundleError):
        return with_heatmaps(album, classifier)
    return album


def chosen(answered: PredictionSet) -> list[int]:
    """Return the numbers of the pictures that get a heat map: mistakes and doubtful answers."""
    both = answered.mistakes()[:SHOWN] + answered.least_certain()[:SHOWN]
    return list(dict.fromkeys(both))


def sample_rows(results: Results) -> list[ManifestRow]:
    """Return a few training photos, one of each class in turn, chosen by their hashes."""
    rows = sorted(results.used(), key=lambda row: row.sha256)
    by_class = [
        [row for row in rows if (row.split, row.label) == ("train", label)]
        for label in results.classes[:SAMPLES]
    ]
    turns = chain.from_iterable(zip_longest(*by_class))
    return [row for row in turns if row is not None][:SAMPLES]


def read_images(
    results: Results, photos: Path, names: Sequence[str], samples: Sequence[str]
) -> dict[str, ReportImage]:
    """Read photos, those that are still what they were; ``samples`` get their views as well."""
    contents = {row.name: row.sha256 for row in results.manifest}
    images = {}
    # The folder may be gone, the archive damaged; and so may a photo.
    with suppress(AppError), data_folder(photos) as root:
        for name in filter(contents.__contains__, names):
            with suppress(AppError):
                pixels = read_photo(Photo(root / name, name, contents[name], 0))
                views = views_shown(results) if name in samples else 0
                images[name] = image_of(pixels, contents[name], results, views, PHOTO_SIDE)
    return images


def draw(results: Results, per_kind: int) -> dict[str, tuple[str, ReportImage]]:
    """Return drawings of all kinds, by name; the first have views."""
    drawings: dict[str, tuple[str, ReportImage]] = {}
    for number in range(per_kind):
        for place, kind in enumerate(KINDS):
            drawing = draw_animal(kind, np.random.default_rng([number, place]))
            pixels = np.asarray(drawing.image)
            views = views_shown(results) if len(drawings) < SAMPLES else 0
            content = sha256(pixels.tobytes()).hexdigest()
            image = image_of(pixels, content, results, views, DRAWN_SIDE)
            drawings[f"drawn {kind} {number + 1}"] = kind, image
    return drawings


def views_shown(results: Results) -> int:
    """Return how many random views of a sample are shown: of those that a stage learned from."""
    views = results.random_views()
    return VIEWS if views is None else min(VIEWS, views)


def image_of(pixels: Pixels, content: str, results: Results, views: int, side: int) -> ReportImage:
    """Return a decoded picture, whose file has the SHA-256 ``content``, as a report shows it."""
    size, seed = results.config.image_size, results.config.seed
    drawn = (make_view(pixels, size, content=content, view=k + 1, seed=seed) for k in range(views))
    return ReportImage(
        reduced(pixels, side), resize(pixels, size), tuple(reduced(view, side) for view in drawn)
    )


def reduced(pixels: Pixels, side: int) -> Pixels:
    """Return a picture whose longer side has at most so many pixels."""
    image = Image.fromarray(pixels)
    image.thumbnail((side, side))
    return np.asarray(image)


def kind_of(name: str) -> str:
    """Return what the drawn sample calls a class: ``cat`` for ``Cats``."""
    return name.lower().removesuffix("s")


def with_heatmaps(album: Album, classifier: Classifier) -> Album:
    """Return the album with the heat maps of the pictures in its galleries of answers.

    Raises:
        BundleError: when the bundle is damaged, or of a version that has no maps.
    """
    answered = album.answered
    assert answered is not None, "the album has no answers"  # noqa: S101
    places = [(answered.names[n], int(answered.answers[n])) for n in chosen(answered)]
    cams = {}
    for batch in batches([place for place in places if place[0] in album.images]):
        seen = np.stack([album.images[name].seen for name, _ in batch])
        for (name, answer), maps in zip(batch, classifier.activation_maps(seen), strict=True):
            cams[name, answer] = contrastive_cam(maps, answer)
    most = full_scale(list(cams.values()))
    layers = {
        (name, answer): evidence(cam, most, album.images[name].small.shape)
        for (name, answer), cam in cams.items()
    }
    return dataclasses.replace(album, heatmaps=layers, lacking="")


def batches(items: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield ``BATCH`` items at a time."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def exchanged_labels(answered: PredictionSet, classes: Sequence[str]) -> list[Finding]:
    """Make the labels of some drawings wrong, and list all whose label the answer contradicts.

    So the notebook shows what the list of label issues does, on pictures whose labels are known.
    """
    labels = answered.targets.copy()
    some = np.random.default_rng(0).choice(len(labels), EXCHANGED, replace=False)
    labels[some] = labels.min() + labels.max() - labels[some]  # of two kinds the other one
    margins = answered.confidence - answered.probabilities[np.arange(len(labels)), labels]
    issues = [n for n in np.argsort(-margins, kind="stable").tolist() if margins[n] > 0]
    return [
        Finding(
            answered.names[n],
            "label",
            rank,
            float(margins[n]),
            (ON_PURPOSE if n in some else LABELLED).format(
                label=classes[labels[n]],
                answer=classes[answered.answers[n]],
                probability=percentage(answered.confidence[n]),
            ),
        )
        for rank, n in enumerate(issues[:SHOWN], start=1)
    ]


def most_unlike(answered: PredictionSet) -> list[Finding]:
    """List the pictures of the highest novelty."""
    order = np.argsort(-answered.novelty, kind="stable")[:SHOWN].tolist()
    novelty = [float(answered.novelty[n]) for n in order]
    return [
        Finding(answered.names[n], "outlier", rank, value, f"novelty {value:.3f}")
        for rank, (n, value) in enumerate(zip(order, novelty, strict=True), start=1)
    ]
