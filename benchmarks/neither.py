"""Does it say neither? The novelty of photos of other things against that of test photos.

    python -m benchmarks.neither --run runs/NAME --neither FOLDER

AUROC (how often a stranger gets a higher novelty than a test photo), the share of either that is
refused, the same for the half of the folder that served to settle the method and for the half that
did not (by SHA-256 of the file's name), and what is said of drawn things: blank pictures, noise,
gradients, stripes, a screenshot of text, and the project's own drawn cats and dogs.

Answers are those of ``predict.py``: the exported model on files.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from sklearn.metrics import roc_auc_score

from app.core.cli import run
from app.core.errors import UsageError
from app.core.labels import NEITHER, UNSURE
from app.core.run_folder import Run
from app.data.folder_layout import files_below
from app.data.sets.synthetic_pets import draw_sample
from app.inference.prediction import Prediction
from app.inference.predictor import Classifier
from app.report.results import read_results
from benchmarks.command import answer
from benchmarks.markdown import markdown_table, verdict

AUROC_BAR, REFUSED_BAR, TEST_BAR = 0.985, 0.90, 0.025
SIDE = 320  # of drawn pictures


def main(argv: Sequence[str]) -> int:
    """Ask about all photos, print the tables; return 0 when the bars are met."""
    arguments = _parser().parse_args(argv)
    finished = Run(arguments.run)
    classifier = Classifier(finished.bundle)
    results = read_results(finished)
    data = arguments.data or results.config.data
    test = answers_of(classifier, [data / name for name in results.predictions["test"].names])
    strangers = answers_of(classifier, files_below(arguments.neither))
    halves: dict[bool, list[Prediction]] = {True: [], False: []}
    for each in strangers:
        halves[used_to_settle(Path(each.path).name)].append(each)
    groups = {"all": strangers, "settled on": halves[True], "not settled on": halves[False]}
    rows = {name: _row(test, some) for name, some in groups.items() if some}
    refused = _refused(test)
    with tempfile.TemporaryDirectory() as folder:
        drawn = {
            kind: answers_of(classifier, paths) for kind, paths in things(Path(folder)).items()
        }
    values: dict[str, Any] = {
        "neither": rows,
        "test": {"n": len(test), "refused": refused},
        "min_confidence": classifier.thresholds.confidence,
        "drawn": {kind: _said(given) for kind, given in drawn.items()},
    }
    met = (
        all(row["auroc"] >= AUROC_BAR for row in rows.values())
        and all(row["refused"] >= REFUSED_BAR for row in rows.values())
        and refused <= TEST_BAR
    )
    answer(arguments, f"{_text(values)}\n\nBars {verdict(met)}.", values)
    return 0 if met else 1


def answers_of(classifier: Classifier, paths: Sequence[Path]) -> list[Prediction]:
    """Return the answers for files; those that cannot be read are left out."""
    given = [each for each in classifier.answers(paths) if each.error is None]
    if not given:
        raise UsageError(f"expected photos; received {len(paths)} files, none that can be read")
    return given


def used_to_settle(name: str) -> bool:
    """Say to which half a photo belongs, by its name."""
    return hashlib.sha256(os.fsencode(name)).digest()[0] % 2 == 0


def things(folder: Path) -> dict[str, list[Path]]:
    """Draw what people send besides photos; return the files by kind."""
    found: dict[str, list[Path]] = {}
    for kind, pictures in _pictures():
        found[kind] = []
        for number, pixels in enumerate(pictures):
            path = folder / f"{kind} {number}.png"
            Image.fromarray(pixels).save(path)
            found[kind].append(path)
    draw_sample(folder / "drawn", per_class=10)
    found["drawn cats and dogs"] = files_below(folder / "drawn")
    return found


def _pictures() -> Iterator[tuple[str, list[np.ndarray[Any, np.dtype[np.uint8]]]]]:
    random = np.random.default_rng(0)
    shape = (SIDE, SIDE, 3)
    yield "blank", [np.full(shape, value, np.uint8) for value in (0, 64, 128, 192, 255)]
    yield "noise", [random.integers(0, 256, shape, np.uint8) for _ in range(10)]
    ramp = np.linspace(0, 255, SIDE).astype(np.uint8)
    across = np.broadcast_to(ramp[None, :, None], shape)
    yield "gradients", [across, across.transpose(1, 0, 2), 255 - across]
    place = np.arange(SIDE)
    stripes = [((place // width) % 2 * 255).astype(np.uint8) for width in (2, 5, 10, 20, 40)]
    yield "stripes", [np.broadcast_to(line[None, :, None], shape) for line in stripes]
    yield "screenshots of text", [_text_picture(random) for _ in range(10)]


def _text_picture(random: np.random.Generator) -> np.ndarray[Any, np.dtype[np.uint8]]:
    image = Image.new("RGB", (480, 640), "white")
    pen = ImageDraw.Draw(image)
    for line in range(10, 630, 14):
        words = ("".join(map(chr, random.integers(97, 123, size))) for size in (5, 9, 2, 7, 6, 4))
        pen.text((10, line), " ".join(words), fill="black")
    return np.asarray(image)


def _row(known: Sequence[Prediction], strangers: Sequence[Prediction]) -> dict[str, float]:
    truth = np.repeat([0, 1], [len(known), len(strangers)])
    novelty = [each.novelty for each in (*known, *strangers)]
    return {
        "n": len(strangers),
        "auroc": float(roc_auc_score(truth, novelty)),
        "refused": _refused(strangers),
    }


def _refused(given: Sequence[Prediction]) -> float:
    return sum(each.label == NEITHER for each in given) / len(given)


def _said(given: Sequence[Prediction]) -> dict[str, Any]:
    labels = [each.label for each in given]
    return {
        "n": len(given),
        "neither": labels.count(NEITHER),
        "unsure": labels.count(UNSURE),
        "lowest novelty": min(each.novelty or 0.0 for each in given),
    }


def _text(values: dict[str, Any]) -> str:
    halves = [
        [name, f"{row['n']}", f"{row['auroc']:.4f}", f"{row['refused']:.3f}"]
        for name, row in values["neither"].items()
    ]
    test = values["test"]
    drawn = [
        [
            kind,
            f"{row['n']}",
            f"{row['neither']}",
            f"{row['unsure']}",
            f"{row['lowest novelty']:.2f}",
        ]
        for kind, row in values["drawn"].items()
    ]
    return "\n\n".join(
        [
            markdown_table(["photos of neither", "n", "AUROC", "refused"], halves),
            f"Of {test['n']} test photos {test['refused']:.4f} are refused.",
            markdown_table(["drawn", "n", "neither", "unsure", "lowest novelty"], drawn),
        ]
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.neither",
        description="Photos of other things: are they told apart, and refused?",
    )
    parser.add_argument("--run", type=Path, required=True, metavar="DIR", help="a finished run")
    parser.add_argument("--neither", type=Path, required=True, metavar="DIR", help="other photos")
    parser.add_argument("--data", type=Path, metavar="DIR", help="default: the run's data folder")
    parser.add_argument(
        "--json", action="store_true", help="JSON on stdout, the tables on stderr instead"
    )
    return parser


if __name__ == "__main__":
    sys.exit(run(main))
