"""The ingress as the CLI uses it, against a small server that speaks its API."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from click.testing import CliRunner

from infra.cli.answer import AnswerEnd, AnswerText, Note
from infra.cli.exits import CommandExit, Exit
from infra.cli.main import main
from infra.cli.rest import api, follow
from infra.cli.settings import VARIABLES, CommandLineSettings, Server
from shared.contracts.base import PriorityClass
from shared.contracts.job import Job
from shared.contracts.result import Result, Status

RESULT = Result(job="j1", status=Status.SUCCEEDED, accepted_at=1, finished_at=2).model_dump(mode="json", exclude_none=True)


class Ingress:
    """Remembers what it was sent; answers what the test says."""

    def __init__(self) -> None:
        self.submitted: list[Any] = []
        self.tenants: list[str | None] = []
        self.stream: list[bytes] = []
        self.answer: tuple[int, Any] = (202, {"id": "j1"})
        self.status: Any = {"id": "j1", "state": "running"}

    async def on_submit(self, request: web.Request) -> web.Response:
        self.submitted.append(await request.json())
        status, body = self.answer
        return web.json_response(body, status=status) if body is not None else web.Response(status=status, text="<html>")

    async def on_status(self, request: web.Request) -> web.Response:
        self.tenants.append(request.headers.get("x-tutti-tenant"))
        return web.json_response(self.status)

    async def on_tree(self, request: web.Request) -> web.Response:
        if request.query.get("format") == "mermaid":
            return web.Response(text="flowchart TD\n", content_type="text/vnd.mermaid")
        return web.json_response({"id": "j1", "state": "settled", "status": "failed", "later_field": 1})

    async def on_events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        for part in self.stream:
            await response.write(part)
        return response

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[str, None]:
        application = web.Application()
        application.add_routes(
            [
                web.post("/v1/jobs", self.on_submit),
                web.get("/v1/jobs/{job}", self.on_status),
                web.get("/v1/jobs/{job}/events", self.on_events),
                web.get("/v1/jobs/{job}/tree", self.on_tree),
            ]
        )
        server = TestServer(application)
        await server.start_server()
        try:
            yield str(server.make_url("/")).rstrip("/")
        finally:
            await server.close()


def event(name: str, **data: Any) -> bytes:
    return f"id: 1.0\nevent: {name}\ndata: {json.dumps(data)}\n\n".encode()


async def test_a_job_is_posted_with_its_class() -> None:
    """The job's own JSON and `class` beside it."""
    ingress = Ingress()
    async with ingress.serving() as base, api(base) as connection:
        assert await connection.submit(Job(id="j1", prompt="a"), PriorityClass.BATCH) == "j1"
    assert ingress.submitted[0] | {"class": "batch", "prompt": "a", "id": "j1"} == ingress.submitted[0]


async def test_a_tenant_is_named_where_it_is_not_the_keys() -> None:
    """In the body only when the user gave one; with every call where one is given: an id is one of that tenant's."""
    ingress = Ingress()
    async with ingress.serving() as base:
        async with api(base) as connection:
            await connection.submit(Job(id="j1", prompt="a"), PriorityClass.BATCH)
            await connection.status("j1")
        async with api(base, "acme") as connection:
            await connection.submit(Job(id="j1", prompt="a", tenant="acme"), PriorityClass.BATCH)
            await connection.status("j1")
    assert [body.get("tenant") for body in ingress.submitted] == [None, "acme"]
    assert ingress.tenants == [None, "acme"]


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, Exit.USAGE),
        (401, Exit.USAGE),
        (404, Exit.NOT_FOUND),
        (409, Exit.USAGE),
        (413, Exit.USAGE),
        (429, Exit.REFUSED),
        (503, Exit.REFUSED),
        (504, Exit.TIMEOUT),
        (500, Exit.FAILED),
    ],
)
async def test_an_error_is_its_message_and_a_code(status: int, code: Exit) -> None:
    """The ingress's own sentence is shown; who lacks a key is told what gives it."""
    ingress = Ingress()
    ingress.answer = (status, {"error": {"code": "x", "message": "because"}})
    with pytest.raises(CommandExit) as caught:
        async with ingress.serving() as base, api(base) as connection:
            await connection.submit(Job(prompt="a"), PriorityClass.BATCH)
    assert caught.value.code is code
    assert caught.value.message.split(" (TUTTI_API_KEY")[0] == "because"
    assert ("TUTTI_API_KEY" in caught.value.message) == (status == 401)


