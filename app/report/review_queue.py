"""The photos of a run that a person should look at, in the order in which it pays most.

First one picture in several classes, where a label must be wrong; then what models that never saw a
photo say against its label, the surest first; then photos unlike all others, near-duplicates, and
files that were refused. Photos of test come last of all: their labels stay, and whoever looks at
them chooses no longer without them. Each photo stands there once, with all its reasons. Decisions
about them go into the run's ``corrections.csv`` (``app.data.corrections``), from which
``train.py --corrections`` trains again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby
from operator import attrgetter
from typing import Literal

from app.core.errors import BundleError
from app.core.run_folder import Run
from app.data.corrections import Corrections, Decision, read_all_corrections
from app.data.manifest import ManifestRow
from app.evaluation.findings import OutOfFoldAnswer, read_out_of_fold
from app.evaluation.label_issues import SURE
from app.inference.wording import percentage
from app.report.results import Results, read_results

Kind = Literal["several_classes", "label", "mistake", "outlier", "near_duplicate", "refused"]
KINDS: dict[Kind, str] = {  # in the order of the queue
    "several_classes": "one picture in several classes",
    "label": "surely looks like another class",
    "mistake": "answered wrongly",
    "outlier": "unlike all others",
    "near_duplicate": "nearly the same picture as another",
    "refused": "not used",
}
# Files that are nobody's photos, or whose reason is no news: a person has decided, or a copy stays.
_NOTHING_TO_SAY = {"excluded", "left_out", "copy", "no_class", "hidden", "link", "not_a_photo"}


@dataclass(frozen=True, kw_only=True)
class ReviewItem:
    """One photo to look at.

    Attributes:
        place: in the queue, from 1.
        name: relative to the data folder.
        sha256: of its bytes; empty where it could not be read. With ``name`` it is what
            ``CorrectionsLog.decide`` takes.
        split: ``train``, ``validation`` or ``test``; empty for a file that is not used.
        label: its class, as it counts now.
        kinds: why it stands here, the weightiest first; the first decides its place.
        reasons: the same in sentences.
        likeliest: the class that the model thinks it shows; empty where it was not asked.
        probability: of that class, 0 to 1; None where it was not asked.
        p_label: of its own class; None where it was not asked.
        suggested: another class, where that is the model's opinion; else empty.
        like: the names of nearly the same pictures.
        decision: the last one of a person; None where there is none.
        decided_label: the class, for the decision ``class``; else empty.
    """

    place: int = 0
    name: str
    sha256: str
    split: str
    label: str
    kinds: tuple[Kind, ...]
    reasons: tuple[str, ...]
    likeliest: str = ""
    probability: float | None = None
    p_label: float | None = None
    suggested: str = ""
    like: tuple[str, ...] = ()
    decision: Decision | None = None
    decided_label: str = ""


@dataclass(frozen=True)
class _Reason:
    """Why a photo is listed; within a kind the lowest ``order`` comes first."""

    name: str
    kind: Kind
    order: float
    words: str


def read_review_queue(run: Run) -> list[ReviewItem]:
    """Return the photos of a finished run to look at, with what was decided about them already.

    Args:
        run: of any age; one without ``out_of_fold.csv`` lists fewer mistakes.

    Raises:
        UsageError: when there is no such folder, or its ``corrections.csv`` is none.
        BundleError: when a file of the run is missing or damaged.
    """
    results = read_results(run)
    try:
        answers = read_out_of_fold(run.out_of_fold) if run.out_of_fold.is_file() else []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            f"expected {run.out_of_fold} as train.py wrote it; received a damaged file "
            f"({type(error).__name__}: {error}); train again"
        ) from error
    files = [path for path in (run.applied, run.corrections) if path.is_file()]
    return review_queue(results, answers, read_all_corrections(files))


def review_queue(
    results: Results, out_of_fold: Iterable[OutOfFoldAnswer], decided: Corrections
) -> list[ReviewItem]:
    """Return the queue of ``read_review_queue`` from what a run's files hold.

    Args:
        results: of the run.
        out_of_fold: of its training and validation photos.
        decided: what a person has decided, by name and content.
    """
    answers = _answers(results)
    answers |= {answer.name: answer for answer in out_of_fold}
    rows = {row.name: row for row in results.manifest}
    found: dict[str, list[_Reason]] = defaultdict(list)
    for reason in _reasons(results, answers):
        if reason.name in rows:
            found[reason.name].append(reason)
    alike = _alike(results.manifest)
    kinds = list(KINDS)
    order = {
        name: (
            rows[name].split == "test",
            min((kinds.index(reason.kind), reason.order) for reason in reasons),
        )
        for name, reasons in found.items()
    }
    return [
        replace(_item(rows[name], found[name], answers.get(name), alike, decided), place=place)
        for place, name in enumerate(sorted(found, key=lambda name: (order[name], name)), start=1)
    ]


def _answers(results: Results) -> dict[str, OutOfFoldAnswer]:
    """Return what the run's model says of validation and test, none of which it learned from."""
    found = {}
    for each in results.predictions.values():
        for name, target, row in zip(
            each.names, each.targets.tolist(), each.probabilities, strict=True
        ):
            likely = int(row.argmax())
            found[name] = OutOfFoldAnswer(
                name,
                results.classes[target],
                results.classes[likely],
                float(row[likely]),
                float(row[target]),
            )
    return found


