"""What both HTTP backends share: a bounded pool, lines out of a stream, and failures out of statuses and connection errors.

A token bucket: how long a call has to wait so that an endpoint's rate limit is kept. Pure.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
import pydantic_core

from services.worker.backends.base import ModelCallFailed
from shared.contracts.failure import FailureKind as K


class TokenBucket:
    """`per_second` calls on average, at most `burst` at once. Each `take` books a call and returns its wait, in order."""

    def __init__(self, per_second: float, burst: int) -> None:
        self._rate = per_second
        self._burst = burst
        self._free_at: float | None = None

    def take(self, now: float) -> float:
        """Seconds to wait from `now` (monotonic) before making this call; 0 while the burst lasts."""
        earliest = now - self._burst / self._rate
        booked = max(self._free_at if self._free_at is not None else earliest, earliest) + 1.0 / self._rate
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
    milliseconds, value = headers.get("retry-after-ms", ""), headers.get("Retry-After", "").strip()
    if _NUMBER.fullmatch(milliseconds):
        return float(milliseconds) / 1e3
    if _NUMBER.fullmatch(value):
        return float(value)
    try:
        # By the endpoint's clock both: its distance is a duration, whatever the clock here says.
        return max(0.0, (parsedate_to_datetime(value) - parsedate_to_datetime(headers.get("Date", ""))).total_seconds())
    except (TypeError, ValueError, IndexError, OverflowError):
        return None


async def refuse_error(response: aiohttp.ClientResponse) -> None:
    """Raise the failure that the status stands for; return when it is a success."""
    if response.status < 400:
        return
    body = await response.content.read(MAX_ERROR_BYTES)
    try:
        message = error_text(pydantic_core.from_json(body))
    except ValueError:
        message = ""
    message = message or f"the endpoint answered with status {response.status}"
    raise ModelCallFailed(failure_kind(response.status, message), message, retry_after_seconds=retry_after(response.headers))


async def whole(response: aiohttp.ClientResponse, most: int) -> bytes:
    """The body. Raises MODEL_ERROR once it has more than `most` bytes, without reading on."""
    parts, size = [], 0
    async for data in response.content.iter_any():
        parts.append(data)
        size += len(data)
        if size > most:
            raise ModelCallFailed(K.MODEL_ERROR, f"the endpoint's answer has more than {most} bytes")
    return b"".join(parts)


async def batches(response: aiohttp.ClientResponse) -> AsyncIterator[list[bytes]]:
    """Complete lines as they arrive, all of one network read together; a last line without newline comes at the end."""
    rest = b""
    async for data in response.content.iter_any():
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise ModelCallFailed(K.BROKEN_STREAM, "the endpoint sent an endless line")
        if lines:
            yield lines
    if rest.strip():
        yield [rest]


async def _read_end(response: aiohttp.ClientResponse) -> None:
    """Wait shortly for the end of a body whose content is complete, so that its connection can be used again."""
    if response.content.at_eof():
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(END_SECONDS):
            await response.content.read(MAX_ERROR_BYTES)


class HttpEndpoint:
    """One base address with a pool of `connections`. Timeouts beyond connecting are the runner's: it sees every token."""

    def __init__(self, url: str, *, connections: int, connect_seconds: float, headers: dict[str, str] | None = None) -> None:
        self.url = url
        self._connections = connections
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
        self._probe_timeout = aiohttp.ClientTimeout(total=PROBE_SECONDS)
        self._headers = headers or {}
        self._session: aiohttp.ClientSession | None = None

    def _opened(self) -> aiohttp.ClientSession:
        """The session, made on first use: it belongs to the running loop."""
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=self._connections, keepalive_timeout=KEEPALIVE_SECONDS)
            self._session = aiohttp.ClientSession(
                connector=connector,
                headers={**self._headers, "Accept": "*/*", "Accept-Encoding": "identity"},
                auto_decompress=False,  # nothing packed is asked for; a small answer could unpack to any size
                cookie_jar=aiohttp.DummyCookieJar(),  # a session of its own for every call: endpoints set no cookies
            )
        return self._session

    @asynccontextmanager
    async def post(self, path: str, body: dict[str, Any], trace: str | None) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful response whose body is still to be read. Leaving early, by cancellation too, closes the connection at once."""
        headers = {"Content-Type": "application/json"}
        if trace:
            headers["traceparent"] = trace
        with translated():
            response = await self._begin(path, pydantic_core.to_json(body), headers)
            try:
                await refuse_error(response)
                yield response
                await _read_end(response)
            finally:
                if not response.content.at_eof():
                    response.close()
                response.release()

    async def _begin(self, path: str, data: bytes, headers: dict[str, str]) -> aiohttp.ClientResponse:
        """The head of the response. A pooled connection may have been closed by the server a moment ago: then once more, on a new one."""
        try:
            return await self._opened().post(self.url + path, data=data, headers=headers, timeout=self._timeout)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return await self._opened().post(self.url + path, data=data, headers={**headers, "Connection": "close"}, timeout=self._timeout)

    async def get_json(self, path: str) -> tuple[dict[str, Any], dict[str, str]]:
        """(body, headers by lower-case name) of a GET that must be quick."""
        with translated():
            async with self._opened().get(self.url + path, timeout=self._probe_timeout) as response:
                await refuse_error(response)
                return decode(await whole(response, MAX_BODY_BYTES)), {name.lower(): value for name, value in response.headers.items()}

    async def post_json(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """The body of a POST that must be quick."""
        with translated():
            async with self._opened().post(self.url + path, json=body, timeout=self._probe_timeout) as response:
                await refuse_error(response)
                return decode(await whole(response, MAX_BODY_BYTES))

    async def close(self) -> None:
        """Close the pool. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()


class translated:  # noqa: N801  (reads as a statement: `with translated():`)
    """Turns aiohttp's errors into `ModelCallFailed`."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL):
            raise ModelCallFailed(K.NODE_UNREACHABLE, "the endpoint does not accept connections") from error
        if isinstance(error, aiohttp.ServerDisconnectedError):
            raise ModelCallFailed(K.BROKEN_STREAM, "the endpoint closed the connection without an answer") from error
        if isinstance(error, TimeoutError):
            raise ModelCallFailed(K.NODE_UNREACHABLE, "the endpoint did not answer in time") from error
        if isinstance(error, aiohttp.ClientError | OSError):
            raise ModelCallFailed(K.BROKEN_STREAM, f"the connection to the endpoint broke: {type(error).__name__}") from error
