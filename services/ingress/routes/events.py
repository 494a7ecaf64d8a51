"""`GET /v1/jobs/{id}/events`: a job's history as server-sent events, and its text while it streams.

An event's id is `<offset>.<characters>`: the last event and how much text the client has; with `.<facts>`, how much of the next event: one
may hold several facts, each told by itself. A client that reconnects with it as
Last-Event-ID, here or at another instance, goes on from there; what it missed of the text is completed at the end.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

from starlette.requests import Request
from starlette.responses import Response

from services.ingress.dialects.tutti import requests as dialect
from services.ingress.handlers import Door
from services.ingress.http import sse
from services.ingress.replies.register import Following, WaitKind
from services.ingress.routes.asking import ReaderStream, Routes, in_text, reader_of
from services.ingress.routes.jobs import asked_for, not_found
from services.ingress.status.notes import TOLD_SECONDS, PlaceNotes
from services.ingress.status.shown import RawEvent, parse
from services.ingress.status.status import JobState, JobStatus
from shared.contracts import ids
from shared.contracts.result import Result

_CURSOR = re.compile(r"(-?[0-9]{1,18})\.([0-9]{1,9})(?:\.([0-9]{1,9}))?")
_HEADERS = in_text(sse.HEADERS)


class _Cursor:
    """What this client has received."""

    __slots__ = ("characters", "facts", "offset")

    def __init__(self, last_event_id: str | None) -> None:
        found = _CURSOR.fullmatch(last_event_id or "")
        self.offset = int(found[1]) if found else -1
        self.characters = int(found[2]) if found else 0
        self.facts = int(found[3] or 0) if found else 0

    def __str__(self) -> str:
        return f"{self.offset}.{self.characters}" + (f".{self.facts}" if self.facts else "")


class _JobEvents:
    """One stream a connection; ends with `job_settled`, or with its cursor alone, when it goes on at another instance."""

    def __init__(self, door: Door) -> None:
        self._door = door

    async def get(self, request: Request) -> Response:
        """404 when nothing is known of the job, else the stream."""
        door = self._door
        client, job = asked_for(door, request)
        status = await door.visible(client, job)
        if status is None:
            raise not_found(job)
        door.stay()
        reader = reader_of(door, WaitKind.EVENTS, status.owner)
        cursor = _Cursor(request.headers.get("last-event-id"))
        return ReaderStream(door, reader, self._stream(job, status, cursor, reader), _HEADERS | {"x-tutti-job": ids.public(job)})

    async def _stream(self, job: str, status: JobStatus, cursor: _Cursor, reader: Following) -> AsyncIterator[bytes]:
        follow, heartbeat_seconds = self._door.waiters.following(job), self._door.settings.heartbeat_seconds
        notes, quiet_seconds = PlaceNotes(lambda: self._door.place(status)), 0.0
        look_seconds = min(TOLD_SECONDS, heartbeat_seconds) if self._door.settings.places else heartbeat_seconds
        with self._door.followers.following(job, reader.news) as news:
            if not self._door.journal.is_whole(job):
                if status.result is not None and (status.streamed or cursor.characters):
                    yield await self._rest(status.result, cursor, reader)
                yield await self._summary(status, cursor, reader)
                if status.state is JobState.SETTLED:
                    return
            while True:
                news.clear()
                if follow is not None and len(follow.text) > cursor.characters:
                    yield _chunk(job, follow.text, cursor)
                for event in self._door.journal.after(job, cursor.offset):
                    if event.kind == "job_settled":
                        settled = getattr(parse(event.kind, event.value), "result", None)
                        streamed = getattr(self._door.journal.status(job, status), "streamed", False)
                        if settled is not None and (streamed or cursor.characters):
                            yield await self._rest(settled, cursor, reader)
                    for part in _render(event, job, cursor):
                        yield part
                    if event.kind == "job_settled":
                        return
                if reader.over:
                    yield sse.cursor(str(cursor))
                    return
                try:
                    async with asyncio.timeout(look_seconds):
                        await news.wait()
                    quiet_seconds = 0.0
                except TimeoutError:
                    quiet_seconds += look_seconds
                    if said := b"".join(map(sse.comment, notes.news())):
                        yield said
                    elif quiet_seconds >= heartbeat_seconds:
                        quiet_seconds = 0.0
                        yield sse.HEARTBEAT
                        if job not in self._door.journal:
                            return

    async def _rest(self, settled: Result, cursor: _Cursor, reader: Following) -> bytes:
        """What the client has not of the whole answer; nothing where that is not to be had now."""
        result = await self._door.whole_now(reader, settled)
        text = result.answer.text if result is not None and result.answer is not None else ""
        return _chunk(settled.job, text, cursor) if len(text) > cursor.characters else b""

    async def _summary(self, status: JobStatus, cursor: _Cursor, reader: Following) -> bytes:
        """Of a job whose events are no longer in memory: the whole status as one event."""
        cursor.offset, cursor.facts = max(cursor.offset, status.offset), 0
        return sse.event("status", await self._door.public(reader, status), str(cursor))


def routes(door: Door) -> Routes:
    """By path and method."""
    own = _JobEvents(door)
    return {
        "/v1/jobs/{job}/events": {"GET": own.get},
    }


def _chunk(job: str, text: str, cursor: _Cursor) -> bytes:
    start = cursor.characters
    cursor.characters = len(text)
    return sse.event("chunk", dialect.chunk(ids.public(job), start, text[start:]), str(cursor))


def _render(event: RawEvent, job: str, cursor: _Cursor) -> Iterator[bytes]:
    facts = dialect.events(event, ids.public(job))
    for kind, payload in facts[cursor.facts :]:
        cursor.facts += 1
        if cursor.facts == len(facts):
            cursor.offset, cursor.facts = event.offset, 0
        yield sse.event(kind, payload, str(cursor))
    cursor.offset, cursor.facts = event.offset, 0
