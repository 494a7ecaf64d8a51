"""The ingress as the CLI uses it: tutti's own jobs API over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import aiohttp

from infra.cli.answer import AnswerEnd, AnswerText, Note, Update
from infra.cli.exits import CommandExit, Exit
from infra.cli.settings import VARIABLES, CommandLineSettings, Server
from shared.contracts.base import PriorityClass
from shared.contracts.job import Job
from shared.contracts.result import Result
from shared.tls import client_context
from shared.tree import Tree

_CODES = {404: Exit.NOT_FOUND, 429: Exit.REFUSED, 503: Exit.REFUSED, 504: Exit.TIMEOUT}
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=5, sock_read=60)
"""An event stream is never silent longer than its heartbeat."""


def _key(settings: CommandLineSettings) -> dict[str, str]:
    key = settings.api_key.get_secret_value()
    return {"authorization": f"Bearer {key}"} if key else {}


def _connector(settings: CommandLineSettings) -> aiohttp.TCPConnector:
    """Checks certificates by the authorities that are named, else by the machine's own. Raises ConfigurationError."""
    return aiohttp.TCPConnector(ssl=client_context(settings.ca_file)) if settings.ca_file else aiohttp.TCPConnector()


def part(name: str) -> str:
    """A name that somebody typed, as one part of a path: nothing in it may lead elsewhere. CommandExit of what is no part."""
    if name in ("", ".", ".."):
        raise CommandExit(Exit.USAGE, f"nothing is called {name!r}")
    return quote(name, safe="@:")


class Api:
    """Calls of one command. Every error is a CommandExit with the exit code that it means."""

    def __init__(self, session: aiohttp.ClientSession, base: str, who: Server = "ingress") -> None:
        self._session = session
        self._base = base
        self._who = who

    async def submit(self, job: Job, priority_class: PriorityClass) -> str:
        """Returns the job's id once Kafka has the job."""
        body = json.loads(job.to_bytes()) | {"class": priority_class.value}
        if "tenant" not in job.model_fields_set:
            del body["tenant"]  # the key's
        return str((await self._json("POST", "/v1/jobs", body))["id"])

    async def status(self, job: str) -> dict[str, Any]:
        """What the ingress knows of the job."""
        return await self._json("GET", f"/v1/jobs/{part(job)}")

    async def tree(self, job: str) -> Tree:
        """Its steps, and what became of each."""
        return Tree.model_validate(await self._json("GET", f"/v1/jobs/{part(job)}/tree"))

    async def chart(self, job: str) -> str:
        """The same as a Mermaid chart."""
        async with self._session.get(f"{self._base}/v1/jobs/{part(job)}/tree?format=mermaid") as response:
            await self._check(response)
            return await response.text()

    async def cancel(self, job: str) -> dict[str, Any]:
        """Ask for the job's end."""
        return await self._json("DELETE", f"/v1/jobs/{part(job)}")

    async def events(self, job: str) -> AsyncIterator[dict[str, Any]]:
        """The job's events from its beginning to its end. `type` is the event's name: `status` is the whole of an older job, `place` what a
        comment says of its place in line.
        """
        async with self._session.get(f"{self._base}/v1/jobs/{part(job)}/events") as response:
            await self._check(response)
            name = ""
            async for line in response.content:
                if line.startswith(b"event:"):
                    name = line[6:].strip().decode()
                elif line.startswith(b": place "):
                    yield {"type": "place", "text": line[2:].strip().decode()}
                elif line.startswith(b"data:"):
                    yield {"type": name, **json.loads(line[5:])}

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        """Any route's answer; None when it has no body."""
        async with self._session.request(method, self._base + path, json=body) as response:
            await self._check(response)
            return await response.json() if response.status != 204 else None

    async def _json(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        async with self._session.request(method, self._base + path, json=body) as response:
            await self._check(response)
            found: dict[str, Any] = await response.json()
            return found

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        if response.status < 400:
            return
        try:
            error = (await response.json())["error"]
            message = str(error["message"])
        except (ValueError, KeyError, TypeError, aiohttp.ContentTypeError):
            message = f"the {self._who} answered {response.status} {response.reason}"
        if response.status == 401:
            message += " (TUTTI_API_KEY: the key that this command sends)"
        fallback = Exit.USAGE if response.status < 500 else Exit.FAILED
        raise CommandExit(_CODES.get(response.status, fallback), message)


@asynccontextmanager
async def api(base: str | None = None, tenant: str | None = None, *, who: Server = "ingress") -> AsyncGenerator[Api, None]:
    """A connection to `who` answers at `base`, or where the settings say. `tenant`: whose jobs and schedules are meant, where not the key's
    own.
    """
    settings = CommandLineSettings()
    base = settings.address_of(who) if base is None else base
    named = {} if tenant is None else {"x-tutti-tenant": tenant}
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=_key(settings) | named, connector=_connector(settings)) as session:
            yield Api(session, base, who)
    except aiohttp.InvalidURL as error:
        raise CommandExit(Exit.USAGE, f"{base} is not a URL") from error
    except aiohttp.ClientConnectorCertificateError as error:
        told = f"the certificate of the {who} at {base} does not hold (TUTTI_CA_FILE names who signs it)"
        raise CommandExit(Exit.UNREACHABLE, told) from error
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError) as error:
        raise CommandExit(
            Exit.UNREACHABLE, f"the {who} at {base} does not answer; `tutti status` shows what runs, {VARIABLES[who]} names another"
        ) from error


async def follow(connection: Api, job: str) -> AsyncIterator[Update]:
    """A submitted job's course, to its end."""
    async for event in connection.events(job):
        if event["type"] == "chunk":
            yield AnswerText(event["offset"], event["text"])
        elif "result" in event:
            yield AnswerEnd(Result.model_validate(event["result"]))
            return
        else:
            yield Note(describe(event))
    status = await connection.status(job)
    if "result" in status:
        yield AnswerEnd(Result.model_validate(status["result"]))


def describe(event: dict[str, Any]) -> str:
    """An event in a few words."""
    match event["type"]:
        case "place":
            return str(event["text"])
        case "job_accepted":
            return "accepted"
        case "step_asked":
            return f"{event.get('path', 'step')} waits for a node"
        case "step_claimed":
            return f"running on {event['node']}"
        case "step_answered":
            return f"answered by {event.get('node', 'a node')}"
        case "attempt_failed":
            return f"attempt {event['attempt']} failed ({event['failure']['kind']})"
        case kind:
            return str(kind).replace("_", " ")


def called(method: str, path: str, body: Any = None, *, tenant: str | None = None) -> Any:
    """One call of a command, and its answer. Raises CommandExit."""

    async def call() -> Any:
        async with api(tenant=tenant) as connection:
            return await connection.call(method, path, body)

    return asyncio.run(call())
