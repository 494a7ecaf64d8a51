"""How many tokens a text has, without its tokenizer: a number that is likely, one that is rather too large, and one that it cannot be
less than. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

ANSWER_TOKENS = 256
"""Of an answer whose length nobody bounds: what reservations, turns and rate limits take it for."""
_CHARACTERS_PER_TOKEN = 4
"""Of English prose; code and other scripts have fewer."""
_BYTES_PER_TOKEN = 3
"""Of English prose four, of code three, of Chinese three: one sign."""
_SLICE = 64 * 1024
_LONGEST_TOKEN = 128
"""Characters: of runs of one sign, which the large vocabularies hold as one token. Of words the longest is far below."""


def likely_tokens(characters: int) -> int:
    """Of a text of so many characters: for reservations and fairness, not for billing, and not to refuse anything."""
    return characters // _CHARACTERS_PER_TOKEN


def cautious_tokens(size: int) -> int:
    """Of a text of so many bytes in UTF-8, rather too many: to ask for a window that holds it."""
    return size // _BYTES_PER_TOKEN


def fewest_tokens(texts: Iterable[str]) -> int:
    """At least so many tokens any model makes of these texts together.

    One a word, since the tokenizers in use (byte-pair and unigram, which both split at white space first) merge nothing across it; and a
    long word is several. Costs about 10 ns a character.
    """
    return sum(map(_of, texts))


def _of(text: str) -> int:
    """In slices: the words of 8 MiB, taken apart at once, are a quarter of a gigabyte."""
    words = characters = 0
    for start in range(0, len(text), _SLICE):
        piece = text[start : start + _SLICE]
        found = piece.split()
        words += len(found)
        characters += sum(map(len, found))
        if start and not (text[start - 1].isspace() or piece[0].isspace()):
            words -= 1  # one word lies in both
    return max(words, characters // _LONGEST_TOKEN)
