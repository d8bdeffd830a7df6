"""The gate of a bundle: rounding passes, wrong pixels and a wrong order of classes do not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import keras
import numpy as np
import pytest
from photos import as_photo
from PIL import Image

import app.network.vgg
from app.core.config import STAGES
from app.core.errors import ExportError
from app.data.augmentation import View, load_views
from app.evaluation.decision import Thresholds
from app.evaluation.metrics import probabilities_of
from app.evaluation.ood import KnnOodDetector, unit_length
from app.evaluation.prediction_set import PredictionSet
from app.export.bundle_writer import check_parity, classifier_graph, export_bundle
from app.features.batches import LabelledMaps
from app.network.classifier import build_classifier, copy_weights, prefix
from app.training.linear_probe import fit_linear_probe

SIZE, CHANNELS, PHOTOS = 64, 16, 48
CLASSES = ("blue", "green", "red")


def thin(**settings) -> keras.Model:
    with patch.object(app.network.vgg, "FILTERS", (8, 8, 16, 16, CHANNELS)):
        return build_classifier(3, image_size=SIZE, **settings)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list[View], Callable[..., PredictionSet]]:
    """A classifier that learned colours well: its bundle, its photos, what training says of them.

    The last is a function of what is done to the pixels first.
    """
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    photos = []
    for number in range(PHOTOS):
        pixels = generator.integers(0, 160, (SIZE, SIZE, 3))
        pixels[:, :, 2 - number % 3] += 60  # not easily told: some answers stay doubtful
        path = folder / f"{number}.png"
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        photos.append(as_photo(path, number % 3))
    views = [View(photo, 0, 0) for photo in photos]
    targets = np.array([photo.target for photo in photos])

    keras.utils.set_random_seed(0)
    model = thin()
    for layer in model.layers:
        if "_conv" in layer.name:  # the activations keep their size (He et al. 2015)
            kernel, bias = layer.get_weights()
            scale = np.sqrt(2 / np.prod(kernel.shape[:3]))
            layer.set_weights([generator.normal(0, scale, kernel.shape), bias])
    images = load_views(views, SIZE)
    maps = prefix(model, ["block5_pool"]).predict(images, verbose=0)
    train, validation = (
        LabelledMaps(lambda numbers, half=half: iter([maps[half][numbers]]), targets[half])
        for half in (slice(None, PHOTOS // 2), slice(PHOTOS // 2, None))
    )
    fit_linear_probe(model, STAGES["head"], train, validation)
    reference = unit_length(maps.max(axis=(1, 2)))
    strange = KnnOodDetector(reference, neighbours=3, threshold=0.01, scale=0.005)
    served = thin(novelty=strange)
    copy_weights(model, served)

    def predicted(wrong: Callable[[np.ndarray], np.ndarray] = lambda x: x) -> PredictionSet:
        outputs = served.predict(wrong(images.astype(np.float32)), verbose=0)
        names = tuple(view.photo.name for view in views)
        probabilities = probabilities_of(outputs["logits"])
        return PredictionSet(names, targets, probabilities, outputs["novelty"][:, 0])

    bundle = tmp_path_factory.mktemp("export") / "bundle"
    export_bundle(
        served,
        classifier_graph(served, CLASSES, 1.0),
        bundle,
        classes=CLASSES,
        image_size=SIZE,
        temperature=1.0,
        thresholds=Thresholds(0.0),
        photos=views,
        trained=predicted(),
    )
    return bundle, views, predicted


def test_rounding_passes(trained):
    """Answers that rounding moves by a twentieth of what lies between different photos."""
    bundle, views, predicted = trained
    right = predicted()
    assert (right.probabilities.argmax(axis=1) == right.targets).mean() > 0.8
    assert 0.6 < right.probabilities.max(axis=1).mean() < 0.95  # real signal, real doubt
    mean = right.probabilities.mean(axis=0)
    moved = replace(right, probabilities=0.93 * right.probabilities + 0.07 * mean)
    parity = check_parity(bundle, views, moved)
    assert parity.onnx_against_training_moved > 0.01  # the bar of answers that say nothing


MEAN = np.array([123.68, 116.779, 103.939], np.float32)  # of ImageNet, red first


@pytest.mark.parametrize(
    "wrong",
    [
        lambda x: x[..., ::-1],
        lambda x: x + MEAN,
        lambda x: x / 255,
        lambda x: x / 127.5 - 1,
        lambda x: np.zeros_like(x),
    ],
    ids=["blue first", "no mean", "0 to 1", "-1 to 1", "black"],
)
def test_wrong_preprocessing_is_refused(trained, wrong):
    bundle, views, predicted = trained
    with pytest.raises(ExportError, match=r"expected model\.onnx to predict what training"):
        check_parity(bundle, views, predicted(wrong))


@pytest.mark.parametrize("order", [[1, 2, 0], [1, 0, 2], [0, 2, 1]])
def test_a_wrong_order_of_classes_is_refused(trained, order):
    bundle, views, predicted = trained
    right = predicted()
    with pytest.raises(ExportError, match=r"expected model\.onnx to predict what training"):
        check_parity(bundle, views, replace(right, probabilities=right.probabilities[:, order]))
