"""Answers in words for people, with their doubt: the same in predict.py's table, page and report.

Source of the limits:
    Mastrandrea et al. 2010, Guidance Note for Lead Authors of the IPCC Fifth Assessment Report on
    Consistent Treatment of Uncertainties, table 1: "virtually certain" from 99 % on, "likely" from
    66 % on.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.core.labels import NEITHER, UNSURE

SURELY, PROBABLY = 0.99, 0.66  # the least probabilities that are called so; below: perhaps


def in_words(label: str, probabilities: Mapping[str, float]) -> str:
    """Say an answer in words that suit every name of a class, since they need no article.

    Args:
        label: the likeliest class, ``neither`` or ``unsure``.
        probabilities: of each class, calibrated, 0 to 1; two classes or more.

    Returns:
        For example ``surely dog``, ``probably dog``, ``perhaps dog, or cat`` (the two likeliest),
        ``unsure: perhaps dog, or cat``, ``neither cat nor dog``. Names are as they were given.
    """
    names = list(probabilities)
    if label == NEITHER:
        if len(names) == 2:
            return f"neither {names[0]} nor {names[1]}"
        return f"neither: none of the {len(names)} classes"
    first, second, *_ = sorted(names, key=lambda name: -probabilities[name])
    if label == UNSURE:
        return f"unsure: perhaps {first}, or {second}"
    if probabilities[first] >= SURELY:
        return f"surely {first}"
    if probabilities[first] >= PROBABLY:
        return f"probably {first}"
    return f"perhaps {first}, or {second}"


def percentage(probability: float) -> str:
    """Write a probability, 0 to 1: ``84.2 %``, or ``> 99.9 %`` for what would round to 100.

    Likewise ``< 0.1 %``: a classifier knows nothing for certain.
    """
    rounded = f"{100 * probability:.1f}"
    return {"100.0": "> 99.9 %", "0.0": "< 0.1 %"}.get(rounded, f"{rounded} %")
