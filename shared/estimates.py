"""How many tokens a text has, without its tokenizer: a number that it cannot be less than. Pure."""

from __future__ import annotations

from collections.abc import Iterable

_LONGEST_TOKEN = 64
"""Characters: of runs of one sign, which some vocabularies hold as one token. Of words the longest is far below."""


def fewest_tokens(texts: Iterable[str]) -> int:
    """At least so many tokens any model makes of these texts together.

    One a word, since the tokenizers in use (byte-pair and unigram, which both split at white space first) merge nothing across it; and a
    long word is several. Costs about 10 ns a character.
    """
    return sum(_of(text.split()) for text in texts)


def _of(words: list[str]) -> int:
    return max(len(words), sum(map(len, words)) // _LONGEST_TOKEN)