def _reasons(results: Results, answers: dict[str, OutOfFoldAnswer]) -> Iterator[_Reason]:
    """Yield all that speaks for looking at a photo; a photo may be named several times."""
    for finding in (*results.findings, *results.test_findings):
        if finding.finding == "label":
            yield _Reason(finding.name, "label", -finding.score, finding.reason)
        else:
            yield _Reason(finding.name, "outlier", finding.rank, finding.reason)
    listed = {f.name for f in (*results.findings, *results.test_findings) if f.finding == "label"}
    for answer in answers.values():
        if answer.likeliest != answer.label and answer.name not in listed:
            kind: Kind = "label" if answer.p_likeliest >= SURE else "mistake"
            words = (
                f"labelled {answer.label}; a model that did not learn from it says "
                f"{answer.likeliest} ({percentage(answer.p_likeliest)})"
            )
            yield _Reason(answer.name, kind, answer.p_label - answer.p_likeliest, words)
    for place, group in enumerate(_groups(results.manifest)):
        across = len({row.label for row in group}) > 1
        for row in group:
            words = row.reason or "nearly the same picture as another photo"
            yield _Reason(row.name, "several_classes" if across else "near_duplicate", place, words)
    for row in results.skipped():
        if row.code == "several_classes":
            yield _Reason(row.name, "several_classes", _number(row.sha256), row.reason)
        elif row.code != "near_duplicate" and row.code not in _NOTHING_TO_SAY:
            yield _Reason(row.name, "refused", 0, row.reason)


def _groups(manifest: Iterable[ManifestRow]) -> list[list[ManifestRow]]:
    """Return the groups of near-duplicates, those that were left out for it among them."""
    rows = sorted((row for row in manifest if row.group), key=attrgetter("group"))
    groups = [list(group) for _, group in groupby(rows, attrgetter("group"))]
    return [group for group in groups if len(group) > 1]


def _alike(manifest: list[ManifestRow]) -> dict[str, tuple[str, ...]]:
    """Return by name the names of nearly the same pictures, and of the same file elsewhere."""
    same: dict[str, list[str]] = defaultdict(list)
    for row in manifest:
        if row.code == "several_classes":
            same[row.sha256].append(row.name)
    groups = [*same.values(), *([row.name for row in group] for group in _groups(manifest))]
    return {name: tuple(n for n in group if n != name) for group in groups for name in group}


def _number(sha256: str) -> float:
    """Return what keeps the copies of one file together."""
    return float(int(sha256[:8] or "0", 16))


def _item(
    row: ManifestRow,
    reasons: list[_Reason],
    answer: OutOfFoldAnswer | None,
    alike: dict[str, tuple[str, ...]],
    decided: Corrections,
) -> ReviewItem:
    reasons = sorted(reasons, key=lambda reason: list(KINDS).index(reason.kind))
    correction = decided.get((row.name, row.sha256))
    item = ReviewItem(
        name=row.name,
        sha256=row.sha256,
        split=row.split if row.verdict == "used" else "",
        label=row.label,
        kinds=tuple(dict.fromkeys(reason.kind for reason in reasons)),
        reasons=tuple(dict.fromkeys(reason.words for reason in reasons)),
        like=alike.get(row.name, ()),
        decision=None if correction is None else correction.decision,
        decided_label="" if correction is None else correction.label,
    )
    if answer is None:
        return item
    other = answer.likeliest if answer.likeliest != row.label else ""
    return replace(
        item,
        likeliest=answer.likeliest,
        probability=answer.p_likeliest,
        p_label=answer.p_label,
        suggested=other,
    )
