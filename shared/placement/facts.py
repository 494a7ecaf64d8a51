"""Facts: reads `nodes` from the beginning and `credits` from near the end into node table and ledger."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import inf

from pydantic import ValidationError

from shared.clock import Clock
from shared.contracts.bounds import explain
from shared.contracts.credits import CREDITS, Credits, PlannerPresence, RouterPresence
from shared.errors import InvalidRecord
from shared.kafka.port import Log, Record, TopicPartition
from shared.placement.choosing import Placement
from shared.placement.parties import Parties
from shared.processing.folding import fold_each
from shared.processing.tail import Handle, Tail
from shared.topics import Topics

DEAF_SECONDS = 3.0
"""Nothing heard on `credits` for so long, where whoever reads it writes each second: nobody else is silent, we do not hear."""
CREDITS_BACK = 256
"""Records of `credits` that are read again at start: who is alive is known a second earlier."""


class Facts:
    """`changed(afresh)` is called after every poll that told something; `afresh`: a node came, went or is another."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        placement: Placement,
        *,
        service: str,
        client_id: str,
        clock: Clock,
        changed: Callable[[bool], None],
        parties: Parties | None = None,
        also: Handle = lambda *_: None,
    ) -> None:
        """`parties`: are told who announces himself. `also`: is given the records of `credits` as they come."""
        self._also = also
        self._parties = parties
        self._nodes, self._credits = TopicPartition(topics.nodes, 0), TopicPartition(topics.credits, 0)
        self._topics, self._table, self._ledger, self._clock, self._changed = topics, placement.table, placement.ledger, clock, changed
        self._service, self._afresh = service, False
        self._heard_at = -inf
        """Of the last record on `credits`: one's own presence is among them."""
        self.tail = Tail(
            log,
            clock,
            [self._nodes, self._credits],
            client_id=client_id,
            begin=lambda partition, first, end: first if partition == self._nodes else end - CREDITS_BACK,
            handle=self._on_records,
            handled=self._on_handled,
        )

    def hears(self, now: float) -> bool:
        """Whether silence tells something at this monotonic second."""
        return now - self._heard_at < DEAF_SECONDS

    def _on_records(self, partition: TopicPartition, records: Sequence[Record]) -> None:
        now = self._clock.monotonic()
        if partition == self._nodes:
            before = self._table.version
            fold_each(self._service, records, lambda record: self._table.on_record(record, now))
            self._afresh |= self._table.version != before
            return
        self._heard_at = now
        self._also(partition, records)
        # Of each writer only the newest record counts: the others are void.
        fold_each(self._service, {record.key: record for record in records}.values(), lambda record: self._on_credits(record, now))

    def _on_credits(self, record: Record, now: float) -> None:
        message = read_credits(record, self._topics.mailboxes)
        if isinstance(message, Credits):
            self._afresh |= self._ledger.on_credits(message, now)
        elif self._parties is not None:
            self._parties.on_presence(message, now)

    def _on_handled(self) -> None:
        afresh, self._afresh = self._afresh, False
        self._changed(afresh)


def read_credits(record: Record, mailboxes: int) -> Credits | RouterPresence | PlannerPresence:
    """Raises InvalidRecord, also for places in a mailbox that does not exist: no step could be sent there."""
    try:
        found: Credits | RouterPresence | PlannerPresence = CREDITS.validate_json(record.value or b"")
    except ValidationError as error:
        raise InvalidRecord(explain(error, "credits record")) from None
    if isinstance(found, Credits) and found.mailbox >= mailboxes:
        raise InvalidRecord("the credits' mailbox is not a partition of this cluster")
    return found
