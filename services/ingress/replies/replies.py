"""Replies: this instance's partition of `replies`, read from the end before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from services.ingress.replies.waiters import Waiters
from shared.clock import Clock
from shared.contracts import headers
from shared.contracts.outcome import StreamPosition
from shared.contracts.reply import Chunks, Final, StreamBroken
from shared.errors import InvalidRecord
from shared.kafka.port import Log, Record, TopicPartition, tenant_of
from shared.processing.folding import fold_each
from shared.processing.tail import Tail, at_end
from shared.telemetry import metrics


class Replies:
    """Hands every reply to its waiter, a batch at a time, without awaiting. `report` writes what a broken stream's caller has seen."""

    def __init__(
        self,
        log: Log,
        clock: Clock,
        waiters: Waiters,
        instance: str,
        *,
        report: Callable[[StreamPosition, int, str | None], object],
    ) -> None:
        self._waiters, self._report = waiters, report
        self._partitions = list[TopicPartition]()
        self.tail = Tail(
            log,
            clock,
            self._partitions,
            client_id=f"tutti-ingress-replies-{instance}",
            begin=at_end,
            handle=self._on_records,
        )

    def listen_at(self, partition: TopicPartition) -> None:
        """Where to read. Before the tail runs."""
        self._partitions.append(partition)

    def _on_records(self, _partition: TopicPartition, records: Sequence[Record]) -> None:
        before = self._waiters.unknown
        fold_each("ingress", records, self._on_record)
        if self._waiters.unknown > before:
            metrics.REPLIES_UNKNOWN.inc(self._waiters.unknown - before)

    def _on_record(self, record: Record) -> None:
        if record.value is None:
            return
        says = headers.Envelope(record.headers)
        kind = says.get(headers.TYPE)
        if kind == b"chunks":
            self._waiters.on_chunks(Chunks.model_validate_json(record.value))
        elif kind == b"final":
            correlation = says.get(headers.CORRELATION_ID)
            if correlation is not None and not self._waiters.is_ours(correlation):
                self._waiters.unknown += 1
                return
            self._waiters.on_final(Final.model_validate_json(record.value))
        elif kind == b"stream_broken":
            broken = StreamBroken.model_validate_json(record.value)
            position = self._waiters.on_broken(broken)
            if position is not None:
                self._report(position, broken.home, tenant_of(record))
        else:
            raise InvalidRecord("a reply of an unknown type")