async def test_an_error_of_something_else_is_told() -> None:
    """A proxy's page is no JSON."""
    ingress = Ingress()
    ingress.answer = (502, None)
    with pytest.raises(CommandExit) as caught:
        async with ingress.serving() as base, api(base) as connection:
            await connection.submit(Job(prompt="a"), PriorityClass.BATCH)
    assert caught.value.message == "the ingress answered 502 Bad Gateway"


@pytest.mark.parametrize(("who", "variable"), VARIABLES.items())
async def test_who_answers_is_named(who: Server, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found where his variable says; a proxy before the sink is not the ingress."""
    ingress = Ingress()
    ingress.answer = (502, None)
    async with ingress.serving() as base:
        monkeypatch.setenv(variable, f"{base}/")
        with pytest.raises(CommandExit) as caught:
            async with api(who=who) as connection:
                await connection.call("POST", "/v1/jobs", {})
    assert caught.value.message == f"the {who} answered 502 Bad Gateway"


@pytest.mark.parametrize(
    ("variable", "value"), [("TUTTI_URL", ""), ("TUTTI_SINK_URL", ""), ("TUTTI_API_KEY", "hidden\n"), ("TUTTI_API_KEY", "x" * 20_000)]
)
def test_a_wrong_setting_of_the_command_line_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """78 and one line, without the value."""
    monkeypatch.setenv(variable, value)
    done = CliRunner().invoke(main, ["usage"] if "SINK" in variable else ["jobs", "get", "j1"])
    assert done.exit_code == Exit.SETTINGS
    assert done.output.startswith(f"tutti: wrong settings: {variable}: ")
    assert len(done.output.splitlines()) == 1
    assert "hidden" not in done.output


def test_a_key_is_shown_by_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by the settings' repr; a token of an issuer is a long one."""
    monkeypatch.setenv("TUTTI_API_KEY", "k" * 10_000)
    settings = CommandLineSettings()
    assert settings.api_key.get_secret_value() == "k" * 10_000
    assert "kk" not in f"{settings!r} {settings}"


async def test_nobody_there_is_unreachable() -> None:
    """Exit code 3, with what to do."""
    with pytest.raises(CommandExit) as caught:
        async with api("http://127.0.0.1:9") as connection:
            await connection.status("j1")
    assert caught.value.code is Exit.UNREACHABLE


async def test_events_become_notes_text_and_the_end() -> None:
    """Comments are passed over; a piece split over packets is whole; nothing is read after the end."""
    ingress = Ingress()
    chunk = event("chunk", type="chunk", offset=0, text="Mars.")
    ingress.stream = [
        event("job_accepted", type="job_accepted"),
        b": keep-alive\n\n",
        event("step_claimed", type="step_claimed", node="n1"),
        chunk[:30],
        chunk[30:],
        event("job_settled", type="job_settled", result=RESULT),
        event("job_accepted", type="job_accepted"),
    ]
    async with ingress.serving() as base, api(base) as connection:
        updates = [update async for update in follow(connection, "j1")]
    assert updates == [Note("accepted"), Note("running on n1"), AnswerText(0, "Mars."), AnswerEnd(Result.model_validate(RESULT))]


@pytest.mark.parametrize(("form", "begins", "code"), [("--tree", "j1 job: failed", Exit.FAILED), ("--mermaid", "flowchart TD\n", Exit.OK)])
async def test_a_tree_is_drawn_or_a_chart(form: str, begins: str, code: Exit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit code is the job's; a field of a newer ingress hides nothing."""
    async with Ingress().serving() as base:
        monkeypatch.setenv("TUTTI_URL", base)
        done = await asyncio.to_thread(CliRunner().invoke, main, ["jobs", "get", "j1", form])
    assert done.stdout.startswith(begins)
    assert done.exit_code == code


async def test_a_place_in_line_is_shown_while_a_job_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the progress of `tutti submit`, and in `tutti jobs get`."""
    ingress = Ingress()
    ingress.stream = [b": keep-alive\n\n", b": place 12, starts in ~40 s\n\n", event("job_settled", result=RESULT)]
    ingress.status = {"id": "j1", "state": "accepted", "line": {"place": 12, "seconds": 40.2, "earliest": 20.0, "latest": 70.4}}
    async with ingress.serving() as base:
        async with api(base) as connection:
            updates = [update async for update in follow(connection, "j1")]
        assert updates == [Note("place 12, starts in ~40 s"), AnswerEnd(Result.model_validate(RESULT))]
        monkeypatch.setenv("TUTTI_URL", base)
        done = await asyncio.to_thread(CliRunner().invoke, main, ["jobs", "get", "j1"])
        assert "place 12, starts in ~40 s (20 to 70 s)" in done.output
        done = await asyncio.to_thread(CliRunner().invoke, main, ["jobs", "events", "j1"])
        assert "place 12, starts in ~40 s" in done.output


async def test_an_old_jobs_status_is_its_end() -> None:
    """The ingress sends the whole status where the events are gone."""
    ingress = Ingress()
    ingress.stream = [event("status", id="j1", state="settled", result=RESULT)]
    async with ingress.serving() as base, api(base) as connection:
        assert [update async for update in follow(connection, "j1")] == [AnswerEnd(Result.model_validate(RESULT))]


async def test_a_stream_that_ends_early_is_asked_about() -> None:
    """The status tells the end when the events did not."""
    ingress = Ingress()
    ingress.status = {"id": "j1", "state": "settled", "result": RESULT}
    async with ingress.serving() as base, api(base) as connection:
        assert [update async for update in follow(connection, "j1")] == [AnswerEnd(Result.model_validate(RESULT))]


@pytest.mark.parametrize("typed", ["a/b", "trip?turns=0", "a#b", "..", "", "%2e%2e", "a b", "\N{LATIN SMALL LETTER U WITH DIAERESIS}"])
@pytest.mark.parametrize(
    "command",
    [
        ("jobs", "get"), ("jobs", "cancel"), ("conversations", "get"), ("conversations", "delete"), ("tools", "show"), ("tools", "remove"),
        ("schedules", "delete"), ("reviews", "show"), ("tenants", "show"), ("tenants", "remove"),
    ],
)  # fmt: skip
async def test_a_name_that_is_typed_leads_to_no_other_route(command: tuple[str, str], typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What comes is one part of a path with just that name, and no query; a name that is no part is wrong usage, and nothing is sent."""
    called: list[tuple[str, str]] = []

    async def on_any(request: web.Request) -> web.Response:
        called.append((request.raw_path.partition("?")[0], request.query_string))
        return web.json_response({"error": {"message": "unknown"}}, status=404)

    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", on_any)
    async with TestServer(application) as server:
        monkeypatch.setenv("TUTTI_URL", str(server.make_url("/")))
        done = await asyncio.to_thread(CliRunner().invoke, main, [*command, "--", typed])
    if typed in ("", ".."):
        assert (done.exit_code, called) == (Exit.USAGE, [])
        return
    assert done.exit_code == Exit.NOT_FOUND
    [(path, query)] = called
    assert [unquote(part) for part in path.split("/")[3:]] == [typed]
    assert query in ("", "turns=50")


@pytest.mark.parametrize(("state", "told"), [("accepted", True), ("running", False)])
async def test_a_job_that_waits_for_its_turn_says_so(state: str, told: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it comes there are no steps that could tell anything."""
    ingress = Ingress()
    ingress.status = {"id": "j1", "state": state, "conversation": "dinner"}
    async with ingress.serving() as base:
        monkeypatch.setenv("TUTTI_URL", base)
        done = await asyncio.to_thread(CliRunner().invoke, main, ["jobs", "get", "j1"])
    assert ("waits for its turn" in done.stdout, "dinner" in done.stdout) == (told, True)
