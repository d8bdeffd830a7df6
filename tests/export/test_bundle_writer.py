import json
import shutil
from dataclasses import replace

import keras
import numpy as np
import onnxruntime
import pytest
from photos import as_photo
from PIL import Image
from small_vgg import few_channels

from app.core.errors import BundleError, ExportError
from app.data.augmentation import View, load_views
from app.evaluation.decision import Thresholds
from app.evaluation.metrics import probabilities_of
from app.evaluation.ood import KnnOodDetector, unit_length
from app.evaluation.outlier_classifier import OutlierClassifier
from app.evaluation.prediction_set import PredictionSet
from app.export.bundle_writer import check_parity, classifier_graph, export_bundle
from app.features.extractor import make_extractor
from app.inference.bundle_format import FORMAT_VERSION, Bundle, file_sha256
from app.inference.predictor import Classifier
from app.network.classifier import CUTS, build_classifier, prefix
from app.network.onnx_graph import to_onnx

SIZE, CLASSES = 32, ["bee", "cat", "dog"]
CHANNELS = 64


@pytest.fixture(scope="module")
def model() -> keras.Model:
    keras.utils.set_random_seed(0)
    generator = np.random.default_rng(0)
    reference = unit_length(np.maximum(generator.normal(size=(20, CHANNELS)), 0))
    # It decides for four of the nine views, the distance for the others.
    shown = OutlierClassifier(generator.normal(size=CHANNELS).astype(np.float32), bias=-0.5)
    novelty = KnnOodDetector(reference, 3, threshold=0.45, scale=0.05, outliers=shown)
    with few_channels(CHANNELS):
        model = build_classifier(3, image_size=SIZE, temperature=1.7, novelty=novelty)
    model.get_layer("dense").set_weights(
        [generator.normal(size=(CHANNELS**2, 3)), generator.normal(size=3)]
    )
    return model


@pytest.fixture(scope="module")
def views(tmp_path_factory) -> list[View]:
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(1)
    result = []
    for number in range(9):
        path = folder / f"{number}.png"
        Image.fromarray(generator.integers(0, 256, (40, 50, 3), np.uint8)).save(path)
        result.append(View(as_photo(path), 0, seed=0))
    return result


@pytest.fixture(scope="module")
def trained(model, views) -> PredictionSet:
    outputs = model.predict(load_views(views, SIZE), verbose=0)
    return PredictionSet(
        tuple(view.photo.name for view in views),
        np.zeros(len(views), np.int32),
        probabilities_of(outputs["logits"]),
        outputs["novelty"][:, 0],
    )


