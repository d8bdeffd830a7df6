"""Other formats of a run: made by their libraries, compared before they appear."""

import json
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from photos import drawn_photos, make_photo, picture
from PIL import Image, ImageOps
from small_vgg import small_network

import app.core.environment
import app.export.formats
import train
from app.core.cli import run
from app.core.config import FORMATS
from app.core.errors import UsageError
from app.core.run_folder import Run
from app.data.decode import load_image
from app.evaluation.metrics import probabilities_of
from app.evaluation.ood import KnnOodDetector
from app.export.formats import BY_NAME, _export, _with_probabilities, main, require_formats
from app.inference.bundle_format import FORMAT_VERSION, Bundle
from app.inference.predictor import Classifier
from app.network.classifier import build_classifier


def test_every_format_has_a_writer():
    assert tuple(BY_NAME) == FORMATS


def test_what_is_missing_is_one_line_that_names_it(monkeypatch):
    with pytest.raises(UsageError, match="received 'tflite'"):
        require_formats(["tflite"])
    with pytest.raises(UsageError, match="each format once"):
        require_formats(["openvino", "openvino"])
    monkeypatch.setattr(
        app.core.environment, "find_spec", lambda name: None if name == "openvino" else 1
    )
    with pytest.raises(UsageError, match=r"pip install openvino$"):
        require_formats(["openvino"])
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    with pytest.raises(UsageError, match="KERAS_BACKEND=tensorflow"):
        require_formats(["savedmodel"])


def test_a_folder_without_a_run_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(app.core.environment, "find_spec", lambda name: 1)
    assert run(main, [str(tmp_path), "openvino"]) == 2
    assert "expected a finished run" in capsys.readouterr().err


def answer_as_described(folder: Path, name: str, photo: Path) -> str:
    """Answer as a program would that knows the folder's two descriptions and the runtime only."""
    about = json.loads((folder / "model.json").read_text())
    labels = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert (folder / about["model"]).exists()
    assert about["input"]["range"] == [0, 255]
    _, *square, channels = about["input"]["shape"]
    with Image.open(photo) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
        pixels = np.asarray(upright.resize(square, Image.Resampling.BILINEAR))
    assert pixels.shape[2] == channels
    found = BY_NAME[name].read(folder)(pixels[None].astype(about["input"]["dtype"]))
    assert set(found) == set(about["outputs"])
    (probabilities,), ((novelty,),) = (np.asarray(found[n]) for n in ("probabilities", "novelty"))
    assert about["temperature_is_inside"]
    if novelty > about["thresholds"]["novelty"]:
        return "neither"
    if probabilities.max() < about["thresholds"]["confidence"]:
        return "unsure"
    return labels[probabilities.argmax()]


