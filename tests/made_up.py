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
from photos import telltale_photo

from app.core.atomic_files import write_json, write_rows
from app.core.config import TrainConfig, config_values
from app.core.run_folder import Run
from app.core.run_metrics import HistoryRow, write_history
from app.data.manifest import ManifestRow, Split, write_manifest
from app.evaluation.findings import Finding, write_findings
from app.evaluation.metrics import score

HISTORY = (
    HistoryRow("head", 1, 0.5, 0.8, 0.4, 0.75, 0.0, 1.5),
    HistoryRow("head", 2, 0.25, 0.9, 0.3, 0.85, 0.0, 1.25),
    HistoryRow("block5", 1, 0.125, 0.95, 0.2, 0.9, 1e-5, 10.5),
)
CLASSES = ("cat", "dog & <b>wolf</b>")
SPLITS = {"train": 40, "validation": 20, "test": 30}
FOUND = (
    Finding("cat/train0.jpg", "label", 1, 0.9, "labelled cat; looks like <b>"),
    Finding("dog/train1.jpg", "outlier", 1, 0.4, "unlike all others"),
)


def second_of(n: int, seed: int = 0) -> NDArray[np.float64]:
    """Return probabilities of the second of two classes for photos that alternate between them."""
    noise = np.random.default_rng(seed).normal(0, 0.4, n)
    return np.clip(0.15 + 0.7 * (np.arange(n) % 2) + noise, 0.02, 0.98)


def likely(n: int, classes: int) -> NDArray[np.float64]:
    """Return probabilities ``(n, classes)`` for photos that take turns, most of them right."""
    rng = np.random.default_rng(7)
    scores = np.eye(classes)[np.arange(n) % classes] + np.abs(rng.normal(0, 1.2, (n, classes)))
    found: NDArray[np.float64] = scores**2 / (scores**2).sum(axis=1, keepdims=True)
    return found


def made_up_photos(folder: Path, splits: dict[str, int]) -> Path:
    """Write the photos of ``run_with_photos``, as many of each split as told."""
    for split, n in splits.items():
        for i in range(n):
            path = folder / _name(split, i, len(CLASSES))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(telltale_photo())
    return folder


