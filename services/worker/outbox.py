"""What must reach the log: outcomes are kept and sent again until they are acknowledged; duplicates are harmless.

A mark asks for the positions of what was read to be committed once everything put before it is acknowledged, whatever its home.

A claim may wait a little: the outcome of a step that ends meanwhile takes its place, and one record is sent instead of two. The planner
accepts an outcome whose claim it has not seen.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from shared.clock import Clock
from shared.kafka.port import Message, Producer, TopicPartition
from shared.processing.lane import OutboxEntry, Result
from shared.processing.outbox import Outbox as Lanes
from shared.topics import Topics

PATIENCE_SECONDS = 0.01
"""How long a claim waits for its outcome. Short beside the claim timeout (5 s), long beside a step without a model."""
GATHER_TURNS = 3
"""What is ready now runs first: a step that ends at once has its claim and its outcome in one batch."""
MOST_MARKS = 64
"""While one home takes nothing; beyond that marks are joined, so that they tell later."""


@dataclass(slots=True)
class _Span:
    """What was put between two marks. `left`: not acknowledged; `positions`: of the mark at its end."""

    left: int = 0
    positions: dict[TopicPartition, int] = field(default_factory=dict)


class Outbox:
    """Bounded by what feeds it: a worker reads nothing new while Kafka is away, and holds a bounded number of claims."""

    def __init__(self, clock: Clock, topics: Topics, acknowledged: Callable[[Mapping[TopicPartition, int]], None]) -> None:
        self._acknowledged = acknowledged
        self._lanes = Lanes(clock, "worker", topics, gather_turns=GATHER_TURNS)
        self._promised: dict[Hashable, OutboxEntry] = {}
        self._renewals: dict[tuple[int | None, int], OutboxEntry] = {}
        self._span = _Span()
        self._marked: deque[_Span] = deque()

    @property
    def healthy(self) -> bool:
        """False from a failed send to the next one that succeeds."""
        return not self._lanes.failing

    def put(self, message: Message, instead_of: Hashable = None) -> None:
        """Send this now; keep it until acknowledged. It takes the place of what was promised under `instead_of` and is not sent yet."""
        promised = self._promised.pop(instead_of, None)
        if promised is None or not self._lanes.replace(promised, message):
            self._span.left += 1
            self._lanes.put(message, partial(self._on_fate, self._span))

    def promise(self, key: Hashable, message: Message) -> None:
        """Send this soon, unless something else is put in its place before."""
        self._span.left += 1
        fate = partial(self._on_promise, key, self._span)
        self._promised[key] = self._lanes.put(message, fate, linger_seconds=PATIENCE_SECONDS)

    def mark(self, positions: Mapping[TopicPartition, int]) -> None:
        """Report `positions` as acknowledged when everything put before is."""
        self._span.positions.update(positions)
        self._report()

    def renew(self, messages: Sequence[Message]) -> None:
        """Send these once; newer ones replace those not sent yet, so that they never pile up."""
        waiting, self._renewals = self._renewals, {}
        for number, message in enumerate(messages):
            where = (message.partition, number)
            entry = waiting.get(where)
            if entry is None or not self._lanes.replace(entry, message):
                entry = self._lanes.put(message, again=False)
            self._renewals[where] = entry

    async def flushed(self) -> None:
        """Return when nothing waits."""
        await self._lanes.idle()

    async def run(self, producer: Producer) -> None:
        """Send until cancelled."""
        await self._lanes.run(producer)

    def _on_promise(self, key: Hashable, span: _Span, result: Result) -> None:
        self._promised.pop(key, None)
        self._on_fate(span, result)

    def _on_fate(self, span: _Span, _: Result) -> None:
        span.left -= 1
        if not span.left:
            self._report()

    def _report(self) -> None:
        while True:
            if self._span.positions and len(self._marked) < MOST_MARKS:
                self._marked.append(self._span)
                self._span = _Span()
            if not self._marked or self._marked[0].left:
                return
            self._acknowledged(self._marked.popleft().positions)
