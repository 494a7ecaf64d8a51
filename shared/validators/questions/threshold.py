"""The threshold of one entry: how similar a question must be, so that at most a given share of those asked is answered wrong. Pure.

A static threshold holds for entries of which nothing is known. Labels, pairs of (similarity, whether the answer was right), say more: the
chance that an answer is right is taken as a logistic function of similarity, and the model is asked so often that the share holds even
where the function is as bad as the labels allow (vCache, 2502.03771, with a posterior on a grid in the place of a fit).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from math import exp, log1p
from typing import NamedTuple

FEWEST_LABELS = 6
MOST_LABELS = 32
"""Of an entry; the newest are kept."""
_FUNCTIONS = [(0.5 + 0.02 * step, slope) for step in range(31) for slope in (10.0, 20.0, 40.0, 80.0)]
"""Where the chance is one half, up to 1.1, at which no question is similar enough; and how steep it is there."""
_DOUBTS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)


class EntryLabel(NamedTuple):
    """What became of one question that was as similar."""

    similarity: float
    right: bool


def chance_to_ask(similarity: float, labels: tuple[EntryLabel, ...], *, static: float, error: float) -> float:
    """With this chance the model is asked, else the entry is served; 1.0: never served. `error`: the share.

    At and above the static threshold an entry is served until a label speaks against it; then only above that, or by its labels.
    """
    wrong = max((label.similarity for label in labels if not label.right), default=-1.0)
    if similarity >= static and similarity > wrong + _ROOM:
        return 0.0
    if len(labels) < FEWEST_LABELS:
        return 1.0
    return _chance(round(similarity, 3), labels, error)


_ROOM = 0.01
"""A question that is hardly more similar than one that was answered wrong is no better."""


def kept(labels: Sequence[EntryLabel], new: EntryLabel) -> tuple[EntryLabel, ...]:
    """With the new one, the oldest given up."""
    return (*labels, new)[-MOST_LABELS:]


@lru_cache(maxsize=4_096)
def _chance(similarity: float, labels: tuple[EntryLabel, ...], error: float) -> float:
    """The least over all doubts: with chance 1 - doubt the function is no worse than its bound, so an answer is right with `right`."""
    ranked = sorted((_logistic(slope * (similarity - step)), weight) for (step, slope), weight in _posterior(labels).items())
    best, below, doubts = 1.0, 0.0, list(_DOUBTS)
    for chance, weight in ranked:
        below += weight
        while doubts and below > doubts[0]:
            right = (1 - doubts.pop(0)) * chance
            best = min(best, max(0.0, 1 - error / max(1 - right, 1e-9)))
    return best


@lru_cache(maxsize=1_024)
def _posterior(labels: tuple[EntryLabel, ...]) -> dict[tuple[float, float], float]:
    """How likely each function is by the labels, where before them all were as likely."""
    likely = [sum(each) for each in zip(*(_likely(round(similarity, 2), right) for similarity, right in labels), strict=True)]
    most = max(likely)
    weights = [exp(value - most) for value in likely]
    total = sum(weights)
    return {function: weight / total for function, weight in zip(_FUNCTIONS, weights, strict=True)}


@lru_cache(maxsize=512)
def _likely(similarity: float, right: bool) -> tuple[float, ...]:
    """The logarithm of the chance of one label, by each function."""
    sign = -1 if right else 1
    return tuple(-log1p(exp(min(700.0, sign * slope * (similarity - step)))) for step, slope in _FUNCTIONS)


def _logistic(x: float) -> float:
    return 1 / (1 + exp(-max(-700.0, min(700.0, x))))


def alike(one: str, other: str) -> bool | None:
    """Whether two answers say the same; None: their vectors must tell. Those with other numbers do not."""
    if _bare(one) == _bare(other):
        return True
    return None if sorted(_NUMBER.findall(one)) == sorted(_NUMBER.findall(other)) else False


ALIKE = 0.9
"""Cosine from which on the vectors of two answers with the same numbers count as the same; in doubt they are another's."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def _bare(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.casefold()))
