"""BatchOutput: what a batch has made, rendered as its files are read: ends from their blocks, newest first, with what was asked of each."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator

from pydantic_core import from_json

from services.ingress.dialects.openai import batches
from services.ingress.dialects.port import Dialect, Told
from services.ingress.handlers import Door
from services.ingress.problems import of_error, of_result
from shared.batches import block_of, unlinked
from shared.contracts.batch import BatchChanged, BatchIndex, LineRow, RefusedRow
from shared.contracts.batch_row import BatchRow
from shared.contracts.blob import BlobRef
from shared.contracts.result import Result, Status
from shared.derived import line_id
from shared.problem import Problem
from shared.processing.blobs import BlobGone

_BLOCKS = 4
_PIECE_BYTES = 64 * 1024
_NEVER_RUN = frozenset({Status.CANCELLED, Status.EXPIRED})


class BatchOutput:
    """Of a batch that is over. `dialect`: of its endpoint."""

    def __init__(self, door: Door, known: BatchChanged, dialect: Dialect) -> None:
        self._door, self._known, self._dialect = door, known, dialect
        self._bodies: OrderedDict[str, list[bytes]] = OrderedDict()

    async def stream(self, good: bool) -> AsyncIterator[bytes]:
        """The file with its good lines, or with all others, in pieces. Raises BlobGone, LogError: then it ends in the middle."""
        piece, count = bytearray(), 0
        async for line in self._good() if good else self._bad():
            piece += line
            count += 1
            if len(piece) >= _PIECE_BYTES or count % 16 == 0:
                yield bytes(piece)
                piece.clear()
                await self._door.clock.sleep(0)
        yield bytes(piece)

    async def _good(self) -> AsyncIterator[bytes]:
        async for ended in self._ends():
            if ended.result.status is Status.SUCCEEDED:
                yield await self._rendered(ended)

    async def _bad(self) -> AsyncIterator[bytes]:
        known = self._known
        async for row in self._chain(known.refused):
            refused = RefusedRow.model_validate_json(row)
            yield batches.bad_line(refused.custom_id, f"{known.batch}_{refused.line}", refused.status, refused.error)
        async for ended in self._ends():
            if ended.result.status is not Status.SUCCEEDED:
                yield await self._broken(ended)
        for number in self._never_sent():
            asked = await self._row(number)
            yield batches.unrun_line(asked.custom_id, self._name(number), known.ending or "cancelled")

    def _never_sent(self) -> Iterator[int]:
        """With those of which no end came in time."""
        yield from self._known.open
        yield from range(self._known.next, self._known.lines)

    def _name(self, number: int) -> str:
        return line_id(self._known.tenant, self._known.batch, number, self._door.submitter.homes)

    async def _rendered(self, ended: LineRow) -> bytes:
        row, result = await self._row(ended.line), ended.result
        try:
            answer = (await self._door.blobs.whole(result)).answer
        except BlobGone as error:
            return self._bad_line(row, result, of_error(error))
        assert answer is not None, "it succeeded"
        told = Told(result.job, int(result.accepted_at), row.model, row.wishes)
        return batches.good_line(row.custom_id, result.job, self._dialect.answer(told, answer, result.usage))

    async def _broken(self, ended: LineRow) -> bytes:
        row, result = await self._row(ended.line), ended.result
        if result.status in _NEVER_RUN and self._known.ending is not None:
            return batches.unrun_line(row.custom_id, result.job, self._known.ending)
        return self._bad_line(row, result, of_result(result))

    def _bad_line(self, row: BatchRow, result: Result, problem: Problem) -> bytes:
        return batches.bad_line(row.custom_id, result.job, problem.status, from_json(self._dialect.problem(problem))["error"])

    async def _ends(self) -> AsyncIterator[LineRow]:
        async for row in self._chain(self._known.newest):
            yield LineRow.model_validate_json(row)

    async def _chain(self, lies: BlobRef | None) -> AsyncIterator[bytes]:
        while lies is not None:
            lies, rows = unlinked(await self._door.blobs.fetch(self._known.tenant, lies))
            for row in rows:
                yield row

    async def _row(self, number: int) -> BatchRow:
        """What was asked. Neighbours lie in one block."""
        assert self._known.index is not None, "it has lines"
        index = BatchIndex.model_validate_json(b"\n".join(await self._read(self._known.index)))
        block, first = block_of(index, number)
        return BatchRow.model_validate_json((await self._read(block))[number - first])

    async def _read(self, lies: BlobRef) -> list[bytes]:
        rows = self._bodies.get(lies.digest)
        if rows is None:
            rows = self._bodies[lies.digest] = (await self._door.blobs.fetch(self._known.tenant, lies)).split(b"\n")
            while len(self._bodies) > _BLOCKS:
                self._bodies.popitem(last=False)
        self._bodies.move_to_end(lies.digest)
        return rows
