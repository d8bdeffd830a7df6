"""The bundle's int8 model: says what training said, or is not written; who computes with it."""

import dataclasses
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import keras
import numpy as np
import onnx
import pytest
from photos import as_photo, make_photo

import app.core.environment
import app.export.int8_gate
import app.inference.engines
import app.inference.predictor
import app.network.classifier
import app.network.vgg
import predict
from app.core.cli import run
from app.core.config import STAGES, TrainConfig
from app.core.errors import BundleError, ExportError
from app.data.augmentation import View, load_views
from app.evaluation.decision import Thresholds
from app.evaluation.metrics import probabilities_of
from app.evaluation.ood import KnnOodDetector, unit_length
from app.evaluation.outlier_classifier import OutlierClassifier
from app.evaluation.prediction_set import PredictionSet
from app.experiment_setup import dataset_of
from app.export.bundle_writer import Answering, classifier_graph, export_bundle
from app.export.int8_export import Int8Model, int8_model
from app.features.batches import targets_of
from app.features.dataset import FeatureDataset
from app.inference.bundle_format import Bundle
from app.inference.predictor import Classifier
from app.network.classifier import (
    MOST_FULL_CLASSES,
    build_classifier,
    copy_weights,
    has_projection,
    set_head,
)
from app.training.finetune import outputs_of

SIZE, CHANNELS = 64, 16
CLASSES = ("cat", "dog")
ALONE = Answering()


def thin(**settings) -> keras.Model:
    with patch.object(app.network.vgg, "FILTERS", (8, 8, 16, 16, CHANNELS)):
        return build_classifier(2, image_size=SIZE, **settings)


@dataclasses.dataclass
class Case:
    """A run that has come to its export."""

    source: FeatureDataset
    stage: object
    strange: KnnOodDetector
    served: keras.Model
    trained: PredictionSet

    def made(self, served: keras.Model | None = None, *, mirror: bool = False) -> Int8Model:
        graph = classifier_graph(served or self.served, CLASSES, 1.5)
        return int8_model(graph, self.source, self.stage, Thresholds(0.0), mirror=mirror)

    def bundle(self, folder: Path, made: Int8Model, answering: Answering = ALONE) -> Path:
        photos = [View(photo, 0, 0) for photo in self.source.spec.photos["validation"]]
        export_bundle(
            self.served,
            classifier_graph(self.served, CLASSES, 1.5),
            folder,
            classes=CLASSES,
            image_size=SIZE,
            temperature=1.5,
            thresholds=Thresholds(0.0),
            photos=photos,
            trained=self.trained,
            int8=made.model,
            why_no_int8=made.why_not,
            answering=answering,
        )
        return folder


@pytest.fixture(scope="module", params=["head", "block5", "block5, many classes"])
def case(request, tmp_path_factory) -> Iterator[Case]:
    """A thin VGG16, its frozen layers in int8; after ``block5`` its top block is another one.

    With many classes, here two, the head has a projection onto directions that they share, here
    one.
    """
    name, _, many = request.param.partition(", ")
    most = 1 if many else MOST_FULL_CLASSES
    with patch.object(app.network.classifier, "MOST_FULL_CLASSES", most):
        yield made_case(name, tmp_path_factory)


