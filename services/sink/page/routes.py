"""The page over HTTP. Its files are public; all that they show needs an administrator's key, where there are keys.

GET  /, /page/{file}        the page's files          GET  /page/letters?limit=    dead letters, newest first
GET  /page/config           what it needs to begin    POST /page/letters/replay    {"ids": ["partition:offset"]}: sent again
GET  /page/stream?after=    live, as server-sent events: `hello` {boot, columns, most}, `overview`, `nodes`, `gains`, `jobs` {rows}
GET  /page/jobs/{job}       one job with its steps

A page of another origin can read none of it (no CORS), nor act: an act needs a header that only pages of this origin may send.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, suppress
from functools import cache
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from services.sink.others import keep_replay
from services.sink.page.looking import MOST_LETTERS, Picture, Watching
from services.sink.page.present import COLUMNS, tree
from services.sink.port import LETTERS, Document, Store, Writes
from services.sink.query_api import Answered
from services.sink.settings import SinkSettings
from shared.access import Access, Client, Right
from shared.clock import within
from shared.errors import InvalidInput, NotFound, StoreAway, TooLarge
from shared.kafka.settings import SCATTERED_FETCH_BYTES
from shared.problem import Problem, Refused
from shared.processing.replay import Letter, address, letters_of, original, send_again
from shared.processing.tail import stretches
from shared.service import Environment
from shared.telemetry import logs

log = logs.get(__name__)

_FOLDER = Path(__file__).parent / "static"
_TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_ROWS = 1_000
"""In one frame."""
_HEARTBEAT_SECONDS = 15.0
_STUCK_SECONDS = 30.0
_BODY_BYTES = 16 * 1024
_REPLAY_SECONDS = 20.0
_AFTER = re.compile(r"([0-9a-f]{12})\.(\d{1,15})", re.ASCII)
_ACTS = "x-tutti-page"
"""A header that a foreign page cannot send without being asked whether it may, which is not answered."""


class _ReplayAsked(BaseModel):
    """Which dead letters: `partition:offset`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    ids: Annotated[tuple[Annotated[str, StringConstraints(max_length=32)], ...], Field(min_length=1, max_length=100)]


class _LettersAsked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: Annotated[int, Field(ge=1, le=MOST_LETTERS)] = 200


class _LiveStream(StreamingResponse):
    """Lets go of what it was given when it ends, however it ends; a client that takes nothing is cut off."""

    def __init__(self, content: AsyncIterator[bytes], headers: dict[str, str], looking: ExitStack) -> None:
        super().__init__(content, headers=headers, media_type="text/event-stream")
        self._looking = looking

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def bounded(message: Message) -> None:
            async with asyncio.timeout(_STUCK_SECONDS):
                await send(message)

        with self._looking, suppress(TimeoutError):
            await super().__call__(scope, receive, bounded)


