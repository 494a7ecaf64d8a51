"""Murmur2, 32 bits, as Kafka's default partitioner computes it (org.apache.kafka.common.utils.Utils.murmur2; seed 0x9747b28c)."""

from __future__ import annotations

from collections.abc import Sequence
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


class Endings:
    """Texts of four characters (ASCII) with which a head is completed so that the whole lies at a wanted place."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = [(text, _mixed(int.from_bytes(text.encode(), "little"))) for text in texts]

    def complete(self, head: str, start: int, wanted: int, places: int) -> str:
        """The head with the first ending, from number `start` on, that suits; with the last where none does. 4 us for six places.

        The head's length is a multiple of four.
        """
        data, texts = head.encode(), self._texts
        hashed = _words(data, _SEED ^ (len(data) + 4)) * _FACTOR
        chosen = ""
        start %= len(texts)
        for index in range(start - len(texts), start):  # from `start` on: below zero they count from the end
            chosen, mixed = texts[index]
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
