"""How good a run is, in the same sentences for terminal, report, model card and README.

What a user gets comes first: right, wrong, ``neither``, ``unsure``, of how many. Then the scores of
the likeliest class, which is what others call accuracy.
"""

from __future__ import annotations

from app.core.console import percent
from app.core.labels import NEITHER
from app.core.run_metrics import Metrics, PairedGain, SplitMetrics
from app.core.sanitise import shown

FEWEST = 30  # test photos; of fewer no share is told: even 29 of 29 may be 0.88 (95 % interval)


def verdict(metrics: Metrics) -> list[str]:
    """Return the sentences: about the answers, then about the likeliest class."""
    sentences = _about(metrics.test, "test photos")
    cross_validated = metrics.cross_validated
    if too_few(metrics.test) and cross_validated is not None:
        n, right = cross_validated.photos, cross_validated.right
        share = f" ({percent(right / n, 1)})" if n >= FEWEST else ""
        sentences.append(
            f"Cross-validated on the {n:,} photos of train and validation: the likeliest class is "
            f"right for {right:,}{share}, log-loss {cross_validated.log_loss:.4f}."
        )
    if (kept := metrics.test_without_excluded) is not None:
        excluded = metrics.test.n - kept.n
        without = f"test photos, without the {excluded:,} that were excluded"
        sentences += _about(kept, without)
    if (corrected := metrics.test_corrected) is not None:
        sentences += _about(corrected, "test photos, with the labels that a person corrected")
    return sentences


def corrections_said(metrics: Metrics) -> list[str]:
    """Return what a person corrected, and what it changed, in sentences; empty where nothing."""
    found = metrics.corrections
    if found is None:
        return []
    sentences = [
        f"Corrected by a person, of training and validation: {found.relabelled:,} photos got "
        f"another class, {found.neither:,} became {NEITHER}, {found.left_out:,} were left out, "
        f"{found.right:,} were confirmed."
    ]
    if found.test:
        sentences.append(
            f"Of test {found.test:,} photos were marked; their labels stay, and test is scored "
            "with the labels given and with the corrected ones."
        )
    if found.others:
        sentences.append(
            f"{found.others:,} corrections do not count, since their files are gone, renamed or "
            "changed."
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


def _about(test: SplitMetrics, photos: str) -> list[str]:
    counts, n = test.counts, test.n
    numbers = {name: getattr(counts, name) for name in ("right", "wrong", "neither", "unsure")}
    if too_few(test):
        said = [f"{counts.right} of {n} {photos} right"]
        said += [f"{count} {name}" for name, count in numbers.items() if name != "right" and count]
        return [f"{', '.join(said)}; too few to say more."]
    shares = ", ".join(
        f"{count:,} {name} ({percent(count / n, 1)})" for name, count in numbers.items()
    )
    low, high = test.accuracy_interval_95
    right = sum(row[i] for i, row in enumerate(test.confusion))
    return [
        f"Of {n:,} {photos}: {shares}.",
        f"The likeliest class is right for {right:,} of them: accuracy {test.accuracy:.4f} (95 % "
        f"interval {low:.4f}–{high:.4f}), log-loss {test.log_loss:.4f}, calibration error "
        f"{test.ece:.4f}.",
    ]
