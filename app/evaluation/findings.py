"""Photos worth checking: ``audit.csv`` of training and validation, ``test_audit.csv`` of test.

Most of them are hard, not wrong, and a hard photo is worth keeping. Nothing is changed or left out
for being listed: a person looks, and moves a photo that lies in the wrong folder.
"""

from __future__ import annotations

from collections.abc import Sequence
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
