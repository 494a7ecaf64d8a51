"""Estimates of tokens: one rule for each purpose, all of them in one place."""

from __future__ import annotations

from pathlib import Path

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
