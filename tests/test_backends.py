"""The same road under each backend of Keras that is installed; the others are skipped."""

import json
import os
import subprocess
import sys
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from one_backend import BACKENDS, ROADS, precision
from PIL import Image

from app.core.run_folder import Run
from app.core.run_metrics import read_history
from app.data.decode import load_image
from app.data.sets.synthetic_pets import draw_sample
from app.evaluation.metrics import probabilities_of
from app.export.bundle_writer import GATE_TOLERANCE
from app.inference.predictor import Classifier

pytestmark = pytest.mark.backends
# Of how far the weights move in a stage. Seen: 0.006; numbers are added in another order, and Adam
# turns the sign of a gradient near 0 into a whole step. With other photos in a batch it is 0.7.
TOLERANCE = 0.02
ROOT = Path(__file__).parent.parent
INSTALLED = [name for name in BACKENDS if find_spec(name)]
each_backend = pytest.mark.parametrize(
    "backend",
    [
        pytest.param(
            name,
            marks=pytest.mark.skipif(name not in INSTALLED, reason=f"{name} is not installed"),
        )
        for name in BACKENDS
    ],
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Photos, and in a folder for each backend what it made of them."""
    result = tmp_path_factory.mktemp("backends")
    draw_sample(result / "photos", per_class=12)
    paths = sorted((result / "photos").glob("*/*.jpg"))
    for path in paths:
        if path.parent.name == "dog":  # bluish: random filters see colours, not shapes
            with Image.open(path) as image:
                Image.blend(image, Image.new("RGB", image.size, "navy"), 0.7).save(path)
    np.save(result / "images.npy", np.stack([load_image(path, 64) for path in paths[::3]]))
    return result


@pytest.fixture(scope="module")
def done(folder):
    """Do a task of ``one_backend.py`` under a backend, once; return what it said."""

    @lru_cache
    def finished(task: str, backend: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "tests/one_backend.py", task, folder],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": backend},
            capture_output=True,
            text=True,
            timeout=300,
        )

    def do(task: str, backend: str) -> str:
        process = finished(task, backend)
        assert process.returncode == 0, process.stderr
        return process.stdout + process.stderr

    return do


@each_backend
@pytest.mark.parametrize("road", ROADS)
def test_the_road_is_walked_to_its_end(done, folder, backend, road):
    said = done("train", backend)
    assert "Traceback" not in said
    run = Run(folder / backend / road)
    metrics = json.loads(run.metrics.read_text())
    assert metrics["backend"] == backend
    assert backend in metrics["versions"]
    assert metrics["cache"] == {"cached": "disk", "fresh": "off"}[road]
    assert metrics["precision"] == precision(road, backend)
    assert metrics["device"].split()[0] in ("cpu", "gpu")
    stages = ROADS[road][1].split(",")
    assert [stage["name"] for stage in metrics["stages"]] == stages


@each_backend
def test_what_it_made_answers_alike_under_any_backend_and_under_none(done, folder, backend):
    """The ONNX file needs no backend; ``classifier.keras`` of each is read under this one."""
    for maker in INSTALLED:
        done("train", maker)
    done("answer", backend)
    logits = json.loads((folder / f"logits-{backend}.json").read_text())
    assert len(logits) == len(INSTALLED) * len(ROADS)
    images = np.load(folder / "images.npy")
    for bundle, values in logits.items():
        expected, _ = Classifier(Path(bundle)).outputs(images)
        assert np.ptp(expected[:, 0]) > 0.01, "it says the same of every photo"
        np.testing.assert_allclose(
            probabilities_of(np.array(values)), expected, atol=GATE_TOLERANCE, err_msg=bundle
        )


@each_backend
def test_each_stage_trains_the_same_as_under_the_others(done, folder, backend):
    """From the same weights, with the same photos in the same order."""
    (first, *_) = INSTALLED
    if backend == first:
        pytest.skip(f"{backend} is what the others are compared with")
    for name in (first, backend):
        done("train", name)
    one, other = (np.load(folder / name / "moves.npz") for name in (first, backend))
    assert len(one) > 0
    assert set(one) == set(other)
    for key in one:
        share = np.linalg.norm(other[key] - one[key]) / np.linalg.norm(one[key])
        assert share <= TOLERANCE, key


@pytest.mark.skipif("jax" not in INSTALLED, reason="jax is not installed")
def test_two_devices_give_the_figures_of_one(folder):
    """JAX lets one processor pass for two devices."""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    process = subprocess.run(
        [sys.executable, "tests/one_backend.py", "devices", folder],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags.strip()},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines()[-1] == "photos on [2, 2]"
    one, two = (read_history(Run(folder / "devices" / count).history) for count in ("1", "2"))
    assert len(one) == len(two) > 4
    for first, second in zip(one, two, strict=True):
        assert second.loss == pytest.approx(first.loss, rel=1e-3)
        assert second.validation_loss == pytest.approx(first.validation_loss, rel=1e-3)


@each_backend
def test_more_devices_than_there_are_get_one_line(folder, backend):
    process = subprocess.run(
        [sys.executable, "train.py", "--data", folder / "photos", "--devices", "64"],
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 2
    (line,) = [line for line in process.stderr.splitlines() if line.startswith("error:")]
    assert "expected --devices" in line