def made_case(name: str, tmp_path_factory) -> Case:
    folder = tmp_path_factory.mktemp("case")
    photos = [as_photo(make_photo(folder / f"{n}.png", n, (80, 70)), n % 2) for n in range(44)]
    split = {"train": photos[:20], "validation": photos[20:40]}
    config = TrainConfig(
        runs=folder / "runs",
        image_size=SIZE,
        precision="int8",
        cache="disk",
        views=1,
        stages=tuple(dict.fromkeys(("head", name))),
    )
    keras.utils.set_random_seed(0)
    model = thin()
    generator = np.random.default_rng(0)

    def randomise(block: str) -> None:
        for layer in model.layers:
            if layer.name.startswith(block) and "_conv" in layer.name:
                kernel, bias = layer.get_weights()
                scale = np.sqrt(2 / np.prod(kernel.shape[:3]))  # He et al. 2015
                layer.set_weights([generator.normal(0, scale, kernel.shape), bias])

    randomise("block")
    source = dataset_of(config, model, "w", split)
    if name == "block5":
        randomise("block5")  # what training would do to it
    # Sure enough that no label changes by rounding.
    kernel, bias = generator.normal(0, 1, (CHANNELS**2, 2)), np.array([3.0, 0.0])
    if has_projection(model):
        set_head(model, np.array([[-0.5, 0.5]]), bias, kernel @ [[-1.0], [1.0]])
    else:
        set_head(model, kernel, bias)
    reference = unit_length(np.maximum(generator.normal(size=(8, CHANNELS)), 0))
    shown = OutlierClassifier(generator.normal(size=CHANNELS).astype(np.float32), bias=0.0)
    strange = KnnOodDetector(reference, 3, threshold=0.9, scale=0.2, outliers=shown)
    served = thin(temperature=1.5, novelty=strange)
    copy_weights(model, served)
    stage = STAGES[name]
    logits, seen = outputs_of(
        source.part_with_embeddings(stage), source.batches(stage, "validation")
    )
    trained = PredictionSet(
        tuple(photo.name for photo in split["validation"]),
        targets_of(split["validation"]),
        probabilities_of(logits / 1.5),
        strange.novelty([seen]),
    )
    assert np.ptp(trained.probabilities[:, 0]) > 0.003
    return Case(source, stage, strange, served, trained)


def test_the_whole_int8_model_says_what_training_said(case, tmp_path, monkeypatch, capsys):
    made = case.made()
    assert made.why_not == ""
    kinds = [node.op_type for node in made.model.graph.node]
    quantised = {node.input[1] for node in made.model.graph.node if node.op_type == "Conv"} - {
        "preprocessing/kernel"
    }
    assert kinds.count("Conv") == 14
    assert all(name.endswith("_DequantizeLinear_Output") for name in quantised)

    bundle = case.bundle(tmp_path / "bundle", made)
    assert Bundle.read(bundle).has_int8
    images = load_views([View(p, 0, 0) for p in case.source.spec.photos["validation"]], SIZE)
    answered = {name: Classifier(bundle, precision=name) for name in ("int8", "float32")}
    probabilities, novelty = answered["int8"].outputs(images)
    np.testing.assert_allclose(probabilities, case.trained.probabilities, atol=0.02)
    np.testing.assert_allclose(novelty, case.trained.novelty, atol=0.05)
    assert np.corrcoef(probabilities[:, 0], case.trained.probabilities[:, 0])[0, 1] > 0.95
    exact, _ = answered["float32"].outputs(images)
    assert np.abs(probabilities - exact).max() > 1e-6  # another model
    maps = answered["int8"].activation_maps(images)
    sums = probabilities_of(maps.sum(axis=(1, 2)))
    np.testing.assert_allclose(sums, probabilities, atol=1e-3)

    about = onnx.load(bundle / "model.int8.onnx")
    assert {entry.key for entry in about.metadata_props} == {"classes", "temperature"}
    assert len({each.domain for each in about.opset_import}) == len(about.opset_import)

    with monkeypatch.context() as patch:
        for flags, precision in (("avx2", "float32"), ("avx2 avx512_vnni", "int8")):
            patch.setattr(app.core.environment, "cpu_info", lambda _, flags=flags: flags)
            assert Classifier(bundle).precision == precision
        patch.setattr(app.core.environment, "cpu_info", lambda _: "avx2")
        with pytest.raises(BundleError, match="VNNI"):
            Classifier(bundle, precision="int8")
        patch.setattr(app.inference.predictor, "has_dot_product", lambda: True)  # ARM
        assert Classifier(bundle).precision == "float32"  # untried, so only where it is asked for
        assert Classifier(bundle, precision="int8").precision == "int8"
        patch.setattr(app.core.environment, "cpu_info", lambda _: "avx_vnni")
        (bundle / "model.int8.onnx").rename(bundle / "gone")
        with pytest.raises(BundleError, match="or --precision float32"):
            Classifier(bundle)
        (bundle / "gone").rename(bundle / "model.int8.onnx")
    photo = str(case.source.spec.photos["validation"][0].path)
    said = {}
    for precision in ("int8", "float32"):
        argv = ["--bundle", str(bundle), "--json", "--precision", precision, photo]
        assert run(predict.main, argv) == 0
        said[precision] = json.loads(capsys.readouterr().out)["probabilities"]
    assert said["int8"] != said["float32"]
    assert said["int8"]["cat"] == pytest.approx(probabilities[0, 0], abs=1e-5)


