"""What ``test_backends.py`` runs under each backend, in a process of its own.

    KERAS_BACKEND=jax python tests/one_backend.py {train,answer,devices} FOLDER

The other backends are hidden, as on a machine that does not have them.
"""

from __future__ import annotations

import json
import os
import sys
from importlib.machinery import PathFinder
from pathlib import Path
from unittest.mock import patch

ROOT = Path(__file__).parent.parent
BACKENDS = ("tensorflow", "torch", "jax")
# Both sources of input, the open blocks in two ways.
ROADS = {
    "cached": ["--stages", "head,block4", "--cache", "disk"],
    "fresh": ["--stages", "head,block5", "--cache", "off"],
}
# 64 pixels, or XLA's convolutions take long; three epochs, or nothing is learned.
SMALL = ["--weights", "none", "--image-size", "64", "--epochs", "3", "--no-report"]


def main(task: str, folder: Path) -> int:
    """Do a task; everything it makes lies in ``folder``."""
    chosen = os.environ["KERAS_BACKEND"]
    hide({*BACKENDS} - {chosen})
    sys.path.insert(0, str(ROOT))
    return {"train": train, "answer": answer, "devices": devices}[task](folder, chosen)


def precision(road: str, backend: str) -> str:
    """Return bfloat16 for one of the roads, unless the backend refuses it."""
    return "bfloat16" if road == "cached" and backend != "jax" else "float32"


def hide(packages: set[str]) -> None:
    """Let Python not find some installed packages."""
    find = PathFinder.find_spec
    PathFinder.find_spec = classmethod(  # type: ignore[method-assign, assignment]
        lambda _, name, *more: None if name.split(".")[0] in packages else find(name, *more)
    )


def train(folder: Path, backend: str) -> int:
    """Walk both roads; then train ``small_vgg`` from given weights, and write how far they go."""
    import app.network.vgg
    import train as command
    from app.core.cli import run

    for name, flags in ROADS.items():
        argv = ["--data", str(folder / "photos"), "--runs", str(folder / backend), "--run", name]
        argv += ["--precision", precision(name, backend)]
        with patch.object(
            app.network.vgg, "FILTERS", (8, 16, 32, 64, 64)
        ):  # all layers, but thin ones
            code = run(command.main, [*argv, *SMALL, *flags])
        if code != 0:
            return code

    import numpy as np
    from small_vgg import config_of, small_network, trained_by, twelve_photos, walk_stages

    with small_network():
        walk = walk_stages(config_of(folder / backend), twelve_photos(folder / backend / "twelve"))
        moves = {
            f"{stage}/{source}/{layer}/{number}": after[layer, number] - before[layer, number]
            for stage, before in walk.before.items()
            for source, after in walk.after[stage].items()
            for layer, number in trained_by(stage, before)
        }
    np.savez(folder / backend / "moves.npz", **moves)
    return 0


def devices(folder: Path, backend: str) -> int:
    """Train with one device and with two; print on how many the photos of a batch lay."""
    import numpy as np

    import app.network.vgg
    import train as command
    from app.core.cli import run

    for count in ("1", "2"):
        argv = ["--data", str(folder / "photos"), "--runs", str(folder / "devices"), *SMALL]
        argv += ["--run", count, "--devices", count, "--precision", "float32"]
        with patch.object(app.network.vgg, "FILTERS", (8, 16, 32, 64, 64)):
            code = run(command.main, [*argv, *ROADS["cached"]])
        if code != 0:
            return code
    from app.network.classifier import build_classifier
    from app.network.whole_batches import compute_of

    outputs = compute_of(build_classifier(2, image_size=32))(np.zeros((4, 32, 32, 3), np.uint8))
    print("photos on", sorted(len(shard.data) for shard in outputs.addressable_shards))
    return 0


def answer(folder: Path, backend: str) -> int:
    """Ask every ``classifier.keras`` below ``folder`` about the same images."""
    import keras
    import numpy as np

    images = np.load(folder / "images.npy")
    answers = {
        str(path.parent): keras.saving.load_model(path, compile=False)
        .predict_on_batch(images)["logits"]
        .tolist()
        for path in sorted(folder.glob("*/*/bundle/classifier.keras"))
    }
    (folder / f"logits-{backend}.json").write_text(json.dumps(answers))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2])))
