"""BatchLines: what a home's batches read and write outside of their fold: blocks of lines and of ends in blobs, and their jobs.

    an event opens lines ──► their block is read ──► a record a line on `jobs.batch`, at that line's home, under an id that follows
    a line's job has settled ──► LineEnded ──► acknowledged: the job may be out
    ends are gathered ──► a block in blobs ──► folded (`BatchOwner.on_written`)

What is sent is a function of the block alone: sent again by a successor it is the same job.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial

from services.planner.batches.batch_owner import GATHERED_BYTES, GATHERED_ROWS
from services.planner.draft import EndLine, KeepEnds, SendLines, Tell
from services.planner.round import Round
from services.planner.sending.messages import of_effect
from services.planner.shard.wiring import Wiring
from services.planner.state.book import Book
from shared.batches import block_of, linked, unlinked
from shared.contracts import headers, ids
from shared.contracts.base import PriorityClass
from shared.contracts.batch import BatchChanged, BatchIndex, LineEnded
from shared.contracts.batch_row import BatchRow
from shared.contracts.blob import BlobRef
from shared.contracts.ids import Maker, digest_of
from shared.contracts.outcome import CancelRequested
from shared.contracts.result import Result
from shared.derived import line_id
from shared.errors import InvalidRecord
from shared.kafka.port import Message
from shared.processing.blobs import BlobGone
from shared.telemetry import logs

log = logs.get(__name__)

_INLINE_BYTES = 32 * 1024
"""Of an end as it is told; what is larger lies in a blob of its own, since many ends are in their owner's memory."""
_BODIES = 4
"""Blocks and indexes that are kept read: each is under a megabyte."""
_AT_ONCE = 16


class BatchLines:
    """Of one book; thrown away with it. `come_back`: called with what the next round is to fold."""

    def __init__(self, wiring: Wiring, book: Book, come_back: Callable[[Callable[[Round], None]], None]) -> None:
        self._wiring, self._book, self._come_back = wiring, book, come_back
        self._homes = wiring.topics.settings.home_partitions
        self._bodies: OrderedDict[tuple[str, str], list[bytes]] = OrderedDict()

    # Ends of lines whose jobs are at home here

    def end(self, owed: EndLine) -> None:
        """Tell the line's batch."""
        [message] = self._told(owed, owed.settled.result)
        if len(message.value or b"") <= _INLINE_BYTES:
            self._post(owed, [message])
        else:
            self._wiring.spawn(self._end_large(owed))

    async def _end_large(self, owed: EndLine) -> None:
        result = owed.settled.result
        answer = result.answer
        if answer is not None and answer.blob is None:
            blob = await self._wiring.blobs.store_in_time(result.tenant, answer.changed(explanation=None).to_bytes())
            kept = {"text": "", "thinking": None, "tool_calls": (), "embeddings": (), "explanation": None, "blob": blob}
            result = result.model_copy(update={"answer": answer.model_copy(update=kept)})
        self._post(owed, self._told(owed, result))

    def _told(self, owed: EndLine, result: Result) -> list[Message]:
        line = owed.request.line
        assert line is not None, "it is one"
        told = LineEnded(tenant=owed.request.tenant, batch=line.batch, number=line.number, result=result)
        return of_effect(Tell(None, told), self._wiring.topics)

    def _post(self, owed: EndLine, messages: Sequence[Message]) -> None:
        self._wiring.outbox.post(messages, partial(self._book.line_told, owed.settled.job))

    # Batches that are at home here

    def keep(self, ends: KeepEnds) -> None:
        """Write the block, then fold that it lies there."""
        self._wiring.spawn(self._keep(ends))

    async def _keep(self, ends: KeepEnds) -> None:
        """A small newest block is written anew with what is added, so that slow batches have no more blocks than fast ones."""
        known, blobs = ends.known, self._wiring.blobs
        before, rows = known.newest, list[bytes]()
        if before is not None and known.newest_rows < GATHERED_ROWS and before.size < GATHERED_BYTES:
            try:
                before, rows = unlinked(await blobs.fetch_in_time(known.tenant, before))
            except (BlobGone, ValueError) as error:
                log.warning("block_not_joined", batch=known.batch, error=type(error).__name__)
        rows += [row for row, _ in ends.rows.values()]
        lies = await blobs.store_in_time(known.tenant, linked(before, rows))
        ended = {number: good for number, (_, good) in ends.rows.items()}
        key = known.tenant, known.batch
        self._come_back(lambda round_: self._book.batches.on_written(round_, key, lies, len(rows), ended))

    def send(self, lines: SendLines) -> None:
        """The event that opens them is acknowledged."""
        for paid in lines.paid:
            paid()
        self._wiring.outbox.post([self._cancel(lines.known, number) for number in lines.cancelled])
        if lines.numbers:
            self._wiring.spawn(self._send(lines.known, lines.numbers))

    async def _send(self, known: BatchChanged, numbers: Sequence[int]) -> None:
        try:
            assert known.index is not None, "it has lines"
            index = BatchIndex.model_validate_json(b"\n".join(await self._read(known, known.index)))
            for count, number in enumerate(numbers):
                block, first = block_of(index, number)
                rows = await self._read(known, block)
                self._wiring.outbox.post([self._job(known, number, rows[number - first])])
                if count % _AT_ONCE == _AT_ONCE - 1:
                    await self._wiring.clock.sleep(0)
        except (BlobGone, ValueError, IndexError, InvalidRecord) as error:
            log.warning("lines_not_sent", batch=known.batch, error=type(error).__name__)
            self._come_back(lambda round_: self._book.batches.on_unreadable(round_, (known.tenant, known.batch)))

    def _job(self, known: BatchChanged, number: int, row: bytes) -> Message:
        """Raises InvalidRecord where the block holds another job; ValueError."""
        job, name = BatchRow.model_validate_json(row).job, line_id(known.tenant, known.batch, number, self._homes)
        if job.id != name or job.tenant != known.tenant or job.line is None or job.line.number != number:
            raise InvalidRecord("the block does not hold this line")
        said = (
            *headers.envelope(headers.HELD_JOB),
            (headers.MADE_BY, Maker.PLANNER.value.encode()),
            (headers.REQUEST_DIGEST, digest_of(name.encode()).encode()),
            *([(headers.KEY_NAME, known.key.encode())] if known.key is not None else []),
        )
        topic, home = self._wiring.topics.jobs(PriorityClass.BATCH), ids.home_of(name, self._homes)
        return Message(topic, job.record(), name.encode(), home, said, job.tenant)

    def _cancel(self, known: BatchChanged, number: int) -> Message:
        name = line_id(known.tenant, known.batch, number, self._homes)
        cancel = CancelRequested(job=name, reason=f"its batch is {known.ending}")
        outcomes, home = self._wiring.topics.outcomes, ids.home_of(name, self._homes)
        return Message(outcomes, cancel.to_bytes(), name.encode(), home, headers.envelope(cancel.type))

    async def _read(self, known: BatchChanged, lies: BlobRef) -> list[bytes]:
        """The rows of a body. Raises BlobGone."""
        key = known.tenant, lies.digest
        rows = self._bodies.get(key)
        if rows is None:
            rows = (await self._wiring.blobs.fetch_in_time(known.tenant, lies)).split(b"\n")
            self._bodies[key] = rows
            while len(self._bodies) > _BODIES:
                self._bodies.popitem(last=False)
        else:
            self._bodies.move_to_end(key)
        return rows
