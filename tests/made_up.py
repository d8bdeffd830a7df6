"""Run folders of made-up numbers, as training would leave them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from app.config import TrainConfig
from app.config_file import config_values
from app.evaluation import score
from app.findings import write_findings
from app.history import HistoryRow, write_history
from app.manifest import ManifestRow, write_manifest
from app.runs import Run
from app.tables import write_rows

HISTORY = (
    HistoryRow("head", 1, 0.5, 0.8, 0.4, 0.75, 0.0, 1.5),
    HistoryRow("head", 2, 0.25, 0.9, 0.3, 0.85, 0.0, 1.25),
    HistoryRow("block5", 1, 0.125, 0.95, 0.2, 0.9, 1e-5, 10.5),
)


def second_of(n: int, seed: int = 0) -> NDArray[np.float64]:
    """Return probabilities of the second of two classes for photos that alternate between them."""
    noise = np.random.default_rng(seed).normal(0, 0.4, n)
    return np.clip(0.15 + 0.7 * (np.arange(n) % 2) + noise, 0.02, 0.98)


def made_up_run(
    folder: Path,
    second: Sequence[float] | NDArray[np.float64] | None = None,
    *,
    classes: tuple[str, str] = ("cat", "dog"),
    content: str = "",
    config: TrainConfig | None = None,
    metrics: dict[str, Any] | None = None,
) -> Run:
    """Write a run of two classes, 8 photos to train on, 6 to validate and as many as told to test.

    Args:
        folder: of the run; made.
        second: each test photo's probability of the second class; the truths alternate.
        classes: their names.
        content: another text stands for photos of other bytes.
        config: its settings.
        metrics: what counts more than the usual of ``metrics.json``.
    """
    run, config = Run(folder), config or TrainConfig(data=Path("photos"), seed=3)
    run.bundle.mkdir(parents=True)
    (run.bundle / "bundle.json").write_text('{"format_version": 2}', encoding="utf-8")
    run.config.write_text(json.dumps(config_values(config)), encoding="utf-8")
    asked = {"validation": second_of(6), "test": second_of(20) if second is None else second}
    sizes = {"train": 8, **{split: len(values) for split, values in asked.items()}}
    manifest = [
        ManifestRow(name, classes[i % 2], split, _digest(content + name), "used", "", 300, 200)
        for split, size in sizes.items()
        for i, name in enumerate(f"{split}{i}.jpg" for i in range(size))
    ]
    manifest.append(ManifestRow("odd.jpg", classes[0], "", "", "skipped", "damaged: cut short"))
    write_manifest(manifest, run.manifest)
    write_findings([], run.audit)
    write_history(HISTORY, run.history)
    scores, predictions = {}, []
    for split, values in asked.items():
        targets, second = np.arange(len(values)) % 2, np.asarray(values)
        rows = np.stack([1 - second, second], axis=1)
        scores[split] = dataclasses.asdict(score(targets, rows)) | {
            "answers": {"neither": 0.05, "unsure": 0.1, "given": 0.85, "given_wrong": 0.25}
        }
        predictions += [
            {"name": f"{split}{i}.jpg", "split": split, "label": classes[target]}
            | {"answer": classes[int(row.argmax())], "novelty": "0.25"}
            | {f"p_{name}": f"{p:.6g}" for name, p in zip(classes, row, strict=True)}
            for i, (target, row) in enumerate(zip(targets, rows, strict=True))
        ]
    write_rows(predictions, list(predictions[0]), run.predictions)
    usual = {
        "classes": list(classes),
        "photos": sizes,
        "class_weights": None,
        "stages": [_stage("head", 2, scores), _stage("block5", 1, scores)],
        **scores,
        "temperature": 1.25,
        "min_confidence": 0.625,
        "seconds": {"audit": 1.0, "training": 5.0, "total": 7.0},
        "device": "cpu (made up)",
        "backend": "tensorflow",
        "precision": "float32",
        "frozen_precision": "int8",
        "cache": "disk",
        "views": 2,
        "versions": {"python": "3.11.0", "keras": "3.9.9"},
        "finished": "2026-01-31T12:00:00+00:00",
    }
    run.metrics.write_text(json.dumps({**usual, **(metrics or {})}), encoding="utf-8")
    return run


def _stage(name: str, epochs: int, scores: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "trainable_parameters": 2050,
        "epochs": epochs,
        "kept_epoch": epochs,
        "seconds": 3.2,
        "validation": scores["validation"],
        "temperature": 1.0,
    }


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()
