"""Answers in words for people, with their doubt: the same in predict.py's table, page and report.

Source of the limits:
    Mastrandrea et al. 2010, Guidance Note for Lead Authors of the IPCC Fifth Assessment Report on
    Consistent Treatment of Uncertainties, table 1: "virtually certain" from 99 % on, "likely" from
    66 % on, "very unlikely" up to 10 %.
"""

from __future__ import annotations

from collections.abc import Sequence

from app.core.labels import NEITHER, UNSURE

SURELY, PROBABLY = 0.99, 0.66  # the least probabilities that are called so; below: perhaps
POSSIBLE = 0.1  # from here on another class is more than "very unlikely", and is named as well


def in_words(label: str, classes: Sequence[str], probabilities: Sequence[float]) -> str:
    """Say an answer in words that suit every name of a class, since they need no article.

    Args:
        label: the likeliest class, ``neither`` or ``unsure``.
        classes: names, two or more.
        probabilities: of each of them, calibrated, 0 to 1.

    Returns:
        For example ``surely dog``, ``probably dog``, ``probably dog; could be cat`` (where the
        second class is not very unlikely), ``perhaps dog, or cat`` (the two likeliest),
        ``unsure: perhaps dog, or cat``, ``neither cat nor dog``. Names are as they were given.
    """
    if label == NEITHER:
        if len(classes) == 2:
            return f"neither {classes[0]} nor {classes[1]}"
        return f"neither: none of the {len(classes)} classes"
    order = sorted(range(len(classes)), key=lambda number: -probabilities[number])
    first, second = (classes[number] for number in order[:2])
    likeliest, other = (probabilities[number] for number in order[:2])
    if label == UNSURE:
        return f"unsure: perhaps {first}, or {second}"
    if likeliest >= SURELY:
        return f"surely {first}"
    if likeliest >= PROBABLY and other >= POSSIBLE:
        return f"probably {first}; could be {second}"
    if likeliest >= PROBABLY:
        return f"probably {first}"
    return f"perhaps {first}, or {second}"


def percentage(probability: float) -> str:
    """Write a probability, 0 to 1: ``84.2 %``, or ``> 99.9 %`` for what would round to 100.

    Likewise ``< 0.1 %``: a classifier knows nothing for certain.
    """
    rounded = f"{100 * probability:.1f}"
    return {"100.0": "> 99.9 %", "0.0": "< 0.1 %"}.get(rounded, f"{rounded} %")
