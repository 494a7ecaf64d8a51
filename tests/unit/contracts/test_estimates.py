"""Estimates of tokens: one rule for each purpose, all of them in one place."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from random import Random

import pytest

import shared
from shared.estimates import cautious_tokens, fewest_tokens, likely_tokens

ROOT = Path(shared.__file__).parents[1]


def test_a_text_has_at_least_a_token_a_word() -> None:
    """White space may cost nothing, a run of one sign little, a word at least one."""
    assert fewest_tokens(()) == fewest_tokens(("", " \n" * 500)) == 0
    assert fewest_tokens(("word " * 12_000,)) == 12_000
    assert fewest_tokens(("one two", "three")) == 3
    assert fewest_tokens(("=" * 1_280,)) == 10
    assert fewest_tokens(("数" * 1_280,)) == 10


@pytest.mark.parametrize("text", ["", "a", "some words of prose, and more of them", "数字很多" * 100, "if (x) { y(); }" * 50])
def test_the_estimates_are_ordered(text: str) -> None:
    """What is likely lies between what is certain and what is asked for, of texts in words."""
    assert likely_tokens(len(text)) <= cautious_tokens(len(text.encode()))
    assert fewest_tokens((text,)) <= cautious_tokens(len(text.encode())) + 1


def test_nobody_else_has_a_rule_of_their_own() -> None:
    """Characters or bytes of a token are named in `shared.estimates` alone."""
    sources = [path for part in ("services", "shared") for path in (ROOT / part).rglob("*.py")]
    assert [path.name for path in sources if "_PER_TOKEN" in path.read_text(encoding="utf-8")] == ["estimates.py"]


@pytest.mark.parametrize("length", [65_535, 65_536, 65_537, 200_000])
@pytest.mark.parametrize("signs", ["a ", "ab\n\u3000", "abcdefghij" * 3 + " "])
def test_a_long_text_is_counted_as_a_short_one(length: int, signs: str) -> None:
    """It is counted in slices; words that lie across two of them are one."""
    text = "".join(Random(length).choices(signs, k=length))
    words = text.split()
    assert fewest_tokens((text,)) == max(len(words), sum(map(len, words)) // 128)


def test_counting_the_largest_text_takes_little_memory() -> None:
    """Less than the text itself."""
    text = "ab " * (8 * 1024 * 1024 // 3)
    tracemalloc.start()
    try:
        fewest_tokens((text,))
        assert tracemalloc.get_traced_memory()[1] < len(text)
    finally:
        tracemalloc.stop()