class Page:
    """All routes of the page."""

    def __init__(self, env: Environment, settings: SinkSettings, store: Store, watching: Watching, *, keys: Access) -> None:
        self._env, self._settings, self._store, self._watching, self._keys = env, settings, store, watching, keys
        ingress = f" {settings.ingress_url}" if settings.ingress_url else ""
        self._headers = {
            "content-security-policy": (
                "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
                f"connect-src 'self'{ingress}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
        }

    def routes(self) -> Sequence[Answered]:
        """For the sink's application."""
        return (
            Answered("/", "GET", self.file, public=True),
            Answered("/page/config", "GET", self.config, public=True),
            Answered("/page/stream", "GET", self.stream),
            Answered("/page/jobs/{job:path}", "GET", self.job),
            Answered("/page/letters", "GET", self.letters),
            Answered("/page/letters/replay", "POST", self.replay),
            Answered("/page/{file}", "GET", self.file, public=True),
        )

    async def file(self, request: Request, _: Client | None) -> Response:
        """A file of the page. Browsers ask each time whether it has changed."""
        name = request.path_params.get("file", "index.html")
        found = files().get(name)
        if found is None:
            raise NotFound("there is no such path")
        content, kind, tag = found
        headers = {**self._headers, "cache-control": "no-cache", "etag": tag}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=kind)

    async def config(self, _: Request, __: Client | None) -> Response:
        """Before anybody has given a key: nothing of the cluster."""
        return self._json({"ingress": self._settings.ingress_url, "keys": not self._keys.open, "most": self._settings.page_jobs})

    async def stream(self, request: Request, client: Client | None) -> Response:
        """All parts first, then what changes."""
        self._permit(request, client)
        boot, version = _after(request.query_params.get("after"))
        looking = ExitStack()
        picture = looking.enter_context(self._watching.looking())
        return _LiveStream(self._frames(picture, version if boot == picture.boot else 0), self._live_headers(), looking)

    async def _frames(self, picture: Picture, version: int) -> AsyncIterator[bytes]:
        clock, settings = self._env.clock, self._settings
        sent: dict[str, bytes] = {}
        yield _event("hello", {"boot": picture.boot, "columns": COLUMNS, "most": settings.page_jobs, "fresh": version == 0})
        ends_at, spoke_at = clock.monotonic() + settings.page_stream_seconds, clock.monotonic()
        while picture is self._watching.picture and clock.monotonic() < ends_at and not self._watching.closing.is_set():
            frame = b"".join(self._changed_parts(picture, sent))
            changed = picture.jobs.since(version, _ROWS)
            if changed:
                version = changed[-1].version
                frame += _event("jobs", {"rows": [job.row() for job in changed]}, f"{picture.boot}.{version}")
            if frame or clock.monotonic() - spoke_at > _HEARTBEAT_SECONDS:
                spoke_at = clock.monotonic()
                yield frame or b": \n\n"
            if len(changed) < _ROWS:
                await within(settings.page_seconds, self._watching.closing.wait())

    def _changed_parts(self, picture: Picture, sent: dict[str, bytes]) -> list[bytes]:
        frames = []
        for name, part in self._watching.parts(picture).items():
            frame = _event(name, part)
            if sent.get(name) != frame:
                sent[name] = frame
                frames.append(frame)
        return frames

    async def job(self, request: Request, client: Client | None) -> Response:
        """One job by its id inside the cluster: its row, its steps as a tree, and why nodes were chosen, where its planner chose them."""
        self._permit(request, client)
        found = self._watching.seen().jobs.get(request.path_params["job"])
        if found is None:
            raise NotFound("this job is not among those that the page holds")
        row = dict(zip(COLUMNS, found.row(), strict=True))
        return self._json({"job": row, "tree": tree(found).model_dump(mode="json", exclude_none=True), "why": found.why})

    async def letters(self, request: Request, client: Client | None) -> Response:
        """Without what they carry; `replays`: who sent it again, and when, where the store knows."""
        self._permit(request, client)
        asked = _LettersAsked.model_validate(dict(request.query_params))
        shown = sorted(self._watching.seen().letters, key=lambda letter: float(-letter["at"]))[: asked.limit]
        marks = await self._replays(asked.limit) if shown else {}
        rows = [letter | {"replays": marks.get((letter["topic"], letter["partition"], letter["offset"]), [])} for letter in shown]
        return self._json({"rows": rows, "seen": self._watching.seen().letters_seen})

    async def _replays(self, limit: int) -> dict[tuple[str, int, int], list[Document]]:
        try:
            found = await self._store.find(LETTERS, {}, order=[("at", -1)], limit=limit)
        except StoreAway:
            return {}
        return {(row["topic"], row["partition"], row["offset"]): list(row["replays"].values()) for row in found if "replays" in row}

    async def replay(self, request: Request, client: Client | None) -> Response:
        """Sends the original bytes again. What is done stands in the store before it is done, and in the log."""
        self._permit(request, client)
        _from_this_page(request)
        asked = _ReplayAsked.model_validate_json(await _body(request))
        by = "open" if client is None else client.name
        async with asyncio.timeout(_REPLAY_SECONDS):
            letters = [await self._read(letter_id) for letter_id in dict.fromkeys(asked.ids)]
            writes = Writes()
            for letter in letters:
                original(letter)  # kept in part: nothing is sent
                keep_replay(letter.content, by, self._env.clock.wall(), writes)
            await self._store.write(writes)
            producer = await self._env.log.producer(client_id=f"tutti-page-{self._env.instance}")
            try:
                sent = [{"id": letter.id, **place._asdict()} async for letter, place in send_again(producer, letters)]
            finally:
                await producer.close()
        log.info("dead_letters_replayed", by=by, letters=[letter.id for letter in letters])
        return self._json({"sent": sent})

    async def _read(self, letter_id: str) -> Letter:
        place, offset = address(letter_id, self._env.topics.dead_letters)
        if place.partition >= self._env.topics.partitions("other"):
            raise NotFound(f"there is no dead letter {letter_id}")
        client = f"tutti-page-letter-{self._env.instance}"
        consumer = await self._env.log.consumer(client_id=client, fetch_max_wait_ms=50, max_partition_fetch_bytes=SCATTERED_FETCH_BYTES)
        try:
            if offset < (await consumer.end_offsets([place]))[place]:
                async for records in stretches(consumer, {place: (offset, offset + 1)}):
                    for letter in letters_of(record for record in records if record.offset == offset):
                        return letter
        finally:
            await consumer.close()
        raise NotFound(f"there is no dead letter {letter_id} (any more)")

    def _permit(self, request: Request, client: Client | None) -> None:
        """Raises Refused."""
        if client is None:
            raise Refused(Problem(403, "admin_only", "this needs an operator's or an administrator's key"))
        client.check(Right.OPERATE)
        if self._keys.open and not _is_address(request.url.hostname or ""):
            # A foreign name may be made to mean this machine, and its page would then be of this origin.
            raise Refused(Problem(403, "unknown_host", "without keys the page answers under an IP address or localhost only"))

    def _live_headers(self) -> dict[str, str]:
        return {**self._headers, "cache-control": "no-store", "x-accel-buffering": "no"}

    def _json(self, content: object) -> Response:
        return Response(to_json(content), headers={**self._headers, "cache-control": "no-store"}, media_type="application/json")


