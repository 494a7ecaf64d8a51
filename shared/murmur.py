"""Murmur2, 32 bits, as Kafka's default partitioner computes it (org.apache.kafka.common.utils.Utils.murmur2; seed 0x9747b28c)."""

from __future__ import annotations

from functools import lru_cache
from struct import unpack_from

_MASK, _FACTOR, _SEED = 0xFFFF_FFFF, 0x5BD1_E995, 0x9747_B28C


def murmur2(data: bytes) -> int:
    """The hash, unsigned. 2 us for an id of 28 characters: aiokafka's own takes 5."""
    size = len(data)
    hashed = _words(data, _SEED ^ size)
    if size & 3:
        hashed = (hashed ^ int.from_bytes(data[size & ~3 :], "little")) * _FACTOR & _MASK
    return _finished(hashed)


@lru_cache(4096)
def place(data: bytes, places: int) -> int:
    """Which of so many: the partition that a Kafka producer chooses for a record with this key and no partition.

    Remembered of the latest: a job's id is asked about when it comes and again when it ends.
    """
    return (murmur2(data) & 0x7FFF_FFFF) % places


class Spelling:
    """Numbers in an alphabet of 32 characters (ASCII), two of them at a time, with such an end that the whole lies at a wanted place."""

    def __init__(self, alphabet: str) -> None:
        self._pairs = pairs = tuple(a + b for a in alphabet for b in alphabet)
        endings = [pairs[7 * number & 1023] + pair for number, pair in enumerate(pairs)]
        self._endings = [(text, _mixed(int.from_bytes(text.encode(), "little"))) for text in endings]

    def spell(self, prefix: str, number: int, wanted: int, places: int) -> str:
        """The prefix, of two characters, and 26 more: 110 bits of the number, without its lowest ten; then of the endings, from the one of
        these ten on, the first that suits, or the last where none does. That one is found in 4 us for six places.
        """
        pairs, endings = self._pairs, self._endings
        head = prefix + "".join([pairs[number >> shift & 1023] for shift in range(110, 9, -10)])
        data = head.encode()
        hashed = _words(data, _SEED ^ (len(data) + 4)) * _FACTOR
        chosen = ""
        start = number & 1023
        for index in range(start - len(endings), start):  # from `start` on: below zero they count from the end
            chosen, mixed = endings[index]
            end = (hashed ^ mixed) & _MASK  # `_finished`, without a call for each try
            end = (end ^ end >> 13) * _FACTOR & _MASK
            if ((end ^ end >> 15) & 0x7FFF_FFFF) % places == wanted:
                break
        return head + chosen


def _words(data: bytes, hashed: int) -> int:
    """All whole words of four bytes."""
    for word in unpack_from(f"<{len(data) >> 2}I", data):
        mixed = word * _FACTOR & _MASK
        hashed = (hashed * _FACTOR ^ (mixed ^ mixed >> 24) * _FACTOR) & _MASK
    return hashed


def _mixed(word: int) -> int:
    mixed = word * _FACTOR & _MASK
    return (mixed ^ mixed >> 24) * _FACTOR & _MASK


def _finished(hashed: int) -> int:
    hashed = (hashed ^ hashed >> 13) * _FACTOR & _MASK
    return hashed ^ hashed >> 15
