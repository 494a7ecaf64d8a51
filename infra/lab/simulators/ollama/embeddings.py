"""Deterministic embeddings: texts that share words lie near each other. A word adds ±1 at places that its hash names;
then the length is made 1.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from math import sqrt

_WORD = re.compile(r"\w+")
_PLACES = 8


@lru_cache(maxsize=16_384)
def _places(word: str, dimensions: int) -> tuple[tuple[int, float], ...]:
    digest = blake2b(word.encode("utf-8", "surrogatepass"), digest_size=4 * _PLACES).digest()
    numbers = [int.from_bytes(digest[start : start + 4], "big") for start in range(0, len(digest), 4)]
    return tuple((number // 2 % dimensions, 1.0 if number % 2 else -1.0) for number in numbers)


def embed(text: str, *, model: str, dimensions: int) -> list[float]:
    """A vector of length 1. An empty text lies where only the model's name puts it."""
    vector = [0.0] * dimensions
    for word in (f"\0{model}", *_WORD.findall(text.lower())):
        for place, sign in _places(word, dimensions):
            vector[place] += sign
    return normalised(vector)


def normalised(vector: list[float]) -> list[float]:
    """Scaled to length 1; a zero vector becomes the first axis."""
    length = sqrt(sum(value * value for value in vector))
    if length == 0:
        return [1.0, *vector[1:]]
    return [value / length for value in vector]