def test_a_savedmodel_says_how_it_is_used(tmp_path):
    """Quickly, with a tiny network; a name may hold what would be another line."""
    run = Run(tmp_path)
    run.bundle.mkdir()
    distances = KnnOodDetector(np.eye(3, 8, dtype=np.float32), 1, threshold=0.9, scale=0.5)
    with small_network():
        saved = build_classifier(3, image_size=64, novelty=distances, temperature=2.0)
    limits = {"novelty": 0.5, "confidence": 0.2}
    names = ("cat", "two\nlines", "caf\udce9")
    bundle = Bundle(FORMAT_VERSION, names, 64, 2.0, limits, {}, {}, "")
    model, pixels = _with_probabilities(saved), np.stack([np.asarray(picture(0, (64, 64)))] * 2)
    expected = model.predict_on_batch(pixels)
    folder = _export(run, bundle, "savedmodel", model, pixels, expected)
    lines = (folder / "labels.txt").read_text(encoding="utf-8").splitlines()
    assert lines == ["cat", "two\\nlines", "caf\ufffd"]
    about = json.loads((folder / "model.json").read_text())
    assert (tuple(about["classes"]), about["temperature"]) == (names, 2.0)
    assert about["thresholds"] == limits
    assert about["input"]["shape"] == ["photos", 64, 64, 3]
    photo = make_photo(tmp_path / "a.png", 3, (100, 80))
    novelty = float(model.predict_on_batch(load_image(photo, 64)[None])["novelty"].item())
    answer = answer_as_described(folder, "savedmodel", photo)
    assert answer == ("neither" if novelty > 0.5 else "cat")  # its head has zeros for weights


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Run:
    photos = drawn_photos(tmp_path_factory.mktemp("data") / "drawn")
    runs = tmp_path_factory.mktemp("runs")
    argv = ["--data", str(photos), "--runs", str(runs), "--run", "r", "--no-report"]
    flags = ["--weights", "none", "--image-size", "64", "--stages", "head"]
    assert run(train.main, [*argv, *flags]) == 0
    return Run(runs / "r")


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMATS)
def test_a_format_says_what_the_trained_model_says(trained, name, capfd, monkeypatch):
    if find_spec(BY_NAME[name].package.replace("-", "_")) is None:
        pytest.skip(f"{BY_NAME[name].package} is not installed")
    write = BY_NAME[name].write
    monkeypatch.setitem(BY_NAME, name, spoilt(BY_NAME[name]))
    assert run(main, [str(trained.folder), name]) == 1
    assert "it was not written" in capfd.readouterr().err
    assert not (trained.exports / name).exists()

    def fails(*_: object) -> None:
        raise RuntimeError("a library's\nown words")

    monkeypatch.setitem(BY_NAME, name, replace(BY_NAME[name], write=fails))
    assert run(main, [str(trained.folder), name]) == 1
    assert "RuntimeError: a library's own words" in capfd.readouterr().err
    monkeypatch.undo()
    assert BY_NAME[name].write is write
    assert run(main, [str(trained.folder), name]) == 0
    assert capfd.readouterr().out == f"{trained.exports / name}\n"
    classifier = Classifier(trained.bundle, precision="float32")
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), np.uint8)
    probabilities, novelty = classifier.outputs(pixels)
    found = BY_NAME[name].read(trained.exports / name)(pixels)
    np.testing.assert_allclose(np.asarray(found["probabilities"]), probabilities, atol=1e-3)
    np.testing.assert_allclose(
        probabilities_of(np.asarray(found["logits"])), probabilities, atol=1e-3
    )
    np.testing.assert_allclose(np.asarray(found["novelty"])[:, 0], novelty, atol=1e-2)

    root = Path(json.loads(trained.config.read_text())["data"])
    photos = sorted(root.glob("*/*.jpg"))[::7]
    answers = Classifier(trained.bundle, precision="float32").answers(photos)
    for photo, wanted in zip(photos, answers, strict=True):
        assert answer_as_described(trained.exports / name, name, photo) == wanted.label

    assert run(main, [str(trained.folder), name]) == 2  # nothing is overwritten
    assert "that are not there yet" in capfd.readouterr().err


def spoilt(kind: app.export.formats.Format) -> app.export.formats.Format:
    """Return a format whose answers are those to the picture upside down, in other colours."""

    def read(folder: Path) -> app.export.formats.PredictFunction:
        answer = kind.read(folder)
        return lambda images: answer(255 - images)

    return replace(kind, read=read)


@pytest.mark.slow
def test_one_format_that_fails_leaves_the_others(trained, capfd, monkeypatch):
    if find_spec("openvino") is None:
        pytest.skip("openvino is not installed")
    shutil.rmtree(trained.exports, ignore_errors=True)
    monkeypatch.setitem(BY_NAME, "savedmodel", spoilt(BY_NAME["savedmodel"]))
    assert run(main, [str(trained.folder), "savedmodel,openvino"]) == 1
    assert f"again: python -m app export {trained.folder} savedmodel\n" in capfd.readouterr().err
    assert [path.name for path in trained.exports.iterdir()] == ["openvino"]


@pytest.mark.slow
def test_photos_that_have_gone_are_one_line(trained, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(app.core.environment, "find_spec", lambda name: 1)
    shutil.rmtree(trained.exports, ignore_errors=True)  # what the tests before have left
    values = json.loads(trained.config.read_text())
    kept = trained.config.read_text()
    trained.config.write_text(json.dumps({**values, "data": str(tmp_path / "gone")}))
    try:
        assert run(main, [str(trained.folder), "savedmodel"]) == 2
    finally:
        trained.config.write_text(kept)
    assert "expected --data to be a folder" in capsys.readouterr().err
