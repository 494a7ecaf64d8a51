"""Callers: people at the ingresses during the whole run. Each asks a question as a chat, as a stream, as a job whose events he follows.

The answers must be equal, whatever dies: nothing of a stream is lost or told twice. What they meet besides is noted with its moment:
an upgrade is no excuse for any of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from pydantic_core import from_json, to_json

from infra.lab.chaos.figures import Struck
from infra.lab.chaos.jobs import Met
from infra.lab.chaos.load import JobRefused
from infra.lab.chaos.plan import FaultKind
from shared.clock import Clock

CALLERS = 6
PAUSE_SECONDS = 0.2
"""Between two questions of one caller: a few calls a second in all."""
AGAIN_SECONDS = 0.5
"""After a broken connection; after a refusal what it says."""
_CALL_SECONDS = 60.0
_MODEL = "small"


@dataclass(slots=True)
class Balancer:
    """What stands before the ingresses. It leads to each in turn but to those that it was told of (`away`)."""

    urls: Sequence[str]
    away: set[str] = field(default_factory=set)
    _turn: int = 0

    def url(self) -> str:
        """Where the next request goes."""
        self._turn += 1
        there = [url for url in self.urls if url not in self.away] or self.urls
        return there[self._turn % len(there)]


class _Again(Exception):
    """Not answered; to be asked again in so many seconds. `what` None: he was told to go elsewhere, as readers of events are."""

    def __init__(self, what: str | None, seconds: float = AGAIN_SECONDS) -> None:
        super().__init__(what, seconds)
        self.what, self.seconds = what, seconds


class Callers:
    """`run` until `enough` is set; then each ends with the question that it has."""

    def __init__(self, balancer: Balancer, prefix: str, met: list[Met], clock: Clock, *, callers: int = CALLERS) -> None:
        self._callers = callers
        self._balancer, self._prefix, self._met, self._clock = balancer, prefix, met, clock
        self.enough = asyncio.Event()
        self.answered = 0
        self.wrong: list[str] = []
        """Questions whose answers differ."""

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=_CALL_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session, asyncio.TaskGroup() as group:
            for caller in range(self._callers):
                group.create_task(self._ask_on(session, caller))

    async def _ask_on(self, session: aiohttp.ClientSession, caller: int) -> None:
        number = 0
        while not self.enough.is_set():
            number += 1
            question = f"{self._prefix}{caller}-{number}"
            answers = [await self._answer(session, kind(question)) for kind in (_Chat, _Stream, _Job)]
            if len(set(answers)) != 1 or not answers[0]:
                self.wrong.append(f"{question}: {answers}")
            await self._clock.sleep(PAUSE_SECONDS)

    async def _answer(self, session: aiohttp.ClientSession, asked: _Chat | _Stream | _Job) -> str:
        """Asked again, under the same name, until there is one."""
        while True:
            url = self._balancer.url()
            try:
                answer = await asked.ask(session, url)
            except _Again as again:
                what, seconds = again.what, again.seconds
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                what, seconds = f"{type(error).__name__}: {error}", AGAIN_SECONDS
            else:
                self.answered += 1
                return answer
            if what is not None:
                self._met.append(Met(self._clock.monotonic(), f"{type(asked).__name__.strip('_')} {asked.question} at {url}: {what[:200]}"))
            await self._clock.sleep(seconds)


def noticed(met: Iterable[Met], struck: Iterable[Struck], kinds: Collection[FaultKind] = (FaultKind.UPGRADE,)) -> list[Met]:
    """What callers met while faults of these kinds were under way."""
    spans = [(one.at, one.over_at) for one in struck if one.fault.kind in kinds]
    return [one for one in met if any(start <= one.at <= end for start, end in spans)]


@dataclass(slots=True)
class _Chat:
    question: str

    async def ask(self, session: aiohttp.ClientSession, url: str) -> str:
        async with _asking(session, f"{url}/v1/chat/completions", f"c-{self.question}", _chat_of(self.question)) as response:
            found = await _json(response)
        return str(found["choices"][0]["message"]["content"])


@dataclass(slots=True)
class _Stream:
    question: str

    async def ask(self, session: aiohttp.ClientSession, url: str) -> str:
        parts: list[str] = []
        body = {**_chat_of(self.question), "stream": True}
        async with _asking(session, f"{url}/v1/chat/completions", f"s-{self.question}", body) as response:
            await _check(response)
            async for line in response.content:
                if line.strip() == b"data: [DONE]":
                    return "".join(parts)
                if line.startswith(b"data: "):
                    told = from_json(line.removeprefix(b"data: "))
                    if "error" in told:
                        raise _Again(str(told["error"]))
                    parts += [choice["delta"].get("content") or "" for choice in told["choices"]]
        raise _Again("the stream broke off")


@dataclass(slots=True)
class _Job:
    """What breaks off goes on behind what he has, at whichever ingress."""

    question: str
    _id: str = ""
    _cursor: str = ""
    _parts: list[str] = field(default_factory=list)

    async def ask(self, session: aiohttp.ClientSession, url: str) -> str:
        if not self._id:
            body = {"prompt": self.question, "model": _MODEL, "stream": True}
            async with _asking(session, f"{url}/v1/jobs", f"j-{self.question}", body) as response:
                self._id = (await _json(response))["id"]
        behind = {"last-event-id": self._cursor} if self._cursor else {}
        async with session.get(f"{url}/v1/jobs/{self._id}/events", headers=behind) as response:
            await _check(response)
            ended = await self._read(response)
        if not ended:
            raise _Again(None, 0.0)
        async with session.get(f"{url}/v1/jobs/{self._id}") as response:
            answer = str((await _json(response))["result"]["answer"]["text"])
        return answer if not self._parts or "".join(self._parts) == answer else f"{self._parts} instead of {answer}"

    async def _read(self, response: aiohttp.ClientResponse) -> bool:
        """Whether the job has ended."""
        name = b""
        async for line in response.content:
            field_, _, value = line.rstrip(b"\n").partition(b": ")
            if field_ == b"id":
                self._cursor = value.decode()
            elif field_ == b"event":
                name = value
            elif field_ == b"data" and name == b"chunk":
                self._parts.append(from_json(value)["text"])
            elif field_ == b"data" and name in (b"job_settled", b"status"):
                return True
        return False


def _chat_of(question: str) -> dict[str, Any]:
    return {"model": _MODEL, "messages": [{"role": "user", "content": question}]}


def _asking(session: aiohttp.ClientSession, url: str, name: str, body: dict[str, Any]) -> Any:
    return session.post(url, data=to_json(body), headers={"content-type": "application/json", "idempotency-key": name})


async def _check(response: aiohttp.ClientResponse) -> None:
    if response.status in (400, 409, 422):
        raise JobRefused(f"the ingress refuses a caller: {response.status} {(await response.text())[:300]}")
    if response.status >= 400:
        seconds = float(response.headers.get("retry-after", AGAIN_SECONDS))
        raise _Again(f"{response.status} {(await response.text())[:200]}", seconds)


async def _json(response: aiohttp.ClientResponse) -> dict[str, Any]:
    await _check(response)
    found: dict[str, Any] = from_json(await response.read())
    return found
