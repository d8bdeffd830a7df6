"""An album → the galleries of a report: each picture with what is said of it."""

from __future__ import annotations

from collections.abc import Sequence

from app.data.decode import Pixels
from app.evaluation.decision import Thresholds, label_of
from app.evaluation.findings import Finding
from app.report.html import Card, Gallery, percent, shown
from app.report.images import Album


def views(album: Album) -> Gallery:
    """Show the samples, each beside its random views where it has some."""
    some = any(shot.views for shot in album.shots.values())
    cards = [_sample(album, name) for name in album.samples]
    return Gallery(cards, "views" if some else "single")


def answers(
    album: Album, numbers: Sequence[int], classes: Sequence[str], min_confidence: float
) -> Gallery:
    """Show some of the answered pictures, each beside its heat map where there is one.

    Where predict.py would not name the class, the caption says so.

    Args:
        album: one with answers.
        numbers: of the pictures among ``album.answered``.
        classes: names by number.
        min_confidence: the run's; answers of less are ``unsure``.
    """
    given = album.answered
    assert given is not None, "the album has no answers"  # noqa: S101
    decided = given.decided(Thresholds(min_confidence))
    cards = []
    for number in numbers:
        name, answer = given.names[number], int(given.answers[number])
        truth, said = classes[given.targets[number]], classes[answer]
        pictures = _picture(album, name, f"{_what(album)} {name}, labelled {truth}.")
        if (lit := album.heat.get((name, answer))) is not None:
            pictures.append((lit, f"Heat map of {name}: lit is what speaks for {said}."))
        confidence = float(given.confidence[number])
        instead = ""
        if decided[number] < 0:
            instead = f"; predict.py says {label_of(decided[number], classes)}"
        verdict = f"{truth}, answered {said}" if truth != said else f"{truth}, and answered so"
        cards.append(Card(pictures, f"{shown(name)}: {verdict} ({percent(confidence)}){instead}"))
    return Gallery(cards, "pairs" if album.heat else "single")


def findings(album: Album, found: Sequence[Finding]) -> Gallery:
    """Show pictures that a person should look at, each with the reason."""
    return Gallery(
        [
            Card(
                _picture(album, finding.name, f"{_what(album)} {finding.name}."),
                f"{shown(finding.name)}: {finding.reason}",
            )
            for finding in found
        ]
    )


def missing(album: Album, names: Sequence[str]) -> str:
    """Say in a sentence how many of some photos cannot be shown; nothing where all can."""
    there = sum(name in album.shots for name in names)
    if there == len(names):
        return ""
    return (
        f" Photos that can be shown: {there} of {len(names)}; the others are no longer where they "
        "were, or are not the same any more."
    )


def _sample(album: Album, name: str) -> Card:
    pictures = _picture(album, name, f"{_what(album)} {name}.")
    if shot := album.shots.get(name):
        pictures += [
            (view, f"Random view {number} of {name}.")
            for number, view in enumerate(shot.views, start=1)
        ]
    return Card(pictures, shown(name))


def _picture(album: Album, name: str, words: str) -> list[tuple[Pixels, str]]:
    shot = album.shots.get(name)
    return [] if shot is None else [(shot.small, words)]


def _what(album: Album) -> str:
    return "Drawing" if album.drawn else "Photo"
