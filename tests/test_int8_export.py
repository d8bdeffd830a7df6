"""The bundle's int8 model: says what training said, or is not written; who computes with it."""

import dataclasses
import json
from pathlib import Path
from unittest.mock import patch

import keras
import numpy as np
import onnx
import pytest
from photos import as_photo, make_photo

import app.processor
import app.vgg
import predict
from app.bundle import Bundle
from app.cli import run
from app.config import STAGES, TrainConfig
from app.errors import BundleError, ExportError
from app.evaluation import probabilities_of
from app.export import Trained, classifier_graph, export_bundle
from app.inference import Classifier
from app.int8_export import Int8Model, int8_gate, int8_model
from app.model import build_classifier, copy_weights
from app.novelty import Novelty, unit_length
from app.sources import Source, open_source
from app.training import outputs_of
from app.views import View, load_views

SIZE, CHANNELS = 64, 16
CLASSES = ("cat", "dog")


def thin(**settings) -> keras.Model:
    with patch.object(app.vgg, "FILTERS", (8, 8, 16, 16, CHANNELS)):
        return build_classifier(2, image_size=SIZE, **settings)


@dataclasses.dataclass
class Case:
    """A run that has come to its export."""

    source: Source
    stage: object
    served: keras.Model
    trained: Trained

    def made(self, **changes) -> Int8Model:
        graph = classifier_graph(self.served, CLASSES, 1.5)
        trained = dataclasses.replace(self.trained, **changes)
        return int8_model(graph, self.source, self.stage, trained, mirror=False)

    def bundle(self, folder: Path, made: Int8Model) -> Path:
        photos = [View(photo, 0, 0) for photo in self.source.photos["validation"]]
        export_bundle(
            self.served,
            folder,
            classes=CLASSES,
            image_size=SIZE,
            temperature=1.5,
            min_confidence=0.0,
            photos=photos,
            trained=self.trained,
            int8=made.model,
            why_no_int8=made.why_not,
        )
        return folder


