"""Photos worth checking: ``audit.csv`` of training and validation, ``test_audit.csv`` of test.

``out_of_fold.csv`` has what models that never saw a photo say of it, whether or not it is listed.

Most of them are hard, not wrong, and a hard photo is worth keeping. Nothing is changed or left out
for being listed: a person looks, and moves a photo that lies in the wrong folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Literal

from app.core.atomic_files import read_rows, write_rows

Kind = Literal["label", "outlier"]


@dataclass(frozen=True)
class Finding:
    """One photo worth checking.

    Attributes:
        name: path relative to the data folder.
        finding: ``label`` for one that looks like another class than its folder's, ``outlier`` for
            one unlike all others.
        rank: place in its list, from 1.
        score: the higher the surer; for ``label`` the probability of another class less that of its
            own, 0 to 1; for ``outlier`` the cosine distance to the ten most similar photos, of a
            test photo its novelty.
        reason: in words.
    """

    name: str
    finding: Kind
    rank: int
    score: float
    reason: str


def write_findings(found: Sequence[Finding], path: Path) -> None:
    """Write the lists as CSV, one below the other."""
    rows = ({**asdict(row), "score": f"{row.score:.4f}"} for row in found)
    write_rows(rows, [field.name for field in fields(Finding)], path)


def read_findings(path: Path) -> list[Finding]:
    """Read what ``write_findings`` wrote."""
    return [
        Finding(**{**row, "rank": int(row["rank"]), "score": float(row["score"])})
        for row in read_rows(path)
    ]


@dataclass(frozen=True)
class OutOfFoldAnswer:
    """What models that did not learn from a photo of training or validation say of it.

    Attributes:
        name: path relative to the data folder.
        label: its class.
        likeliest: the class that it looks like the most.
        p_likeliest: the probability of that class.
        p_label: the probability of its own.
    """

    name: str
    label: str
    likeliest: str
    p_likeliest: float
    p_label: float


def write_out_of_fold(answers: Iterable[OutOfFoldAnswer], path: Path) -> None:
    """Write the answers as CSV, whole or not at all."""
    rows = (
        {**asdict(a), "p_likeliest": f"{a.p_likeliest:.6f}", "p_label": f"{a.p_label:.6f}"}
        for a in answers
    )
    write_rows(rows, [field.name for field in fields(OutOfFoldAnswer)], path)


def read_out_of_fold(path: Path) -> list[OutOfFoldAnswer]:
    """Read what ``write_out_of_fold`` wrote."""
    return [
        OutOfFoldAnswer(
            row["name"],
            row["label"],
            row["likeliest"],
            float(row["p_likeliest"]),
            float(row["p_label"]),
        )
        for row in read_rows(path)
    ]
