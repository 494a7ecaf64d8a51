"""Which web pages may read answers: CORS, as the Fetch Standard has it. Pure.

A browser asks with OPTIONS before it sends what a plain form could not send.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

HeaderList = list[tuple[bytes, bytes]]

ANY, LOCAL = "*", "local"
_LOCAL = re.compile(r"https?://(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?", re.IGNORECASE)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s,]+", re.IGNORECASE)
_HEADER_NAMES = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z, -]{1,2048}")
_ASKED_METHOD, _ASKED_HEADERS = b"access-control-request-method", b"access-control-request-headers"
_REMEMBERED_SECONDS = b"600"


def parse(setting: str) -> frozenset[str]:
    """`*`, `local` and origins (`https://chat.example.org`), separated by commas. Raises ValueError that names what is none of these."""
    found = [part.strip().lower().rstrip("/") for part in setting.split(",") if part.strip()]
    wrong = [part for part in found if part not in (ANY, LOCAL) and not _ORIGIN.fullmatch(part)]
    if wrong:
        raise ValueError(f"not an origin: {', '.join(wrong)}; an origin is scheme://host or scheme://host:port")
    return frozenset(found)


class Origins:
    """Pages of these origins may read answers. `local`: pages of this machine, on any port."""

    def __init__(self, setting: str) -> None:
        self._named = parse(setting)
        self._any = ANY in self._named
        self._local = LOCAL in self._named

    def allows(self, origin: str) -> bool:
        """Whether the browser may show an answer to this page."""
        return self._any or origin.lower() in self._named or (self._local and _LOCAL.fullmatch(origin) is not None)

    def of_answer(self, headers: Iterable[tuple[bytes, bytes]]) -> HeaderList:
        """What every answer to a request with these headers says, good or bad."""
        if self._any:
            return [(b"access-control-allow-origin", b"*"), (b"access-control-expose-headers", b"*")]
        origin = _value(headers, b"origin")
        if origin is None or not self.allows(origin.decode("latin-1")):
            return [(b"vary", b"Origin")]
        return [(b"vary", b"Origin"), (b"access-control-allow-origin", origin), (b"access-control-expose-headers", b"*")]

    def of_preflight(self, headers: Iterable[tuple[bytes, bytes]], methods: bytes) -> HeaderList:
        """Besides: the methods of the path, and the headers that the page asked for (`*` would not stand for Authorization)."""
        headers = list(headers)
        origin = _value(headers, b"origin")
        if origin is None or _value(headers, _ASKED_METHOD) is None or not self.allows(origin.decode("latin-1")):
            return []
        asked = _value(headers, _ASKED_HEADERS)
        found = [(b"access-control-allow-methods", methods), (b"access-control-max-age", _REMEMBERED_SECONDS)]
        if asked is not None and _HEADER_NAMES.fullmatch(asked):
            found.append((b"access-control-allow-headers", asked))
        return [*found, (b"vary", b"Access-Control-Request-Method, Access-Control-Request-Headers")]


def _value(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes | None:
    return next((value for name, value in headers if name == wanted), None)
