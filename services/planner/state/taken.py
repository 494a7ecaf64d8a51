"""TakenRecords: the job records that are done with although the committed position has not passed them, kept as one event a topic.

Where tenants take turns, records are taken out of their order, and the position stays in front of the first that is not taken. A successor
reads behind it again; what it must know then is a bit for each record that is done with: its events, or what it owes, are acknowledged.

    Replay = the newest acknowledged bitmap's bits, all below its base, and the sources of the jobs that replay has met.

The watermark may then pass the first event of an ended job whose record the bitmap covers. It may not pass the bitmap itself, until the
position that is committed with it has passed all of its bits. A bitmap is written only when the watermark wants to move on.

*Traces* (model: `tests/model/test_look_ahead.py`): the watermark passes a job before the bitmap is acknowledged, crash: it is accepted a
second time. · A bitmap of base 2 replaces one of base 0 before its position is committed, crash: what only the first had is accepted again,
did not all below the base count as taken. · The topic is made anew: offsets of the old one count as taken in it, a lost job.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from services.planner.draft import Draft
from services.planner.job.out import OutJob
from services.planner.kept import KeptEvents
from shared.contracts.taken import MOST_TAKEN, TakenAhead

MANY_OUT = 1_000
"""Jobs that are out and that the position has not passed: more of them are not held in memory if a bitmap can stand for them."""
_PART = 4
"""The watermark may lie behind by one part in so many of the distance, before a bitmap is written for it."""


class Offsets(NamedTuple):
    """All below `base`, and base + n for each bit n."""

    base: int
    bits: int

    def __contains__(self, offset: object) -> bool:
        assert isinstance(offset, int)
        return offset < self.base or bool(self.bits >> (offset - self.base) & 1)

    @property
    def end(self) -> int:
        """Nothing at or after it is in here."""
        return self.base + self.bits.bit_length()

    def joined(self, base: int, offsets: Iterable[int]) -> Offsets:
        """These too, from `base` on, as far as a bitmap reaches."""
        bits = self.since(base)
        for offset in offsets:
            if 0 <= offset - base < MOST_TAKEN:
                bits |= 1 << offset - base
        return Offsets(base, bits)

    def since(self, offset: int) -> int:
        """The bits from there on, of offset + n each."""
        return self.bits >> offset - self.base if offset >= self.base else self.bits << self.base - offset | (1 << self.base - offset) - 1


NOTHING = Offsets(0, 0)


class TakenRecords(KeptEvents[TakenAhead]):
    """Of one book, by the topics as sources name them. `out`: the book's. `standing`: what is done with now, where that is known.

    `standing` names only what is acknowledged, and nothing of the round under way.
    """

    def __init__(self, out: Mapping[str, OutJob]) -> None:
        super().__init__("taken offsets", TakenAhead, "topic", key="#taken/{}")
        self._out = out
        self.standing: Callable[[str], Offsets | None] = lambda _: None
        self._covered: dict[str, Offsets] = {}
        """Of the newest acknowledged bitmap of each topic."""
        self._again_at = 0

    def covers(self, topic: str, offset: int) -> bool:
        """Whether a successor knows by a bitmap that this record is done with."""
        return topic in self._covered and offset in self._covered[topic]

    def known(self, topic: str) -> Offsets | None:
        """What the acknowledged bitmap says."""
        return self._covered.get(topic)

    def let_go(self, positions: Mapping[str, int]) -> None:
        """Of what these positions (by the topics as sources name them), committed with the watermark, have passed, no bitmap is needed."""
        for topic in [topic for topic, covered in self._covered.items() if covered.end <= positions.get(topic, 0)]:
            self.drop(topic)

    # A kind of what is kept

    def lies(self, name: str, at: float, offset: int) -> None:
        if name in self.things:
            self._covered[name] = Offsets(self.things[name].base, unpacked(self.things[name].bits))
        super().lies(name, at, offset)

    def drop(self, name: str) -> TakenAhead | None:
        self._covered.pop(name, None)
        return super().drop(name)

    def renew(self, draft: Draft, expected: int, distance: int) -> bool:
        if expected >= self._again_at and self._holds(expected, distance // _PART):
            self._again_at = expected + distance // (2 * _PART)
            for topic in sorted({job.source_topic for job in self._out.values() if not self.covers(job.source_topic, job.source_offset)}):
                self._once_more(draft, topic)
        return super().renew(draft, expected, distance)

    def _holds(self, expected: int, distance: int) -> bool:
        """Whether jobs that are out hold the watermark far back, or are many."""
        first = next(iter(self._out.values()), None)
        return first is not None and (expected - first.first_offset > distance or len(self._out) > MANY_OUT)

    def _once_more(self, draft: Draft, name: str) -> bool:
        now = self.standing(name)
        if now is None or not now.bits:
            return False
        self.add(draft, TakenAhead(epoch=draft.epoch, at=draft.wall, topic=name, base=now.base, bits=packed(now.bits)))
        return True


def packed(bits: int) -> bytes:
    """As a TakenAhead holds them; those beyond its reach are left out."""
    bits &= (1 << MOST_TAKEN) - 1
    coder = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return coder.compress(bits.to_bytes(-(-bits.bit_length() // 8), "little")) + coder.flush()


def unpacked(value: bytes) -> int:
    """Raises ValueError for what cannot be read."""
    try:
        found = zlib.decompressobj(wbits=-zlib.MAX_WBITS).decompress(value, MOST_TAKEN // 8)
    except zlib.error as error:
        raise ValueError("the bits of a TakenAhead cannot be read") from error
    return int.from_bytes(found, "little")