@pytest.fixture(scope="module")
def bundle(model, views, trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export") / "bundle"
    parity = export_bundle(
        model,
        classifier_graph(model, CLASSES, 1.7),
        folder,
        classes=CLASSES,
        image_size=SIZE,
        temperature=1.7,
        thresholds=Thresholds(0.6),
        photos=views,
        trained=trained,
    )
    assert parity.photos == len(views)
    return folder


def test_the_bundle_describes_itself(bundle):
    assert sorted(path.name for path in bundle.iterdir()) == [
        "bundle.json",
        "classifier.keras",
        "model.onnx",
    ]
    about = Bundle.read(bundle)
    assert about.classes == ("bee", "cat", "dog")
    assert (about.image_size, about.temperature) == (SIZE, 1.7)
    assert about.thresholds == {"novelty": 0.5, "confidence": 0.6}
    assert {"python", "keras", "onnxruntime"} <= set(about.versions)
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(about.classes)


def test_array_batch_keras_and_onnx_agree(bundle, views, trained):
    classifier = Classifier(bundle)
    images = load_views(views, SIZE)
    batch, novelty = classifier.outputs(images)
    assert np.ptp(novelty) > 0.01
    saved = keras.models.load_model(bundle / "classifier.keras").predict(images, verbose=0)
    alone = [np.concatenate(x) for x in zip(*(classifier.outputs(i[None]) for i in images))]  # noqa: B905
    files = list(classifier.answers(v.photo.path for v in views))
    for probabilities, strange in (
        alone,
        (trained.probabilities, trained.novelty),
        (probabilities_of(saved["logits"]), saved["novelty"][:, 0]),
        ([list(a.probabilities.values()) for a in files], [a.novelty for a in files]),
    ):
        np.testing.assert_allclose(probabilities, batch, atol=1e-5)
        np.testing.assert_allclose(strange, novelty, atol=1e-4)


@pytest.mark.parametrize("cut", CUTS)
def test_the_frozen_prefix_agrees_with_keras(model, views, cut):
    images = load_views(views, SIZE)
    by_keras = prefix(model, [cut]).predict(images, verbose=0)
    (by_onnx,) = make_extractor(model, [cut], "float32")(images)
    np.testing.assert_allclose(by_onnx, by_keras, rtol=1e-3, atol=1e-4)
    (rounded,) = make_extractor(model, [cut], "bfloat16")(images)  # Keras's road, same model
    np.testing.assert_allclose(rounded, by_keras, rtol=1e-3, atol=1e-4)


def test_onnxruntime_clips_what_float16_cannot_hold_and_keeps_nan(model, views):
    images = load_views(views[:2], SIZE)
    before = model.get_layer("block5_conv3").get_weights()
    kernel, bias = before
    try:
        model.get_layer("block5_conv3").set_weights([kernel, bias + np.float32(1e6)])
        (rows,) = make_extractor(model, ["block5_pool"], "float32")(images)
        assert (rows == np.float16(65504)).all()
        model.get_layer("block5_conv3").set_weights([kernel * np.nan, bias])
        (rows,) = make_extractor(model, ["block5_pool"], "float32")(images)
        assert np.isnan(rows).all()
    finally:
        model.get_layer("block5_conv3").set_weights(before)


def test_several_cuts_come_from_one_pass(model, views):
    outputs = make_extractor(model, ["block5_pool", "block4_pool"], "float32")(
        load_views(views, SIZE)
    )
    assert [output.shape for output in outputs] == [(9, 1, 1, CHANNELS), (9, 2, 2, CHANNELS)]


def test_a_disagreeing_bundle_is_not_written(model, views, trained, tmp_path):
    """Contract 6: break the ONNX writer by a little, and nothing appears."""
    other = keras.models.clone_model(model)
    other.set_weights([w + 0.01 for w in model.get_weights()])
    with pytest.raises(ExportError, match=r"agree .* no bundle was written"):
        export_bundle(
            model,
            classifier_graph(other, CLASSES, 1.7),
            tmp_path / "bundle",
            classes=CLASSES,
            image_size=SIZE,
            temperature=1.7,
            thresholds=Thresholds(0.6),
            photos=views,
            trained=trained,
        )
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_differs_from_training_is_refused(bundle, views, trained):
    rolled = np.roll(trained.probabilities, 1, axis=1)
    for other in (
        replace(trained, probabilities=rolled),
        replace(trained, probabilities=rolled * np.nan),
        replace(trained, novelty=trained.novelty + 0.1),
        replace(trained, novelty=trained.novelty * np.nan),
    ):
        with pytest.raises(ExportError, match="predict what training predicted"):
            check_parity(bundle, views, other)


def test_a_photo_that_excites_nothing_has_an_answer(model, views):
    """Its descriptor has no direction: a length of 0 must not become NaN."""
    layer = model.get_layer("block5_conv3")
    before = layer.get_weights()
    try:
        layer.set_weights([weights * 0 for weights in before])
        proto = to_onnx(model, ["logits", "novelty"])
        expected = model.predict(load_views(views[:2], SIZE), verbose=0)
    finally:
        layer.set_weights(before)
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    logits, novelty = session.run(["logits", "novelty"], {"image": load_views(views[:2], SIZE)})
    np.testing.assert_allclose(logits, expected["logits"], atol=1e-4)
    np.testing.assert_allclose(novelty, expected["novelty"], atol=1e-6)
    assert novelty.min() > 0.99


def test_files_that_differ_in_novelty_alone_are_refused(bundle, views, trained, monkeypatch):
    outputs = Classifier.outputs

    def moved(self, images):
        probabilities, novelty = outputs(self, images)
        return probabilities, novelty + np.float32(0.02)

    monkeypatch.setattr(Classifier, "outputs", moved)
    with pytest.raises(ExportError, match=r"to agree on 9 photos .* 0 other labels"):
        check_parity(bundle, views, trained)


def test_activation_maps_that_do_not_add_up_are_refused(bundle, views, trained, monkeypatch):
    maps = Classifier.activation_maps
    monkeypatch.setattr(Classifier, "activation_maps", lambda self, x: 1.2 * maps(self, x))
    with pytest.raises(ExportError, match=r"0 other labels, .* \(activation maps\)"):
        check_parity(bundle, views, trained)


def test_an_unknown_layer_is_an_error_not_a_guess():
    image = keras.Input((8, 8, 3))
    with pytest.raises(ExportError, match="received LeakyReLU"):
        to_onnx(keras.Model(image, keras.layers.LeakyReLU()(image)), ["logits"])
    for layer, words in (
        (keras.layers.Conv2D(2, 1, padding="same", activation="gelu"), "received gelu"),
        (keras.layers.Conv2D(2, 3), "padding same"),
        (keras.layers.Conv2D(2, 3, padding="same", strides=2), "stride"),
        (keras.layers.Conv2D(2, 3, padding="same", dilation_rate=2), "dilation"),
        (keras.layers.MaxPooling2D(2, padding="same"), "padding valid"),
        (keras.layers.GlobalMaxPooling2D(keepdims=True), "without keepdims"),
        (keras.layers.Activation("tanh"), "received tanh"),
    ):
        with pytest.raises(ExportError, match=words):
            to_onnx(keras.Model(image, layer(image)), ["x"])


@pytest.fixture
def own_bundle(bundle, tmp_path):
    """A copy to spoil, without the Keras file, which prediction does not read."""
    for name in ("model.onnx", "bundle.json"):
        shutil.copy(bundle / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", ["model.onnx", "bundle.json"])
def test_a_missing_file_is_one_clear_error(own_bundle, name):
    (own_bundle / name).unlink()
    with pytest.raises(BundleError, match=name):
        Classifier(own_bundle)


def test_a_changed_model_is_refused(own_bundle):
    path = own_bundle / "model.onnx"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(BundleError, match="SHA-256"):
        Classifier(own_bundle)


def test_a_model_that_does_not_run_is_one_clear_error(own_bundle):
    (own_bundle / "model.onnx").write_bytes(b"no model")
    about = json.loads((own_bundle / "bundle.json").read_text())
    about["sha256"]["model.onnx"] = file_sha256(own_bundle / "model.onnx")
    (own_bundle / "bundle.json").write_text(json.dumps(about))
    with pytest.raises(BundleError, match="ONNX Runtime and OpenVINO can run"):
        Classifier(own_bundle)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format_version": 1}',
        f'{{"format_version": {FORMAT_VERSION}}}',
        "\0",
        '{"classes": 3}',
    ],
)
def test_a_damaged_description_is_one_clear_error(tmp_path, text):
    (tmp_path / "bundle.json").write_text(text)
    with pytest.raises(BundleError, match=r"^expected .*bundle\.json"):
        Bundle.read(tmp_path)
