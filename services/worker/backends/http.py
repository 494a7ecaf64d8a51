"""What both HTTP backends share: lines out of a stream, and failures out of statuses and connection errors.

A token bucket: how long a call has to wait so that an endpoint's rate limit is kept. Pure.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any, Protocol

import pydantic_core

from services.worker.backends.base import Completion, Delta, ModelCallFailed
from services.worker.backends.http_client import BrokenAnswer, CannotConnect, Connections, HttpAnswer, NoAnswer
from services.worker.settings import WorkerSettings
from shared.contracts.failure import FailureKind as K


class TokenBucket:
    """`per_second` calls on average, at most `burst` at once. Each `take` books a call and returns its wait, in order."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._rate = per_second
        self._burst = burst
        self._free_at: float | None = None

    def take(self, now: float, parts: int = 1) -> float:
        """Seconds to wait from `now` (monotonic) before making this call; 0 while the burst lasts. `parts`: as many share the rate, each
        with a part of the burst, which is one call at least.
        """
        rate = self._rate / parts
        earliest = now - max(1, self._burst // parts) / rate
        booked = max(self._free_at if self._free_at is not None else earliest, earliest) + 1.0 / rate
        self._free_at = booked
        return max(0.0, booked - now)


KEEPALIVE_SECONDS = 4.0
"""Below the 5 s after which common servers close an idle connection: a call must not meet a dead one."""
MAX_LINE_BYTES = 8 * 1024 * 1024
MAX_BODY_BYTES = 8 * 1024 * 1024
"""Of an answer that is no stream."""
EMBEDDINGS_BYTES = 64 * 1024 * 1024
"""The same, of vectors: 1,000 of 4,096 numbers are 40 MB of text."""
MAX_ERROR_BYTES = 64 * 1024
PROBE_SECONDS = 5.0
_BESIDE_CALLS = 6
"""Connections for probes and tasks, so that they wait for no answer."""
END_SECONDS = 0.5
"""Between the last line of an answer and the end of its body."""

_STATUS: dict[int, K] = {
    400: K.BAD_REQUEST,
    401: K.MODEL_ERROR,
    403: K.MODEL_ERROR,
    404: K.UNKNOWN_MODEL,
    408: K.MODEL_TIMEOUT,
    413: K.TOO_LARGE,
    422: K.BAD_REQUEST,
    429: K.OVERLOADED,
    499: K.BROKEN_STREAM,
    501: K.UNSUPPORTED,
    503: K.OVERLOADED,
    504: K.MODEL_TIMEOUT,
}


_NUMBER = re.compile(r"\d{1,12}(\.\d{1,9})?", re.ASCII)
_TOO_LONG = ("exceed", "length", "size", "too long", "longer", "maximum")


def failure_kind(status: int, message: str) -> K:
    """What an error status means. Endpoints report an overlong prompt as plain 400, and what they do not support as 400 or 500."""
    kind = _STATUS.get(status, K.BAD_REQUEST if 400 <= status < 500 else K.MODEL_ERROR)
    lowered = message.lower()
    if kind in (K.BAD_REQUEST, K.TOO_LARGE) and "context" in lowered and any(word in lowered for word in _TOO_LONG):
        return K.CONTEXT_LENGTH
    if kind is K.BAD_REQUEST and "does not support" in lowered:
        return K.UNSUPPORTED
    if (
        kind in (K.BAD_REQUEST, K.MODEL_ERROR) and "image" in lowered and "not support" in lowered
    ):  # "is not supported": llama.cpp, with 500
        return K.UNSUPPORTED
    return kind


def error_text(value: Any) -> str:
    """The message of an error body, in Ollama's shape or OpenAI's."""
    error = value.get("error", value) if isinstance(value, dict) else value
    if isinstance(error, dict):
        error = error.get("message", "")
    return str(error)


def decode(line: bytes) -> dict[str, Any]:
    """One JSON object. Raises BROKEN_STREAM when it is none."""
    try:
        value = pydantic_core.from_json(line, allow_inf_nan=False)
    except ValueError as error:
        raise ModelCallFailed(K.BROKEN_STREAM, "the endpoint sent something that is not JSON") from error
    if not isinstance(value, dict):
        raise ModelCallFailed(K.BROKEN_STREAM, "the endpoint sent JSON that is not an object")
    return value


def decode_lines(lines: list[bytes]) -> list[dict[str, Any]]:
    """The JSON objects of several lines, parsed in one go; empty lines are passed over. Raises BROKEN_STREAM."""
    filled = [line for line in lines if line.strip()]
    try:
        values = pydantic_core.from_json(b"[" + b",".join(filled) + b"]", allow_inf_nan=False)
    except ValueError as error:
        raise ModelCallFailed(K.BROKEN_STREAM, "the endpoint sent something that is not JSON") from error
    if len(values) != len(filled) or not all(isinstance(value, dict) for value in values):
        raise ModelCallFailed(K.BROKEN_STREAM, "the endpoint sent JSON that is not an object")
    return values  # type: ignore[no-any-return]


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds in `Retry-After` (a number, or a date beside the answer's own) or `retry-after-ms`; None without a sensible one."""
    milliseconds, value = headers.get("retry-after-ms", ""), headers.get("retry-after", "").strip()
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1e3
    if _NUMBER.fullmatch(value):
        return float(value)
    try:
        # By the endpoint's clock both: its distance is a duration, whatever the clock here says.
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


async def refuse_error(response: HttpAnswer) -> None:
    """Raise the failure that the status stands for; return when it is a success."""
    if response.status < 300:
        return
    if response.status < 400:
        raise ModelCallFailed(K.MODEL_ERROR, f"the endpoint answered with status {response.status}: it lives at another address")
    body = b""
    while len(body) < MAX_ERROR_BYTES and (data := await response.read()):
        body += data
    try:
        message = error_text(pydantic_core.from_json(body))
    except ValueError:
        message = ""
    message = message or f"the endpoint answered with status {response.status}"
    raise ModelCallFailed(failure_kind(response.status, message), message, retry_after_seconds=retry_after(response.headers))


async def whole(response: HttpAnswer, most: int) -> bytes:
    """The body. Raises MODEL_ERROR once it has more than `most` bytes, without reading on."""
    parts, size = [], 0
    while data := await response.read():
        parts.append(data)
        size += len(data)
        if size > most:
            raise ModelCallFailed(K.MODEL_ERROR, f"the endpoint's answer has more than {most} bytes")
    return b"".join(parts)


async def batches(response: HttpAnswer) -> AsyncIterator[list[bytes]]:
    """Complete lines as they arrive, all of one network read together; a last line without newline comes at the end."""
    rest = b""
    while data := await response.read():
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise ModelCallFailed(K.BROKEN_STREAM, "the endpoint sent an endless line")
        if lines:
            yield lines
    if rest.strip():
        yield [rest]


async def _read_end(response: HttpAnswer) -> None:
    """Wait shortly for the end of a body whose content is complete, so that its connection can be used again."""
    size = 0
    with suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            while not response.at_end and size < MAX_ERROR_BYTES:
                size += len(await response.read())


class _StreamFold(Protocol):
    """Of the lines of one stream."""

    @property
    def done(self) -> bool: ...

    def read(self, lines: list[bytes]) -> Delta | None:
        """One delta for all lines of a network read; None when they hold nothing to show."""
        ...

    def completion(self) -> Completion:
        """The whole answer. Raises BROKEN_STREAM where the stream ended before it."""
        ...


class HttpEndpoint:
    """One base address with a pool of `connections`. Timeouts beyond connecting are the runner's: it sees every token."""

    def __init__(self, url: str, *, connections: int, connect_seconds: float, headers: dict[str, str] | None = None) -> None:
        """Raises ValueError for a header that cannot be written."""
        self._connections = Connections(
            url, most=connections, connect_seconds=connect_seconds, keep_seconds=KEEPALIVE_SECONDS, headers=headers or {}
        )

    @classmethod
    def of(cls, settings: WorkerSettings, url: str) -> HttpEndpoint:
        """The worker's own, beside whose calls there are probes."""
        headers = {"Authorization": f"Bearer {settings.api_key.get_secret_value()}"} if settings.api_key else None
        connections = settings.slots + _BESIDE_CALLS
        return cls(url, connections=connections, connect_seconds=settings.connect_timeout_seconds, headers=headers)

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any], trace: str | None) -> AsyncIterator[HttpAnswer]:
        """A successful response whose body is still to be read. Leaving early, by cancellation too, closes the connection at once."""
        headers = {"traceparent": trace} if trace and trace.isprintable() else {}
        with _translated():
            response = await self._connections.begin("POST", path, pydantic_core.to_json(body), headers)
            try:
                await refuse_error(response)
                yield response
                await _read_end(response)
            finally:
                self._connections.finish(response)

    async def get_json(self, path: str) -> tuple[dict[str, Any], dict[str, str]]:
        """(body, headers by lower-case name) of a GET that must be quick."""
        found, headers = await self._quick("GET", path)
        return decode(found), headers

    async def post_json(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The body of a POST that must be quick."""
        return decode((await self._quick("POST", path, body))[0])

    async def tell(self, method: str, path: str, body: dict[str, Any]) -> None:
        """A call whose answer says nothing more than that it is done; it must be quick."""
        await self._quick(method, path, body)

    async def _quick(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[bytes, dict[str, str]]:
        with _translated():
            async with asyncio.timeout(PROBE_SECONDS):
                response = await self._connections.begin(method, path, None if body is None else pydantic_core.to_json(body))
                try:
                    await refuse_error(response)
                    return await whole(response, MAX_BODY_BYTES), response.headers
                finally:
                    self._connections.finish(response)

    async def close(self) -> None:
        """Close the pool. Idempotent."""
        self._connections.close()


async def streamed(
    endpoint: HttpEndpoint, path: str, body: dict[str, Any], trace: str | None, fold: _StreamFold
) -> AsyncGenerator[Delta | Completion]:
    """What comes of a POST whose answer is a stream of lines, and its end."""
    async with endpoint.post(path, body, trace) as response:
        async for lines in batches(response):
            delta = fold.read(lines)
            if delta is not None:
                yield delta
            if fold.done:
                break
    yield fold.completion()


@contextmanager
def _translated() -> Iterator[None]:
    """Turns what a connection does into `ModelCallFailed`."""
    try:
        yield
    except CannotConnect as error:
        raise ModelCallFailed(K.NODE_UNREACHABLE, "the endpoint does not accept connections") from error
    except NoAnswer as error:
        raise ModelCallFailed(K.BROKEN_STREAM, "the endpoint closed the connection without an answer") from error
    except TimeoutError as error:
        raise ModelCallFailed(K.NODE_UNREACHABLE, "the endpoint did not answer in time") from error
    except (BrokenAnswer, OSError) as error:
        raise ModelCallFailed(K.BROKEN_STREAM, f"the connection to the endpoint broke: {type(error).__name__}") from error
