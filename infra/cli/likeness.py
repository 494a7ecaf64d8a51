"""Pairs of questions and what a semantic cache would do with them, over its threshold; and the drawing of it. Pure but for that.

A pair is served where it is similar enough and, with the vetoes, nothing speaks against it. Precision: of what is served, the pairs that
are the same; recall: of the pairs that are the same, those served; false hits: of the pairs that are not, those served.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from io import StringIO
from itertools import groupby, pairwise, zip_longest
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field, ValidationError

from shared.contracts.base import Contract, Text
from shared.contracts.bounds import explain
from shared.errors import InvalidInput
from shared.validators.questions.vetoes import veto

MOST_LINES = 100_000
MOST_BYTES = 64 * 1024 * 1024


class LabelledPair(Contract):
    """Two questions, and whether one answer fits both. `similarity`: their cosine, where it is known already."""

    model_config = ConfigDict(extra="ignore")

    asked: Text = Field(min_length=1)
    stored: Text = Field(min_length=1)
    same: bool
    similarity: float | None = Field(default=None, ge=-1, le=1)


class AnsweredQuestion(Contract):
    """One question and its answer: two with equal answers are the same, others are not."""

    model_config = ConfigDict(extra="ignore")

    question: Text = Field(min_length=1)
    answer: Text = Field(min_length=1)


class Scored(NamedTuple):
    """A pair with its similarity; `vetoed`: the vetoes speak against it."""

    similarity: float
    same: bool
    vetoed: bool


class ThresholdEffect(NamedTuple):
    """What a threshold does. `bound`: upper end of the 95 % interval of `false` (Wilson, 1927)."""

    threshold: float
    precision: float
    recall: float
    false: float
    bound: float


def read_pairs(file: Path) -> list[LabelledPair]:
    """JSON lines, or CSV with a head, of LabelledPair or of AnsweredQuestion. Raises InvalidInput that names the first invalid line."""
    if file.stat().st_size > MOST_BYTES:
        raise InvalidInput(f"{file.name} has more than {MOST_BYTES} bytes")
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{file.name} is not UTF-8 text, from byte {error.start} on") from None
    rows = list(_csv(text) if file.suffix == ".csv" else _json_lines(text))
    pairs = [row for row in rows if isinstance(row, LabelledPair)]
    answered = [row for row in rows if isinstance(row, AnsweredQuestion)]
    if pairs and answered:
        raise InvalidInput("some lines are pairs of questions, others a question and its answer: a file has one kind")
    found = pairs or list(_paired(answered))
    if not any(pair.same for pair in found) or all(pair.same for pair in found):
        raise InvalidInput("there must be pairs that are the same, and pairs that are not")
    return found


def _json_lines(text: str) -> Iterator[LabelledPair | AnsweredQuestion]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield _row(number, line, None)


def _csv(text: str) -> Iterator[LabelledPair | AnsweredQuestion]:
    rows = csv.DictReader(StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            given = {name: value for name, value in row.items() if name is not None and value not in (None, "")}
            yield _row(rows.line_num, "", given)
    except csv.Error as error:
        raise InvalidInput(f"line {rows.line_num}: {error}") from None


def _row(number: int, line: str, given: dict[str, Any] | None) -> LabelledPair | AnsweredQuestion:
    if number > MOST_LINES:
        raise InvalidInput(f"more than {MOST_LINES} lines")
    kind: type[LabelledPair | AnsweredQuestion] = AnsweredQuestion if '"answer"' in line or "answer" in (given or {}) else LabelledPair
    try:
        return kind.model_validate_json(line) if given is None else kind.model_validate(given)
    except ValidationError as error:
        raise InvalidInput(f"line {number}: {explain(error, 'line', kind.model_fields)}") from None


def _paired(answered: Sequence[AnsweredQuestion]) -> Iterator[LabelledPair]:
    """Each with the next of its answer, and with the first of the next answer."""
    ordered = sorted(answered, key=lambda one: one.answer)
    groups = [list(group) for _, group in groupby(ordered, key=lambda one: one.answer)]
    for group, following in zip_longest(groups, groups[1:], fillvalue=list[AnsweredQuestion]()):
        for one, other in pairwise(group):
            yield LabelledPair(asked=one.question, stored=other.question, same=True)
        for one, other in zip(group, following, strict=False):
            yield LabelledPair(asked=one.question, stored=other.question, same=False)


def scored(pairs: Sequence[LabelledPair], similarities: Sequence[float]) -> list[Scored]:
    """One a pair."""
    return [Scored(found, pair.same, veto(pair.asked, pair.stored) is not None) for pair, found in zip(pairs, similarities, strict=True)]


def level(items: Sequence[Scored], threshold: float, *, vetoes: bool) -> ThresholdEffect:
    """Of one threshold. Without anything served the precision is 1."""
    served = [item.same for item in items if item.similarity >= threshold and not (vetoes and item.vetoed)]
    same, right = sum(item.same for item in items), sum(served)
    others, false = len(items) - same, len(served) - right
    return ThresholdEffect(
        threshold, right / len(served) if served else 1.0, right / max(1, same), false / max(1, others), _upper(false, max(1, others))
    )


def levels(items: Sequence[Scored], *, vetoes: bool) -> list[ThresholdEffect]:
    """From 1 down to 0.5, by hundredths."""
    return [level(items, 1 - step / 100, vetoes=vetoes) for step in range(51)]


def chosen(items: Sequence[Scored], error: float) -> ThresholdEffect:
    """The lowest, vetoes on, at which, and above which, no more false hits are than wanted; 1 where there is none."""
    best = level(items, 1.0, vetoes=True)
    for one in levels(items, vetoes=True):
        if one.false > error:
            break
        best = one
    return best


def _upper(count: int, of: int) -> float:
    share, z2 = count / of, 1.96**2
    return min(1.0, (share + z2 / (2 * of) + 1.96 * sqrt(share * (1 - share) / of + z2 / (4 * of * of))) / (1 + z2 / of))


def drawn(file: Path, items: Sequence[Scored], best: ThresholdEffect) -> None:
    """Precision over recall with the vetoes and without, and the chosen threshold."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 4.4), dpi=90, layout="constrained")
    axes = figure.subplots()
    for name, vetoes, look in (("with vetoes", True, "-"), ("similarity alone", False, "--")):
        points = levels(items, vetoes=vetoes)
        axes.plot([100 * point.recall for point in points], [100 * point.precision for point in points], look, label=name)
    axes.plot(100 * best.recall, 100 * best.precision, "o", label=f"chosen: {best.threshold:.2f}")
    axes.set(xlabel="of questions that are the same, served, %", ylabel="of what is served, the same, %")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(file)