@pytest.fixture(scope="module", params=["head", "block5"])
def case(request, tmp_path_factory) -> Case:
    """A thin VGG16, its frozen layers in int8; after ``block5`` its top block is another one."""
    folder = tmp_path_factory.mktemp("case")
    photos = [as_photo(make_photo(folder / f"{n}.png", n, (80, 70)), n % 2) for n in range(44)]
    split = {"train": photos[:20], "validation": photos[20:40], "test": photos[40:]}
    config = TrainConfig(
        runs=folder / "runs",
        image_size=SIZE,
        precision="int8",
        cache="disk",
        views=1,
        stages=tuple(dict.fromkeys(("head", request.param))),
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
    source = open_source(config, model, "w", split)
    if request.param == "block5":
        randomise("block5")  # what training would do to it
    # Sure enough that no label changes by rounding.
    head = [generator.normal(0, 1, (CHANNELS**2, 2)), np.array([1.0, 0.0])]
    model.get_layer("dense").set_weights(head)
    reference = unit_length(np.maximum(generator.normal(size=(8, CHANNELS)), 0))
    strange = Novelty(reference, neighbours=3, threshold=0.5, scale=0.05)
    served = thin(temperature=1.5, novelty=strange)
    copy_weights(model, served)
    stage = STAGES[request.param]
    logits, seen = outputs_of(source.describing(stage), source.batches(stage, "validation"))
    trained = Trained(probabilities_of(logits / 1.5), strange.of(strange.distances([seen])))
    assert np.ptp(trained.probabilities[:, 0]) > 0.003
    return Case(source, stage, served, trained)


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
    images = load_views([View(p, 0, 0) for p in case.source.photos["validation"]], SIZE)
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

    for flags, precision in (("avx2", "float32"), ("avx2 avx512_vnni", "int8")):
        monkeypatch.setattr(app.processor, "cpu_info", lambda _, flags=flags: flags)
        assert Classifier(bundle).precision == precision
    photo = str(case.source.photos["validation"][0].path)
    said = {}
    for precision in ("int8", "float32"):
        argv = ["--bundle", str(bundle), "--json", "--precision", precision, photo]
        assert run(predict.main, argv) == 0
        said[precision] = json.loads(capsys.readouterr().out)["probabilities"]
    assert said["int8"] != said["float32"]
    assert said["int8"]["cat"] == pytest.approx(probabilities[0, 0], abs=1e-5)


def test_what_misses_a_bar_is_not_written_and_why_stands_in_the_bundle(case, tmp_path):
    made = case.made(probabilities=case.trained.probabilities[:, ::-1])
    assert made.model is None
    assert "labels changed: 1.0000 of 20 validation photos" in made.why_not
    bundle = case.bundle(tmp_path / "bundle", made)
    assert not (bundle / "model.int8.onnx").exists()
    assert json.loads((bundle / "bundle.json").read_text())["why_no_int8"] == made.why_not
    assert Classifier(bundle).precision == "float32"
    with pytest.raises(BundleError, match="labels changed"):
        Classifier(bundle, precision="int8")


def test_a_file_that_says_something_else_than_its_parts_is_refused(case, tmp_path):
    made = case.made()
    other = onnx.ModelProto()
    other.CopyFrom(made.model)
    (head,) = (i for i in other.graph.initializer if i.name == "dense/bias")
    head.CopyFrom(onnx.numpy_helper.from_array(np.array([0.3, -0.3], np.float32), head.name))
    with pytest.raises(ExportError, match=r"model.int8.onnx to say what training said"):
        case.bundle(tmp_path / "bundle", dataclasses.replace(made, model=other))
    assert not (tmp_path / "bundle").exists()


def test_without_frozen_int8_there_is_none(case):
    source = dataclasses.replace(case.source, quantised=None)
    made = dataclasses.replace(case, source=source).made()
    assert (made.model, made.gate) == (None, None)
    assert "did not compute" in made.why_not
    graph = classifier_graph(case.served, CLASSES, 1.5)
    made = int8_model(graph, case.source, case.stage, case.trained, mirror=True)
    assert "mirror" in made.why_not


@pytest.mark.parametrize(
    ("wrong", "strange", "fault"),
    [
        (0, 0, ""),
        (2, 0, ""),  # of 1,000: at the bar
        (3, 0, "accuracy lost: 0.0030"),
        (0, 5, ""),
        (0, 6, "refused as neither, more: 0.0060"),
    ],
)
def test_the_gate_by_hand(wrong, strange, fault):
    targets = np.zeros(1000, np.int32)
    before = Trained(np.tile([0.9, 0.1], (1000, 1)), np.full(1000, 0.4))
    after = Trained(before.probabilities.copy(), before.novelty.copy())
    after.probabilities[:wrong] = [0.1, 0.9]
    after.novelty[:strange] = 0.6
    gate = int8_gate(targets, before, after)
    assert gate.labels_changed == pytest.approx(wrong / 1000)
    assert gate.fault().startswith(fault) and bool(gate.fault()) == bool(fault)


def test_labels_changed_to_and_fro_and_lost_calibration_are_found_too():
    targets = np.arange(1000, dtype=np.int32) % 2
    sure = np.where(targets[:, None] == [0, 1], 0.99, 0.01)
    sure[:10] = sure[:10, ::-1]  # ten mistakes
    before = Trained(sure, np.zeros(1000))
    swapped = sure.copy()
    swapped[:20] = sure[:20, ::-1]  # ten mended, ten others made
    gate = int8_gate(targets, before, Trained(swapped, np.zeros(1000)))
    assert gate.accuracy_lost == 0
    assert gate.fault() == "labels changed: 0.0200 of 1000 validation photos, more than 0.005"
    modest = 0.5 + 0.9 * (sure - 0.5)
    assert (
        "calibration error added"
        in int8_gate(targets, before, Trained(modest, before.novelty)).fault()
    )