@cache
def files() -> dict[str, tuple[bytes, str, str]]:
    """Name → content, type and tag, of all that the page is made of."""
    found = {}
    for path in sorted(_FOLDER.iterdir()):
        if (kind := _TYPES.get(path.suffix)) is not None:
            content = path.read_bytes()
            found[path.name] = content, kind, f'"{sha256(content).hexdigest()[:16]}"'
    return found


def _event(name: str, data: object, id_: str = "") -> bytes:
    return (f"id: {id_}\n" if id_ else "").encode() + f"event: {name}\ndata: ".encode() + to_json(data) + b"\n\n"


def _after(text: str | None) -> tuple[str, int]:
    """Raises InvalidInput."""
    if text is None:
        return "", 0
    found = _AFTER.fullmatch(text)
    if found is None:
        raise InvalidInput("after: not an id of this stream")
    return found[1], int(found[2])


def _is_address(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True


def _from_this_page(request: Request) -> None:
    """Raises Refused, InvalidInput."""
    headers = request.headers
    origin, site = headers.get("origin"), headers.get("sec-fetch-site")
    same = origin is None or origin.partition("://")[2] == headers.get("host")
    if _ACTS not in headers or not same or site not in (None, "same-origin"):
        raise Refused(Problem(403, "foreign_page", f"only this page may do that, with the header {_ACTS}"))
    if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise InvalidInput("the body must be application/json")


async def _body(request: Request) -> bytes:
    """Raises TooLarge."""
    body = b""
    async for piece in request.stream():
        body += piece
        if len(body) > _BODY_BYTES:
            raise TooLarge(f"the body exceeds {_BODY_BYTES} bytes")
    return body
