"""Pairs of questions, made for this repository: near misses by family, and paraphrases. `tuning` is what the semantic cache's vetoes and
threshold were tuned on; `holdout` has other templates, on which nothing was.

A template's pairs are all those of two values that mean something else, in all wordings; forms of one value stand in a list of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations, product
from pathlib import Path
from typing import Any, NamedTuple

from pydantic_core import from_json


class Pair(NamedTuple):
    """Two questions. `family`: of what they differ in; empty of paraphrases, which one answer fits."""

    family: str
    asked: str
    stored: str

    @property
    def same(self) -> bool:
        return not self.family


def pairs(name: str) -> list[Pair]:
    """Of `tuning` or `holdout`, in the order of the file."""
    data: Mapping[str, Any] = from_json((Path(__file__).parent / f"{name}.json").read_bytes())
    found = [Pair(family, *pair) for family, made in data["near_misses"].items() for pair in _near_misses(made)]
    return [*found, *(Pair("", *pair) for pair in data["paraphrases"])]


def _near_misses(made: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for template in made["templates"]:
        wordings = template["wordings"]
        values = [value if isinstance(value, list) else [value] for value in template["values"]]
        for one, other in combinations(values, 2):
            for asked, stored in product(product(wordings, one), product(wordings, other)):
                yield _filled(*asked), _filled(*stored)
    for one, other in made["pairs"]:
        yield one, other


def _filled(wording: str, value: str) -> str:
    """Its value in its place, without the gap that an empty one leaves; at the beginning with a capital letter."""
    text = " ".join(wording.replace("{}", value).split()).replace(" ?", "?").replace(" .", ".")
    return text[0].upper() + text[1:] if wording.startswith("{}") else text