def run_with_photos(
    folder: Path,
    data: Path = Path("my photos"),
    classes: Sequence[str] = CLASSES,
    **settings: Any,
) -> Run:
    """Write a run for a report: its photos are those of ``made_up_photos``, which are not made."""
    sizes = {split: n * max(1, len(classes) // 4) for split, n in SPLITS.items()}
    return made_up_run(
        folder,
        likely(sizes["test"], len(classes)),
        classes=classes,
        config=TrainConfig(data=data, seed=3, epochs=2, **settings),
        photo=telltale_photo(),
        train=sizes["train"],
        validation=sizes["validation"],
        findings=FOUND,
        metrics={
            "class_weights": {classes[0]: 0.625, classes[1]: 2.5},
            "memory": {"audit": 200_000_000, "training": 2_400_000_000},
            "views": 3,
        },
    )


def made_up_run(
    folder: Path,
    probabilities: Sequence[float] | NDArray[np.float64] | None = None,
    *,
    classes: Sequence[str] = ("cat", "dog"),
    config: TrainConfig | None = None,
    content: str = "",
    photo: bytes | None = None,
    train: int = 8,
    validation: int = 6,
    findings: Sequence[Finding] = (),
    metrics: dict[str, Any] | None = None,
) -> Run:
    """Write a run, its photos taking turns among the classes.

    Args:
        folder: of the run; made.
        probabilities: of each test photo, ``(n, classes)`` or those of the second of two.
        classes: their names.
        config: its settings.
        content: another text stands for photos of other bytes.
        photo: the bytes of all photos, which else differ from each other.
        train: number of training photos.
        validation: the same of validation.
        findings: for ``audit.csv``.
        metrics: what counts more than the usual of ``metrics.json``.
    """
    run, config = Run(folder), config or TrainConfig(data=Path("photos"), seed=3)
    config = dataclasses.replace(
        config, image_size=config.image_size or 320
    )  # as a run resolves it
    run.bundle.mkdir(parents=True)
    (run.bundle / "bundle.json").write_text('{"format_version": 2}', encoding="utf-8")
    write_json(config_values(config), run.config)
    two = len(classes) == 2
    asked = {
        "validation": _rows(second_of(validation) if two else likely(validation, len(classes))),
        "test": _rows(second_of(20) if probabilities is None else probabilities),
    }
    sizes: dict[Split, int] = {"train": train, "validation": validation, "test": len(asked["test"])}
    manifest = [
        ManifestRow(
            name := _name(split, i, len(classes)),
            classes[i % len(classes)],
            split,
            sha256(photo or (content + name).encode()).hexdigest(),
            "used",
            "",
            300 + i,
            200 + i,
        )
        for split, size in sizes.items()
        for i in range(size)
    ]
    damaged = ManifestRow(
        "cat/b\udcffd.jpg", classes[0], "", "", "skipped", "damaged: cut short", code="damaged"
    )
    write_manifest([*manifest, damaged], run.manifest)
    write_findings(list(findings), run.audit)
    write_findings([], run.test_audit)
    history = [row for row in HISTORY if row.stage in config.stages]
    write_history(history, run.history)
    scores, predictions, novelty = {}, [], np.random.default_rng(7)
    for split, rows in asked.items():
        targets = np.arange(len(rows)) % len(classes)
        n = len(rows)
        answered = {"right": n - 4, "wrong": 1, "neither": 1, "unsure": 2} if n > 4 else None
        scores[split] = dataclasses.asdict(score(targets, rows)) | {
            "counts": answered or {"right": n, "wrong": 0, "neither": 0, "unsure": 0}
        }
        predictions += [
            {"name": _name(split, i, len(classes)), "split": split, "label": classes[target]}
            | dict.fromkeys(("answer", "likeliest"), classes[int(row.argmax())])
            | {"novelty": f"{novelty.uniform(0, 0.6):.4f}"}
            | {f"p_{name}": f"{p:.6g}" for name, p in zip(classes, row, strict=True)}
            for i, (target, row) in enumerate(zip(targets, rows, strict=True))
        ]
    write_rows(predictions, list(predictions[0]), run.predictions)
    usual = {
        "classes": list(classes),
        "photos": sizes,
        "class_weights": None,
        "stages": [
            _stage(name, sum(row.stage == name for row in history), scores)
            for name in config.stages
        ],
        **scores,
        "test_without_excluded": None,
        "test_corrected": None,
        "corrections": None,
        "answered_by": {"file": "model.onnx", "precision": "float32"},
        "temperature": 1.25,
        "min_confidence": 0.625,
        "promise": None,
        "seconds": {"audit": 1.0, "training": 5.0, "total": 7.0},
        "device": "cpu (made up)",
        "backend": "tensorflow",
        "precision": "float32",
        "frozen_precision": "int8",
        "frozen_engine": "onnxruntime",
        "cache": "disk",
        "views": 2,
        "versions": {"python": "3.11.0", "keras": "3.9.9"},
        "finished": "2026-01-31T12:00:00+00:00",
    }
    run.metrics.write_text(json.dumps({**usual, **(metrics or {})}), encoding="utf-8")
    return run


def least_metrics(validation: dict[str, Any], test: dict[str, Any]) -> dict[str, Any]:
    """Return what ``metrics.json`` cannot be without, with these scores."""
    unsaid = {
        "n": 2,
        "brier": 0.1,
        "ece": 0.01,
        "roc_auc": None,
        "confusion": [[1, 0], [0, 1]],
        "counts": {"right": 2, "wrong": 0, "neither": 0, "unsure": 0},
    }
    return {
        "classes": ["cat", "dog"],
        "photos": {"train": 2, "validation": 2, "test": 2},
        "stages": [],
        "validation": {**unsaid, **validation},
        "test": {**unsaid, **test},
        "temperature": 1.0,
        "min_confidence": 0.5,
        "seconds": {"total": 1234.5},
        "device": "cpu",
        "backend": "tensorflow",
        "precision": "float32",
        "cache": "disk",
        "versions": {},
        "finished": "2026-01-31T12:00:00+00:00",
    }


def _name(split: str, i: int, classes: int) -> str:
    return f"{'cat' if i % classes == 0 else 'dog'}/{split}{i}.jpg"


def _rows(probabilities: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """Return ``(n, classes)``, of the second class's alone those of both."""
    given = np.asarray(probabilities, np.float64)
    return np.stack([1 - given, given], axis=1) if given.ndim == 1 else given


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
