"""Asking: one client of the ingress whose answers may come from the cache."""

from __future__ import annotations

import aiohttp

from infra.lab.bench.figures import MS
from infra.lab.bench.runner import Unmeasured
from shared.clock import SystemClock

_CLOCK = SystemClock()


class Asking:
    """One question at a time, or several at once. `url`: of the ingress."""

    def __init__(self, session: aiohttp.ClientSession, url: str, model: str) -> None:
        self._session, self._url, self._model = session, url, model

    async def ask(self, question: str, *, wish: str = "", tenant: str = "bench", system: str = "") -> tuple[str, float]:
        """What `x-tutti-cache` says (nothing where the cache is not asked), and milliseconds. `wish`: the same header of the request; its
        absence asks nothing of the cache. Raises Unmeasured.
        """
        said = [{"role": "system", "content": system}] if system else []
        messages = [*said, {"role": "user", "content": question}]
        body = {"model": self._model, "messages": messages, "temperature": 0, "max_tokens": 200}
        headers = {"x-tutti-tenant": tenant, **({"x-tutti-cache": wish} if wish else {})}
        begun = _CLOCK.monotonic()
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body, headers=headers) as response:
            told = await response.text()
            if response.status != 200:
                raise Unmeasured(f"the ingress answered {response.status}: {told[:200]}")
            return response.headers.get("x-tutti-cache", ""), (_CLOCK.monotonic() - begun) * MS
