"""Which arithmetic the frozen layers may have: the fastest that leaves the answers alone.

How far rounding moves an answer depends on the photos: little where the classes lie far apart, more
where many photos are doubtful. So it is measured before the long work. A quick head is solved on a
few training photos and answers others, from the features that the candidate computes and from those
of float32. The exported model computes in float32 (and in int8, where that answers alike), so what
was trained and what answers are one model. The cache keeps these features too: those of the chosen
arithmetic are computed once, and a later run on the same photos computes none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain, islice
from warnings import catch_warnings, simplefilter

import keras
import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from app.core.config import Backbone, Precision
from app.core.console import percent, say
from app.core.errors import CacheEvictedError, UsageError
from app.data.augmentation import View, load_batches
from app.data.manifest import Photo
from app.evaluation.metrics import Ints, probability_moved
from app.features.batches import Float32s, targets_of
from app.features.cache_folder import Quota
from app.features.dataset import HEAD_CUT
from app.features.extractor import FeatureExtractor, engine, make_extractor
from app.features.int8_backbone import make_int8_backbone
from app.features.shards import SHARD_ROWS
from app.features.store import FeatureSpec, FeatureStore, kept_rows
from app.network.classifier import pooling_part
from app.network.device import on_gpu, resolve_precision
from app.network.whole_batches import predict_batch
from app.training.nystroem import each_pair_once, fit_nystroem

# Training photos, at least and at most. The quick head is solved on two thirds of them; every third
# is answered, twice. So each class that is looked at needs three.
PHOTOS, MOST_PHOTOS = 96, 192
ANSWERED = 3
STRENGTH = 30.0  # scikit-learn's C (app.training.linear_probe.STRENGTHS)
# Of the probability, which moves to other classes on average over the answered photos. Seen: pets
# 0.002 in int8, flowers of 128 pixels 0.008, in bfloat16 0.002 (docs/experiments.md).
MOST_MOVED = 0.005
# A photo's time as a multiple of that in int8 (docs/results.md).
COSTS: dict[Precision, float] = {"int8": 1.0, "bfloat16": 1.7, "float32": 4.1}


def choose_precision(
    model: keras.Model,
    backbone: Backbone,
    weights: str,
    photos: Sequence[Photo],
    quota: Quota,
    *,
    int8: bool,
    keep: bool = True,
) -> Precision:
    """Return the setting ``precision`` whose features leave the answers alone; say it if slower.

    Args:
        model: the classifier, its backbone's weights set.
        backbone: its name.
        weights: their digest.
        photos: of training; some of each class are looked at (``some_of_each_class``).
        quota: of the folder of all caches, which keeps the int8 model.
        int8: whether ``auto`` stands for int8 in frozen layers.
        keep: whether the features are kept there too, if there is room.

    Returns:
        ``auto`` where the fastest will do, and on a GPU, where nothing is measured.
    """
    candidates: list[Precision] = ["int8"] if int8 else []
    if resolve_precision("auto") == "bfloat16":
        candidates.append("bfloat16")
    if on_gpu() or not candidates:
        return "auto"
    chosen = some_of_each_class(photos)
    targets = targets_of(chosen)
    # The head is solved on rounded features alone, so float32 computes those of a third only.
    answered = [photo for photo, a in zip(chosen, is_answered(len(chosen)), strict=True) if a]

    def features(precision: Precision, some: Sequence[Photo]) -> Float32s:
        made = None
        if precision == "int8":
            made = make_int8_backbone(quota.folder, model, weights, photos)
        make = partial(make_extractor, model, [HEAD_CUT], precision, made)
        how = (precision if made is None else made.precision, engine(precision))
        spec = FeatureSpec(HEAD_CUT, backbone, weights, int(model.input.shape[1]), *how)
        if keep:
            try:
                return _features(model, some, make, FeatureStore(quota.folder, spec, quota))
            except (UsageError, CacheEvictedError) as error:  # --cache auto may still be off
                say(f"the features of {len(some)} photos in {precision} are not kept: {error}")
        return _features(model, some, make, None)

    exact = features("float32", answered)
    why = ""
    for precision in candidates:
        moved = moved_by_rounding(exact, features(precision, chosen), targets)
        if moved <= MOST_MOVED:
            if why:
                _say_slower(precision, why)
            return precision if why else "auto"
        why = why or f"{precision} moves {percent(moved, 2)} of the probability to other classes"
    _say_slower("float32", why)
    return "float32"


def some_of_each_class(photos: Sequence[Photo]) -> list[Photo]:
    """Return three photos of each class, and three more of each, up to 96 photos.

    Of more than 32 classes there are up to 192 photos, so of more than 64 classes some are left
    out: with one photo of each of many classes, all that is answered would be of classes that the
    quick head does not know. Which photos, and which classes, follows from SHA-256: a random choice
    that is the same each time.

    Returns:
        The photos, those of a class together.
    """
    of_class: dict[int, list[Photo]] = {}
    for photo in sorted(photos, key=lambda photo: photo.content):
        of_class.setdefault(photo.target, []).append(photo)
    in_threes = [
        (first // ANSWERED, each[0].content, each[first : first + ANSWERED])
        for each in of_class.values()
        for first in range(0, len(each), ANSWERED)
    ]
    in_turns = chain.from_iterable(three for *_, three in sorted(in_threes, key=lambda x: x[:2]))
    count = min(max(PHOTOS, ANSWERED * len(of_class)), MOST_PHOTOS)
    return sorted(islice(in_turns, count), key=lambda photo: photo.target)


def _say_slower(precision: Precision, why: str) -> None:
    say(
        f"frozen layers in {precision}: {why}, more than {percent(MOST_MOVED, 1)}; a photo takes "
        f"about {COSTS[precision]:g} times as long as in int8, and there will be no int8 model"
    )


def _features(
    model: keras.Model,
    photos: Sequence[Photo],
    make: Callable[[], FeatureExtractor],
    store: FeatureStore | None,
) -> Float32s:
    """Return what the head sees of photos, ``(n, 131,328)``: each pair of channels once."""
    part = pooling_part(model)
    side = part.input.shape[-1]
    parts = [np.empty((0, side * (side + 1) // 2), np.float32)]
    for maps in _maps([View(photo, 0, 0) for photo in photos], model, make, store):
        parts.append(each_pair_once(predict_batch(part, maps, SHARD_ROWS)))
    return np.concatenate(parts)


def _maps(
    views: Sequence[View],
    model: keras.Model,
    make: Callable[[], FeatureExtractor],
    store: FeatureStore | None,
) -> Iterator[Float32s]:
    """Yield block5's maps of views, out of ``store`` where there is one."""
    size = int(model.input.shape[1])
    if store is not None:
        yield from kept_rows(store, views, size, make)
        return
    frozen = make()
    for (maps,) in frozen.stream(load_batches(views, size, frozen.batch)):
        yield maps.astype(np.float16).astype(np.float32)  # as the cache keeps them