def test_what_misses_a_bar_is_not_written_and_why_stands_in_the_bundle(case, tmp_path, monkeypatch):
    monkeypatch.setattr(app.export.int8_gate, "MOST_CALIBRATION_LOST", -1.0)
    made = case.made()
    assert made.model is None
    assert "calibration error added" in made.why_not
    bundle = case.bundle(tmp_path / "bundle", made)
    assert not (bundle / "model.int8.onnx").exists()
    assert json.loads((bundle / "bundle.json").read_text())["why_no_int8"] == made.why_not
    assert Classifier(bundle).precision == "float32"
    with pytest.raises(BundleError, match="calibration error added"):
        Classifier(bundle, precision="int8")


def test_float32_itself_is_asked_not_what_training_said(case, monkeypatch):
    """Training read its features from the same int8 layers: it would find itself right."""
    monkeypatch.setattr(app.export.int8_gate, "NEAR_LABEL", 1e6)  # every photo is in doubt
    usual = case.made().gate
    assert usual.asked == usual.photos == 40  # 20 of validation, and 20 of training
    turned = thin(temperature=1.5, novelty=case.strange)
    copy_weights(case.served, turned)
    layer = turned.get_layer("block1_conv1")  # below every cut, so that int8 does not change
    layer.set_weights([-weights for weights in layer.get_weights()])
    other = case.made(turned).gate
    assert other.calibration_lost != pytest.approx(usual.calibration_lost, abs=1e-4)


def test_a_file_that_says_something_else_than_its_parts_is_refused(case, tmp_path):
    made = case.made()
    other = onnx.ModelProto()
    other.CopyFrom(made.model)
    (head,) = (i for i in other.graph.initializer if i.name == "dense/bias")
    head.CopyFrom(onnx.numpy_helper.from_array(np.array([0.3, -0.3], np.float32), head.name))
    with pytest.raises(ExportError, match=r"model.int8.onnx to predict what training predicted"):
        case.bundle(tmp_path / "bundle", dataclasses.replace(made, model=other))
    assert not (tmp_path / "bundle").exists()


@pytest.mark.skipif(find_spec("openvino") is None, reason="openvino is not installed")
def test_each_engine_that_will_answer_passes_the_gate(case, tmp_path, monkeypatch):
    made, answering = case.made(), Answering("openvino")
    bundle = case.bundle(tmp_path / "bundle", made, answering)
    images = load_views([View(p, 0, 0) for p in case.source.spec.photos["validation"]], SIZE)
    for precision, tolerance in (("int8", 0.01), ("float32", 1e-5)):
        usual, other = (
            Classifier(bundle, precision=precision, engine=engine)
            for engine in ("onnxruntime", "openvino")
        )
        assert (usual.engine, other.engine) == ("onnxruntime", "openvino")
        for one, two in zip(usual.outputs(images), other.outputs(images), strict=True):
            np.testing.assert_allclose(one, two, atol=tolerance)
        sums = probabilities_of(other.activation_maps(images).sum(axis=(1, 2)))
        np.testing.assert_allclose(sums, other.outputs(images)[0], atol=1e-3)

    right = app.inference.engines._OpenvinoModel.run
    monkeypatch.setattr(
        app.inference.engines._OpenvinoModel, "run", lambda *args: [1 - x for x in right(*args)]
    )
    with pytest.raises(ExportError, match=r"model.int8.onnx \(openvino\) to predict what training"):
        case.bundle(tmp_path / "other", made, answering)
    assert not (tmp_path / "other").exists()


def test_without_frozen_int8_there_is_none(case):
    source = dataclasses.replace(case.source, int8=None, int8_twin=None)
    made = dataclasses.replace(case, source=source).made()
    assert (made.model, made.gate) == (None, None)
    assert "not computed in int8" in made.why_not
    assert "mirror" in case.made(mirror=True).why_not


def test_where_a_gpu_computed_the_features_the_same_model_is_made(case):
    """Then the frozen layers in int8 answer from pixels, not from the cache."""
    source = dataclasses.replace(case.source, int8=None)
    made, usual = dataclasses.replace(case, source=source).made(), case.made()
    assert made.model == usual.model
    assert made.gate == usual.gate
