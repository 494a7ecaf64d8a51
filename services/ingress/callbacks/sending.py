"""Sending: one POST to a receiver, and what came of it. No redirect is followed, no answer read to its end."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import Mapping

import aiohttp
from aiohttp.abc import AbstractResolver
from yarl import URL

from services.ingress.callbacks.allowed import CallbackRules
from services.ingress.callbacks.port import Heard
from services.ingress.settings import CallbackSettings
from shared.resolvers import CheckedResolver, NameServer

_READ_BYTES = 4_096
"""Of an answer: the connection of a longer one is not used again."""
_SECONDS = re.compile(r"[0-9]{1,7}")


class HttpPost:
    """Implements `Post`. `tls`: True for the system's own certificates, which aiohttp reads once a process. `resolver`: who looks names up;
    tests hand one in.
    """

    def __init__(
        self, settings: CallbackSettings, rules: CallbackRules, tls: ssl.SSLContext | bool, resolver: AbstractResolver | None = None
    ) -> None:
        self._settings, self._rules, self._tls, self._resolver = settings, rules, tls, resolver
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Heard:
        try:
            async with asyncio.timeout(self._settings.timeout_seconds):
                sent = self._opened().post(URL(url, encoded=True), data=body, headers=headers, allow_redirects=False)
                async with sent as response:
                    await response.content.read(_READ_BYTES)
                    return _heard(response)
        except TimeoutError:
            return Heard(False, f"no answer within {self._settings.timeout_seconds:g} s")
        except aiohttp.ClientConnectorCertificateError:
            return Heard(False, "its certificate is not trusted")
        except aiohttp.ClientSSLError:
            return Heard(False, "no TLS connection")
        except aiohttp.ClientConnectorError:
            return Heard(False, "no connection, or its name leads to no address that is allowed")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Heard(False, f"the exchange broke off: {type(error).__name__}")

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            resolver = CheckedResolver(self._resolver or NameServer(), self._rules.leads_to)
            connector = aiohttp.TCPConnector(resolver=resolver, use_dns_cache=False, ssl=self._tls, limit=self._settings.lanes.sends)
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                headers={"accept-encoding": "identity"},
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        return self._session

    async def close(self) -> None:
        """Of all connections."""
        if self._session is not None:
            await self._session.close()


def _heard(response: aiohttp.ClientResponse) -> Heard:
    if 200 <= response.status < 300:
        return Heard(True)
    wish = response.headers.get("retry-after", "")
    # An instant is passed over: two machines' clocks are not compared.
    seconds = float(wish) if _SECONDS.fullmatch(wish) else None
    return Heard(False, f"status {response.status}", seconds, gone=response.status == 410)
