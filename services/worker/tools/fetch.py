"""The http tool: a GET of addresses that its operator allows, and of no others, whatever a page or a name server says.

What an address is, is judged before each hop, redirects included; where its name leads is judged by the addresses that the connection then
really uses, so a name that changes between two look-ups gains nothing. No cookies, no credentials, no proxy of the environment.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from services.worker.backends.base import ModelCallFailed
from services.worker.tools.calling import ToolCall, refused, text_argument
from services.worker.tools.declared import HttpTool
from shared.addresses import PORTS, NotAllowed, is_odd, is_public
from shared.contracts.failure import FailureKind as K
from shared.resolvers import CheckedResolver, NameServer

MOST_HOPS = 4
MOST_BYTES = 1024 * 1024
"""Of a page: what lies behind is not read."""
_TEXT = re.compile(r"text/|application/(?:[a-z0-9.+-]*\+)?(?:json|xml|yaml|javascript)", re.IGNORECASE)


def check_address(url: str, allow: tuple[str, ...]) -> SplitResult:
    """The address, in parts, if one of the allowed ones covers it. Raises NotAllowed."""
    try:
        asked, port = urlsplit(url), urlsplit(url).port
    except ValueError:
        raise NotAllowed from None
    if asked.scheme not in PORTS or not asked.hostname or "@" in asked.netloc or is_odd(url):
        raise NotAllowed
    for entry in map(urlsplit, allow):
        same_host = (entry.scheme, entry.hostname) == (asked.scheme, asked.hostname)
        if same_host and (entry.port or PORTS[entry.scheme]) == (port or PORTS[asked.scheme]) and _below(asked.path or "/", entry.path):
            return asked
    raise NotAllowed


def _below(path: str, prefix: str) -> bool:
    prefix = prefix or "/"
    return path == prefix or path.startswith(prefix if prefix.endswith("/") else f"{prefix}/")


class HttpFetch:
    """One http tool. `resolver`: who looks names up; tests hand one in."""

    def __init__(self, terms: HttpTool, resolver: AbstractResolver | None = None) -> None:
        self._terms, self._resolver = terms, resolver

    async def call(self, call: ToolCall) -> str:
        url = text_argument(call, "url").strip()
        private = self._terms.private_addresses
        resolver = CheckedResolver(self._resolver or NameServer(), lambda address: private or is_public(address))
        connector = aiohttp.TCPConnector(resolver=resolver, force_close=True)
        headers = {"Accept-Encoding": "identity", "User-Agent": "tutti"}
        async with aiohttp.ClientSession(
            connector=connector, headers=headers, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
        ) as session:
            for _ in range(MOST_HOPS):
                page = await self._hop(session, url)
                if isinstance(page, str):
                    return page
                url = urljoin(url, page.location)
        raise refused(f"the address leads on and on: more than {MOST_HOPS} redirects")

    async def _hop(self, session: aiohttp.ClientSession, url: str) -> str | _Redirect:
        try:
            asked = check_address(url, self._terms.allow)
        except NotAllowed:
            raise refused(f"this address is not allowed; allowed: {', '.join(self._terms.allow)}") from None
        try:
            async with session.get(URL(asked.geturl(), encoded=True), allow_redirects=False) as response:
                if response.status in (301, 302, 303, 307, 308) and "location" in response.headers:
                    return _Redirect(response.headers["location"])
                return await _read(response)
        except aiohttp.ClientConnectorError as error:
            raise ModelCallFailed(K.NODE_UNREACHABLE, f"the page's server takes no connection: {type(error).__name__}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ModelCallFailed(K.MODEL_ERROR, f"the page could not be read: {type(error).__name__}") from error


class _Redirect:
    def __init__(self, location: str) -> None:
        self.location = location


async def _read(response: aiohttp.ClientResponse) -> str:
    if response.status in (429, 503):
        raise ModelCallFailed(K.MODEL_ERROR, f"the page's server is busy: status {response.status}")
    if response.status >= 500:
        raise ModelCallFailed(K.MODEL_ERROR, f"the page's server failed: status {response.status}")
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ModelCallFailed(K.BAD_REQUEST, "the page is packed, though it was asked for as it is")
    kind = response.headers.get("content-type", "text/plain")
    if not _TEXT.match(kind):
        raise ModelCallFailed(K.BAD_REQUEST, "the page is no text")
    body = b""
    async for part in response.content.iter_chunked(64 * 1024):
        body += part
        if len(body) >= MOST_BYTES:
            break
    text = body[:MOST_BYTES].decode(_charset(response), "replace")
    if "html" in kind.lower():
        text = readable_text(text)
    return text if response.status < 400 else f"status {response.status}\n{text}"


def _charset(response: aiohttp.ClientResponse) -> str:
    name = response.charset or "utf-8"
    try:
        "".encode(name)
    except (LookupError, ValueError):
        return "utf-8"
    return name


class _Text(HTMLParser):
    """What a page says, without what it looks like or does."""

    _UNSEEN = frozenset({"script", "style", "noscript", "template", "svg", "head"})
    _BREAKS = frozenset({"p", "div", "br", "li", "tr", "h1", "h2", "h3", "h4", "h5", "h6", "section", "article", "pre", "title"})

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self._unseen: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in self._UNSEEN:
            self._unseen.append(tag)
        elif tag in self._BREAKS:
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if self._unseen and tag == self._unseen[-1]:
            self._unseen.pop()

    def handle_data(self, data: str) -> None:
        if not self._unseen:
            self.parts.append(data)


def readable_text(html: str) -> str:
    """The text of a page, a line a block."""
    parser = _Text()
    parser.feed(html)
    parser.close()
    return "\n".join(_lines("".join(parser.parts)))


def _lines(text: str) -> Iterator[str]:
    for line in text.splitlines():
        if words := " ".join(line.split()):
            yield words