def is_answered(count: int) -> NDArray[np.bool_]:
    """Say which of so many photos the quick head answers: every third."""
    answered: NDArray[np.bool_] = np.arange(count) % ANSWERED == ANSWERED - 1
    return answered


def moved_by_rounding(exact: Float32s, rounded: Float32s, targets: Ints) -> float:
    """Return the probability that rounding moves to other classes, on average over photos.

    A head is solved on the rounded features of two thirds of the photos, and answers the others
    from both.

    Args:
        exact: features of the photos that are answered (``is_answered``), from ``each_pair_once``.
        rounded: features of all photos, ``(n, pairs)``.
        targets: ``(n,)``, the number of each photo's class, ascending.

    Returns:
        0 to 1 (``probability_moved``); 1 where the photos are too few to tell.
    """
    answered = is_answered(len(targets))
    if not answered.any() or len(np.unique(targets[~answered])) < 2:
        return 1.0
    basis = fit_nystroem(rounded[~answered])
    solver = LogisticRegression(C=STRENGTH, max_iter=1000)
    with catch_warnings():
        simplefilter("ignore", UserWarning)  # that many of the photos are the only one of a class
        solver.fit(basis.landmark_coordinates, targets[~answered])
    first, second = (
        solver.predict_proba(((each - basis.mean) @ basis.landmarks.T) @ basis.directions)
        for each in (exact, rounded[answered])
    )
    return probability_moved(first, second)
