"""Plausible text from a seeded Random: sentences of common words, one token a word."""

from __future__ import annotations

from random import Random

_COMMON = (
    "the a this each every some many most one another its their system service model worker queue node message answer question "
    "result value state record reader writer process request reply limit order number part whole case fact reason change "
    "time moment place name list table field step task plan cost rate share memory network disk token word sentence text "
    "is has gives takes keeps finds needs shows holds moves reads writes sends waits starts ends grows follows returns means "
    "often always never sometimes soon later first last only also however therefore because when while after before if "
    "small large fast slow simple clear exact open common local remote equal different possible useful short long new old "
    "with without from into over under between within against and or but so then as"
)
WORDS = tuple(_COMMON.split())
SHORTEST, LONGEST = 6, 14
"""Words of a sentence."""


def sentences(random: Random, count: int) -> list[str]:
    """`count` pieces that join to sentences; each after the first begins with a space."""
    pieces: list[str] = []
    left = 0
    for number in range(count):
        word = WORDS[int(random.random() * len(WORDS))]
        starts = left == 0
        if starts:
            left = SHORTEST + int(random.random() * (LONGEST - SHORTEST + 1))
        left -= 1
        ends = left == 0 or number == count - 1
        pieces.append((" " if number else "") + (word.capitalize() if starts else word) + ("." if ends else ""))
        if ends:
            left = 0
    return pieces
