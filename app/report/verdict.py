"""How good a run is, in the same sentences for terminal, report, model card and README.

What a user gets comes first: right, wrong, ``neither``, ``unsure``, of how many. Then the scores of
the likeliest class, which is what others call accuracy.
"""

from __future__ import annotations

from dataclasses import dataclass

from app.core.console import percent
from app.core.labels import NEITHER
from app.core.run_metrics import Metrics, PairedGain, SplitMetrics
from app.core.sanitise import shown

FEWEST = 30  # test photos; of fewer no share is told: even 29 of 29 may be 0.88 (95 % interval)


@dataclass(frozen=True)
class Wording:
    """Sentences about how some test photos are answered, whole ones, to be filled in.

    Attributes:
        shares: where they are enough for shares.
        counts: where they are ``too_few``.
    """

    shares: str
    counts: str


TEST = Wording(
    shares="Of {n:,} test photos: {right:,} right ({right_share}), {wrong:,} wrong "
    "({wrong_share}), {neither:,} neither ({neither_share}), {unsure:,} unsure ({unsure_share}).",
    counts="Test photos: {right} of {n} right, {wrong} wrong, {neither} neither, {unsure} unsure; "
    "too few to say more.",
)
WITHOUT_EXCLUDED = Wording(
    shares="Of the {n:,} test photos that were not excluded: {right:,} right ({right_share}), "
    "{wrong:,} wrong ({wrong_share}), {neither:,} neither ({neither_share}), {unsure:,} unsure "
    "({unsure_share}).",
    counts="Test photos that were not excluded: {right} of {n} right, {wrong} wrong, {neither} "
    "neither, {unsure} unsure; too few to say more.",
)
CORRECTED = Wording(
    shares="Of {n:,} test photos with the labels that a person corrected: {right:,} right "
    "({right_share}), {wrong:,} wrong ({wrong_share}), {neither:,} neither ({neither_share}), "
    "{unsure:,} unsure ({unsure_share}).",
    counts="Test photos with the labels that a person corrected: {right} of {n} right, {wrong} "
    "wrong, {neither} neither, {unsure} unsure; too few to say more.",
)


def verdict(metrics: Metrics) -> list[str]:
    """Return the sentences: about the answers, then about the likeliest class."""
    sentences = _about(metrics.test, TEST)
    found = metrics.cross_validated
    if too_few(metrics.test) and found is not None:
        n, right, log_loss = found.photos, found.right, found.log_loss
        sentences.append(
            f"Cross-validated on the {n:,} photos of train and validation: the likeliest class is "
            f"right for {right:,} ({percent(right / n, 1)}), log-loss {log_loss:.4f}."
            if n >= FEWEST
            else f"Cross-validated on the {n:,} photos of train and validation: the likeliest "
            f"class is right for {right:,}, log-loss {log_loss:.4f}."
        )
    if metrics.test_without_excluded is not None:
        sentences += _about(metrics.test_without_excluded, WITHOUT_EXCLUDED)
    if metrics.test_corrected is not None:
        sentences += _about(metrics.test_corrected, CORRECTED)
    return sentences


def corrections_said(metrics: Metrics) -> list[str]:
    """Return what a person corrected, and what it changed, in sentences; empty where nothing."""
    found = metrics.corrections
    if found is None:
        return []
    sentences = [
        f"Photos of training and validation that a person corrected: {found.relabelled:,} with "
        f"another class, {found.neither:,} as {NEITHER}, {found.left_out:,} left out, "
        f"{found.right:,} confirmed."
    ]
    if found.test:
        sentences.append(
            f"Marked photos of test: {found.test:,}. Their labels stay, and test is scored with "
            "the labels given and with the corrected ones."
        )
    if found.others:
        sentences.append(
            "Corrections that do not count, since their files are gone, renamed or changed: "
            f"{found.others:,}."
        )
    if found.validation is not None:
        sentences.append(paired_said(found.validation))
    return sentences


def paired_said(paired: PairedGain) -> str:
    """Return what corrections changed on validation, in a sentence."""
    low, high = paired.gain.accuracy_interval_95
    return (
        f"Of {paired.photos:,} validation photos, judged by the corrected labels, "
        f"{paired.right_before:,} were right before ({shown(paired.before)}) and "
        f"{paired.right_after:,} are now: {100 * paired.gain.accuracy:+.2f} points (95 % interval "
        f"{100 * low:+.2f} to {100 * high:+.2f})."
    )


def too_few(test: SplitMetrics) -> bool:
    """Return whether there are too few test photos for a share of them to say anything."""
    return test.n < FEWEST


def chosen_out_of_fold(metrics: Metrics) -> bool:
    """Return whether out-of-fold answers made the head's choices, because validation is small."""
    from app.evaluation.calibration import SMALL_VALIDATION  # brings SciPy, which --help needs not

    return metrics.cross_validated is not None and metrics.photos["validation"] < SMALL_VALIDATION


def scored(metrics: Metrics) -> list[tuple[str, SplitMetrics]]:
    """Return what has scores: not a test set that is too small for them."""
    found = [("validation", metrics.validation), ("test", metrics.test)]
    if metrics.test_without_excluded is not None:
        found.append(("test, without the excluded ones", metrics.test_without_excluded))
    if metrics.test_corrected is not None:
        found.append(("test, with corrected labels", metrics.test_corrected))
    return [(name, of) for name, of in found if name == "validation" or not too_few(of)]


def _about(test: SplitMetrics, wording: Wording) -> list[str]:
    counts, n = vars(test.counts), test.n
    if too_few(test):
        return [wording.counts.format(n=n, **counts)]
    shares = {f"{answer}_share": percent(count / n, 1) for answer, count in counts.items()}
    low, high = test.accuracy_interval_95
    right = sum(row[i] for i, row in enumerate(test.confusion))
    return [
        wording.shares.format(n=n, **counts, **shares),
        f"The likeliest class is right for {right:,} of them: accuracy {test.accuracy:.4f} (95 % "
        f"interval {low:.4f}–{high:.4f}), log-loss {test.log_loss:.4f}, calibration error "
        f"{test.ece:.4f}.",
    ]
