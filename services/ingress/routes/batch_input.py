"""BatchInput: the lines of an uploaded file become jobs, in blocks that the batch's owner sends from; others become refusals.

All of it is written before the owner is told of the batch, so an instance that dies in between leaves nothing behind but bytes.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from hashlib import blake2b

from pydantic import ValidationError

from services.ingress.dialects.openai import batches
from services.ingress.dialects.port import Dialect, Terms, UnsupportedParameter
from services.ingress.handlers import Door
from services.ingress.problems import of_error
from shared.access import Client
from shared.batches import BLOCK_BYTES, BLOCK_ROWS, linked
from shared.contracts.base import INLINE_BYTES
from shared.contracts.batch import MOST_LINES, BatchError, BatchIndex, BatchLine, StoredFile
from shared.contracts.batch_row import BatchRow
from shared.contracts.blob import BlobRef
from shared.contracts.job import HeldJob
from shared.derived import line_id
from shared.errors import LogError, Overloaded, TooLarge, TuttiError
from shared.model_names import AUTO
from shared.problem import Refused

_MOST_ERRORS = 20
_PAUSE_LINES = 16
"""So many are read before others have their turn: each takes about 0.2 ms."""


class BatchInput:
    """Of one batch. Once `read` has returned the rest is there."""

    def __init__(self, door: Door, client: Client, batch: tuple[str, str], dialect: Dialect, window_seconds: float) -> None:
        """`batch`: its tenant and name."""
        self._door, self._client, (self._tenant, self._batch) = door, client, batch
        self._dialect, self._window_seconds = dialect, window_seconds
        self._homes = door.submitter.homes
        self._seen: set[bytes] = set()
        self._rows: list[bytes] = []
        self._size = 0
        self._refused_rows: list[bytes] = []
        self._blocks: list[BlobRef] = []
        self._firsts: list[int] = []
        self.lines = self.refusals = 0
        self.errors: list[BatchError] = []
        self.index: BlobRef | None = None
        self.refused: BlobRef | None = None

    async def read(self, file: StoredFile) -> None:
        """Raises BlobGone, LogError, Refused (503)."""
        number = 0
        async for line in self._split(file):
            number += 1
            if number % _PAUSE_LINES == 0:
                await self._door.clock.sleep(0)
            if line is not None and not line.strip():
                continue
            if self.lines + self.refusals == MOST_LINES:
                self._wrong("too_many_lines", f"a batch has at most {MOST_LINES} lines", number)
            else:
                await self._take(number, line)
            if len(self.errors) >= _MOST_ERRORS or (self.errors and self.errors[-1].code == "too_many_lines"):
                break
        if not self.errors and not self.lines + self.refusals:
            self._wrong("empty_file", "the input file has no lines", None)
        if not self.errors:
            await self._close_block()
            await self._close_refused()
            if self.lines:
                index = BatchIndex(firsts=tuple(self._firsts), blocks=tuple(self._blocks))
                self.index = await self._door.kept(self._tenant, index.to_bytes())

    def _wrong(self, code: str, message: str, line: int | None) -> None:
        self.errors.append(BatchError(code=code, message=message, line=line))

    async def _take(self, number: int, line: bytes | None) -> None:
        custom_id = None
        try:
            if line is None:
                raise TooLarge(f"a line has at most {self._door.settings.body_bytes} bytes")
            found = batches.parsed(line)
            custom_id = batches.custom_id_of(found)
            if custom_id is not None and self._is_double(custom_id):
                self._wrong("duplicate_custom_id", "another line has the same custom_id", number)
                return
            row = await self._row(*batches.read(found, self._dialect.path))
        except (LogError, Overloaded):
            raise
        except (TuttiError, ValidationError) as error:
            if isinstance(error, Refused) and error.problem.status == 503:
                raise
            await self._refuse(number, custom_id, error)
            return
        if not self._rows:
            self._firsts.append(self.lines)
        self._rows.append(row)
        self._size += len(row)
        self.lines += 1
        if self._size >= BLOCK_BYTES or len(self._rows) >= BLOCK_ROWS:
            await self._close_block()

    def _is_double(self, custom_id: str) -> bool:
        digest = blake2b(custom_id.encode("utf-8", "replace"), digest_size=12).digest()
        seen = digest in self._seen
        self._seen.add(digest)
        return seen

    async def _row(self, custom_id: str, body: bytes) -> bytes:
        """Raises whatever can be said against the request."""
        door, dialect = self._door, self._dialect
        request = dialect.request.model_validate_json(body)
        if getattr(request, "stream", None):
            raise UnsupportedParameter("stream", "the answers of a batch are not streamed")
        if request.continues is not None:
            raise UnsupportedParameter("previous_response_id")
        pattern = door.offered.pattern_of(request.model)
        terms = Terms(
            identifier=line_id(self._tenant, self._batch, self.lines, self._homes),
            tenant=self._tenant,
            model=AUTO if pattern else door.offered.resolve(request.model, dialect.operation),
            pattern=pattern,
            deadline_seconds=self._window_seconds,
        )
        job = dialect.to_job(request, terms)
        door.offered.check(job, self._client)
        door.offered.check_suits(job)
        line = HeldJob.of_valid(**job.__dict__, line=BatchLine(batch=self._batch, number=self.lines))
        if len(line.record()) > INLINE_BYTES:
            held = (await door.record_of(line, self._client)).job
            assert isinstance(held, HeldJob), "it is by reference"
            line = held
        return BatchRow.of_valid(custom_id=custom_id, model=request.model, wishes=request.wishes(), job=line).to_bytes()

    async def _refuse(self, number: int, custom_id: str | None, error: Exception) -> None:
        problem = of_error(error)
        row = batches.refused_row(number, custom_id, problem, self._dialect.problem(problem)).to_bytes()
        self._refused_rows.append(row)
        self.refusals += 1
        if len(self._refused_rows) >= BLOCK_ROWS:
            await self._close_refused()

    async def _close_block(self) -> None:
        if self._rows:
            self._blocks.append(await self._door.kept(self._tenant, b"\n".join(self._rows)))
            self._rows, self._size = [], 0

    async def _close_refused(self) -> None:
        if self._refused_rows:
            self.refused = await self._door.kept(self._tenant, linked(self.refused, self._refused_rows))
            self._refused_rows = []

    async def _split(self, file: StoredFile) -> AsyncIterator[bytes | None]:
        """The file's lines; None for one that is too long."""
        rest = Splitter(self._door.settings.body_bytes)
        for piece in file.pieces:
            for line in rest.feed(await self._door.blobs.fetch(self._tenant, piece)):
                yield line
        for line in rest.feed(b"\n"):
            yield line


class Splitter:
    """Cuts pieces into lines of at most so many bytes. Pure."""

    def __init__(self, most: int) -> None:
        self._most, self._begun, self._skipping = most, b"", False

    def feed(self, piece: bytes) -> Iterator[bytes | None]:
        """Lines that end in it; None for one that is too long."""
        *ended, self._begun = (self._begun + piece).split(b"\n")
        for line in ended:
            too_long, self._skipping = self._skipping or len(line) > self._most, False
            yield None if too_long else line
        if len(self._begun) > self._most:
            self._begun, self._skipping = b"", True
