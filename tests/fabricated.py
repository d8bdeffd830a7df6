"""A run folder of made-up numbers, and its photos of one telltale colour."""

from __future__ import annotations

import base64
import csv
import dataclasses
import hashlib
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from app.config import TrainConfig
from app.config_file import config_values
from app.evaluation import score
from app.findings import Finding, write_findings
from app.manifest import ManifestRow, write_manifest
from app.runs import Run

CLASSES = ("cat", "dog & <b>wolf</b>")
SPLITS = {"train": 40, "validation": 20, "test": 30}
FOUND = [
    Finding("cat/train0.jpg", "label", 1, 0.9, "labelled cat; looks like <b>"),
    Finding("dog/train1.jpg", "stranger", 1, 0.4, "unlike all others"),
]
TELLTALE = (255, 0, 255)  # the colour of the made-up photos; drawings have nothing like it


def made_up_photo() -> bytes:
    """Return a JPEG of one colour, which is found again wherever it is shown."""
    file = io.BytesIO()
    Image.new("RGB", (60, 40), TELLTALE).save(file, "JPEG", quality=95)
    return file.getvalue()


def pictures(page: str) -> list[NDArray[np.uint8]]:
    """Return all JPEGs in a page or notebook, decoded."""
    found = re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", page)
    files = (io.BytesIO(base64.b64decode(text)) for text in found)
    return [np.asarray(Image.open(file).convert("RGB")) for file in files]


def shows_the_photo(pixels: NDArray[np.uint8]) -> bool:
    """Say whether a picture has the made-up photo's colour, lighter or darker, anywhere."""
    red, green, blue = np.moveaxis(pixels.astype(int), -1, 0)
    return bool(((np.minimum(red, blue) - green) > 150).any())


def fabricate(
    folder: Path, data: Path = Path("my photos"), classes: Sequence[str] = CLASSES
) -> Run:
    """Write a run folder of made-up numbers, as training would leave it; ``data`` is not made."""
    rng = np.random.default_rng(7)
    run = Run(folder)
    run.bundle.mkdir(parents=True)
    (run.bundle / "bundle.json").write_text("{}", encoding="utf-8")
    config = TrainConfig(data=data, seed=3, stages=("head",), epochs=2)
    run.config.write_text(json.dumps(config_values(config)), encoding="utf-8")
    digest = hashlib.sha256(made_up_photo()).hexdigest()
    manifest, predictions, scores = [], [], {}
    for split, n in SPLITS.items():
        n *= max(1, len(classes) // 4)
        targets = np.arange(n) % len(classes)
        likely = np.eye(len(classes))[targets] + np.abs(rng.normal(0, 1.2, (n, len(classes))))
        probabilities = likely**2 / (likely**2).sum(axis=1, keepdims=True)
        if split != "train":
            answers = {"neither": 0.05, "unsure": 0.1, "given": 0.85, "given_wrong": None}
            scores[split] = dataclasses.asdict(score(targets, probabilities)) | {"answers": answers}
        for i, (target, row) in enumerate(zip(targets, probabilities, strict=True)):
            label, name = classes[target], f"{'cat' if target == 0 else 'dog'}/{split}{i}.jpg"
            manifest.append(
                ManifestRow(name, label, split, digest, "used", "", 300 + i, 200 + i)  # type: ignore[arg-type]
            )
            if split != "train":
                answer = classes[int(row.argmax())]
                p = {f"p_{c}": f"{x:.6g}" for c, x in zip(classes, row, strict=True)}
                predictions.append(
                    {"name": name, "split": split, "label": label, "answer": answer, **p}
                    | {"novelty": f"{rng.uniform(0, 0.6):.4f}"}
                )
    manifest.append(ManifestRow("cat/b\udcffd.jpg", "cat", "", "", "skipped", "damaged: cut short"))
    write_manifest(manifest, run.manifest)
    write_findings(FOUND, run.audit)
    history = [
        {
            "stage": "head",
            "epoch": epoch,
            "loss": 0.5 / epoch,
            "accuracy": 0.8,
            "validation_loss": 0.4 / epoch,
            "validation_accuracy": 0.7 + 0.05 * epoch,
            "learning_rate": 0.001,
            "seconds": 1.5,
        }
        for epoch in (1, 2)
    ]
    for rows, path in ((predictions, run.predictions), (history, run.history)):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    metrics = {
        "classes": list(classes),
        "photos": SPLITS,
        "class_weights": {classes[0]: 0.625, classes[1]: 2.5},
        "stages": [
            {
                "name": "head",
                "trainable_parameters": 2050,
                "epochs": 2,
                "kept_epoch": 2,
                "seconds": 3.2,
                "validation": scores["validation"],
            }
        ],
        **scores,
        "temperature": 1.25,
        "min_confidence": 0.625,
        "seconds": {"audit": 1.0, "training": 5.0, "total": 7.0},
        "memory": {"audit": 200_000_000, "training": 2_400_000_000},
        "device": "cpu (made up)",
        "backend": "tensorflow",
        "precision": "float32",
        "frozen_precision": "int8",
        "cache": "disk",
        "views": 3,
        "versions": {"python": "3.11.0", "keras": "3.9.9"},
        "finished": "2026-01-31T12:00:00+00:00",
    }
    run.metrics.write_text(json.dumps(metrics), encoding="utf-8")
    return run
