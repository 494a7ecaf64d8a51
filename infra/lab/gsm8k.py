"""`python -m infra.lab.gsm8k FILE`: accuracy over cost of a cascade on recorded answers, beside chance and the strong model; no model runs.

FILE has JSON lines {"question", "weak_response", "weak_correct", "strong_response", "strong_correct"}: the form in which RouteLLM
(2406.18665, Apache-2.0) recorded Mixtral-8x7B and GPT-4-1106 on GSM8K (MIT). The recordings are not in this repository.

The check is pure, and no weight in it is fitted: the mean of four shares, of the equations in the weak answer that hold, of the question's
numbers that it uses, whether it comes to a marked end, and how short the question is. Costs are estimated tokens by price. The threshold is
chosen on one half of the lines; all figures, and the drawing, are of the other half (`tutti calibrate cascade` says the rest).
"""

from __future__ import annotations

import re
from pathlib import Path

import click
from pydantic import Field, ValidationError

from infra.cli.calibrate import measured, told
from infra.cli.curve import LabelledAnswer
from infra.cli.exits import Program
from services.worker.tools.calculator import CannotCalculate, calculate
from shared.contracts.base import Contract, Text
from shared.estimates import likely_tokens

_NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
_EQUATION = re.compile(r"([\d.,()+*/x\u00d7\u00f7$ -]{3,80})=\s*\$?\s*(\d[\d,]*(?:\.\d+)?)")
_SIGNS = str.maketrans({"x": "*", "\u00d7": "*", "\u00f7": "/", "$": "", ",": "", " ": ""})
_MARK, _LONG = "####", 1_000
"""Characters of a question that is anything but short."""
_NONE = re.compile(r"\+|.*(?:\*\*|//|[-+*/(]\+)|\(*[\d.]+\)*\Z")
"""The rest of a longer one, no arithmetic of the four operations, or a number alone."""


class RecordedAnswers(Contract):
    """One question, answered by both models."""

    question: Text
    weak_response: Text
    weak_correct: bool
    strong_response: Text
    strong_correct: bool


class Prices(Contract):
    """A million tokens of each model, in any currency."""

    weak: float = Field(ge=0, le=1e6)
    strong: float = Field(ge=0, le=1e6)


def score(question: str, answer: str) -> float:
    """0 to 1: how much the answer's own text speaks for it."""
    held = [holds for left, right in _EQUATION.findall(answer) if (holds := _holds(left, right)) is not None]
    asked, used = _numbers(question), _numbers(answer)
    equations = sum(held) / len(held) if held else 0.5
    numbers = len(asked & used) / len(asked) if asked else 1.0
    return (equations + numbers + (_MARK in answer) + max(0.0, 1 - len(question) / _LONG)) / 4


def labelled(line: bytes, prices: Prices) -> LabelledAnswer:
    """Raises ValidationError."""
    said = RecordedAnswers.model_validate_json(line)
    return LabelledAnswer(
        score=score(said.question, said.weak_response),
        weak_right=said.weak_correct,
        strong_right=said.strong_correct,
        weak_cost=_cost(said.question, said.weak_response, prices.weak),
        strong_cost=_cost(said.question, said.strong_response, prices.strong),
    )


def _cost(question: str, answer: str, price: float) -> float:
    return (likely_tokens(len(question)) + likely_tokens(len(answer))) * price / 1e6


def _numbers(text: str) -> set[float]:
    return {float(found.replace(",", "")) for found in _NUMBER.findall(text)}


def _holds(left: str, right: str) -> bool | None:
    """Whether it is so, to a hundredth; None for what is no equation."""
    expression = left.translate(_SIGNS).strip(".")
    if _NONE.match(expression):
        return None
    try:
        return abs(float(calculate(expression)) - float(right.replace(",", ""))) < 0.01
    except (CannotCalculate, ValueError):
        return None


@click.command(cls=Program, context_settings={"show_default": True})
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--prices", type=(float, float), default=(0.24, 24.7), help="Of a million tokens, weak and strong (RouteLLM's, in USD).")
@click.option("--accuracy", type=click.FloatRange(0, 1), help="Wanted share of right answers; without it that of the strong model.")
@click.option("--seed", type=int, default=0, help="Of the split.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw the curve into this file (.png, .svg).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def main(file: Path, *, prices: tuple[float, float], accuracy: float | None, seed: int, plot: Path | None, as_json: bool) -> None:
    """A cascade on recorded answers."""
    paid = Prices(weak=prices[0], strong=prices[1])
    try:
        items = [labelled(line, paid) for line in file.read_bytes().splitlines() if line.strip()]
    except ValidationError as error:
        raise click.ClickException(f"{file.name}: {error.error_count()} fields of a line are not as they should be") from None
    told(measured(items, accuracy=accuracy, split=0.5, seed=seed), plot=plot, as_json=as_json)


if __name__ == "__main__":
    main()
