"""Reviews: what people are asked, as a fold of `job-events`; from the planners' watermark on, at or before which every live job begins.

The text of a review is not kept here: it is read again from history, where its event lies, or a snapshot that holds it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from services.ingress.status.shown import RawEvent, parse
from shared.contracts import event as events
from shared.contracts.base import Contract
from shared.contracts.event import EVENT
from shared.contracts.review import Deliberation, ReviewDecided, ReviewEscalated, ReviewOpened, ReviewWithdrawn
from shared.contracts.versions import REVIEWS
from shared.errors import LogUnavailable, NotFound
from shared.kafka.port import Log, TopicPartition
from shared.kafka.settings import SCATTERED_FETCH_BYTES
from shared.telemetry import logs

_log = logs.get(__name__)

MOST_OPEN = 50_000
"""Of about 1 kB each; of more, those that come later are not seen here."""
_MOST_OVER = 5_000
"""That are over, so that who decides once more is told what came of it."""
_AT_ONCE = 4
_READ_SECONDS = 10.0
_KINDS = frozenset(REVIEWS)
_QUOTED = b"review_opened"


@dataclass(slots=True)
class KnownReview:
    """`home`, `offset`: where its text lies in `job-events`."""

    deliberation: Deliberation
    home: int
    offset: int


class Reviews:
    """Job → step → review."""

    def __init__(self, log: Log, topic: str, instance: str) -> None:
        self._log, self._topic, self._client = log, topic, f"tutti-ingress-reviews-{instance}"
        self._open: dict[str, dict[str, KnownReview]] = {}
        self._over: OrderedDict[tuple[str, str], KnownReview] = OrderedDict()
        self._count = 0
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def __iter__(self) -> Iterator[KnownReview]:
        """The open ones."""
        for reviews in self._open.values():
            yield from reviews.values()

    def get(self, job: str, step: str) -> KnownReview | None:
        """Open, or over lately."""
        return self._open.get(job, {}).get(step) or self._over.get((job, step))

    def on_event(self, job: str, home: int, event: RawEvent) -> None:
        """A valid one, of whatever kind: nearly all concern no review."""
        if event.kind in _KINDS:
            self._fold(home, event.offset, parse(event.kind, event.value))
        elif event.kind == "job_snapshot" and _QUOTED in event.value:
            for fact in _facts(event.value):
                self._fold(home, event.offset, fact)
        elif event.kind == "job_settled" and job in self._open:
            for known in list(self._open[job].values()):
                known.deliberation.withdrawn = True
                self._put_by(known)

    def _fold(self, home: int, offset: int, fact: Contract | None) -> None:
        if isinstance(fact, ReviewOpened):
            self._opened(home, offset, fact)
        elif isinstance(fact, ReviewDecided | ReviewEscalated | ReviewWithdrawn):
            known = self._open.get(fact.job, {}).get(fact.step)
            if known is not None:
                known.deliberation.fold(fact)
                if known.deliberation.over:
                    self._put_by(known)

    def _opened(self, home: int, offset: int, opened: ReviewOpened) -> None:
        known = self.get(opened.job, opened.step)
        if known is not None and known.deliberation.opened.at == opened.at:  # told again in a snapshot
            known.home, known.offset = home, offset
            return
        if self._count >= MOST_OPEN:
            _log.warning("review_not_listed", job=opened.job, step=opened.step)
            return
        self._over.pop((opened.job, opened.step), None)
        self._count += opened.step not in self._open.get(opened.job, {})
        self._open.setdefault(opened.job, {})[opened.step] = KnownReview(Deliberation.of(opened), home, offset)

    def _put_by(self, known: KnownReview) -> None:
        opened = known.deliberation.opened
        self._count -= 1
        of_job = self._open[opened.job]
        del of_job[opened.step]
        if not of_job:
            del self._open[opened.job]
        self._over[opened.job, opened.step] = known
        if len(self._over) > _MOST_OVER:
            self._over.popitem(last=False)

    async def text_of(self, known: KnownReview, kept: Sequence[RawEvent]) -> str:
        """Its text; `kept`: events that are at hand. Raises NotFound, LogUnavailable."""
        value = next((event.value for event in kept if event.offset == known.offset), None)
        if value is None:
            async with self._turns:
                value = await self._read(TopicPartition(self._topic, known.home), known.offset)
        step = known.deliberation.opened.step
        for fact in _facts(value):
            if isinstance(fact, ReviewOpened) and fact.step == step:
                return fact.artefact
        raise NotFound("the review's text is gone")

    async def _read(self, partition: TopicPartition, offset: int) -> bytes:
        consumer = await self._log.consumer(client_id=self._client, max_partition_fetch_bytes=SCATTERED_FETCH_BYTES)
        try:
            consumer.assign([partition])
            consumer.seek(partition, offset)
            async with asyncio.timeout(_READ_SECONDS):
                while not (records := (await consumer.poll(timeout_seconds=1.0, max_records=1)).get(partition)):
                    pass
            return records[0].value or b"" if records[0].offset == offset else b""
        except TimeoutError:
            raise LogUnavailable from None
        finally:
            await consumer.close()


def _facts(value: bytes) -> Sequence[Contract]:
    """Of an event, or those that a snapshot holds; what cannot be read is none."""
    try:
        event = EVENT.validate_json(value)
        return [EVENT.validate_json(fact) for fact in event.facts] if isinstance(event, events.JobSnapshot) else [event]
    except ValidationError:
        return ()
