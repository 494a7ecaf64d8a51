"""Estimates of tokens: a bound from below that no tokenizer goes under."""

from __future__ import annotations

from shared.estimates import fewest_tokens


def test_a_text_has_at_least_a_token_a_word() -> None:
    """White space may cost nothing, a run of one sign little, a word at least one."""
    assert fewest_tokens(()) == fewest_tokens(("", " \n" * 500)) == 0
    assert fewest_tokens(("word " * 12_000,)) == 12_000
    assert fewest_tokens(("one two", "three")) == 3
    assert fewest_tokens(("=" * 1_280,)) == 10
    assert fewest_tokens(("数" * 1_280,)) == 10
