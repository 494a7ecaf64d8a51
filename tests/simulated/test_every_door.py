"""Promise: whatever is sent to any operation of the OpenAPI document is answered as the document says: with a status, a type of content and
a form that stand there, in the dialect's own form of errors; nothing that anybody sends is ever a 500 (simulated, virtual time).

How: schemathesis draws requests from the document, half of them as it says, half not; one ingress of a whole in-memory cluster answers.
What is there stands in for drawn names, else nearly all would only be unknown. Drawn anew each time: a failure prints how to repeat it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from services.ingress.dialects import served
from services.ingress.http.openapi import document
from shared.contracts.chat import Operation
from shared.contracts.keys import KIND, Role
from tests.support.cluster import nodes
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.processes import ProcessLoop
from tests.support.cluster.rest import Answer, Request
from tests.support.cluster.world import World
from tests.support.keys import api_key

pytestmark = pytest.mark.usefixtures("quiet")

DOOR = "ingress-1"
BESIDE = ("/healthz", "/readyz", "/metrics")
"""Of the process, not of the ingress."""
DOCUMENT = schemathesis.openapi.from_dict(document("tutti", "1", served()))
OPERATIONS = {f"{one.method} {one.path}": one for one in (found.ok() for found in DOCUMENT.get_all_operations()) if one.path not in BESIDE}
EXAMPLES = max(4, settings.default.max_examples // 8)
ROOT = (b"authorization", b"Bearer root")
HELLO = {"prompt": "hello", "model": nodes.MODEL}
THERE: list[tuple[str, str, str, Any]] = [
    ("/v1/jobs", "order-1", "POST /v1/jobs?wait=60", {"id": "order-1", **HELLO}),
    ("/v1/responses", "", "POST /v1/responses", {"input": "hello", "model": nodes.MODEL, "store": True}),
    ("/v1/conversations", "talk", "POST /v1/jobs?wait=60", {"conversation": "talk", **HELLO}),
    ("/v1/schedules", "nightly", "PUT /v1/schedules/nightly", {"cron": "0 3 * * *", "job": HELLO}),
    ("/v1/keys", "team", "PUT /v1/keys/team", {"tenant": "team"}),
    ("/v1/tenants", "acme", "PUT /v1/tenants/acme", {"calls": 1_000}),
    ("/v1/prompts", "greeting", "PUT /v1/prompts/greeting", {"template": "Hello {{ name }}", "variables": ["name"]}),
    ("/v1/agents", "poet", "PUT /v1/agents/poet", {"system": "You rhyme."}),
    ("/v1/profiles", "fast", "PUT /v1/profiles/fast", {"options": {"temperature": 0.0}}),
    ("/v1/cards", "smart", "PUT /v1/cards/smart", {"model": nodes.MODEL, "synonyms": ["gpt-4o"]}),
    ("/v1/tools", "clock", "PUT /v1/tools/clock", {"parameters": {"type": "object"}}),
    ("/v1/models", nodes.MODEL, "", None),
]
"""Under a path, the name of something that is there, and how it came to be."""
NOT_OURS = (502, 503, 504)
"""Of the server, and still an answer: a node's, no node, a deadline that the client named."""
STREAMED = {dialect.path for dialect in served() if dialect.operation is not Operation.EMBED}
ONE_INPUT = ("prompt", "messages", "texts", "operation", "pattern", "chain")
"""Which of a job's fields go with which cannot be said in a schema."""


class Doors:
    """The cluster, an ingress that is asked, and names of what is there."""

    def __init__(self) -> None:
        self.world = World(3, FaultMix())
        self.names: dict[str, str] = {}

    async def open(self) -> None:
        await self.world.__aenter__()
        self.world.declare(KIND, "root", api_key("root", role=Role.ADMIN).to_bytes())
        self.world.start_all()
        assert await self.world.until(lambda: all(found.service.readiness().ready for found in self.world.instances.values()), 60.0)
        made = await self.ask(Request("POST", "/v1/keys", {"name": "team", "tenant": "team"}, (ROOT,), gives_up_after=60.0))
        assert made.status == 201, made.body

    async def furnish(self, path: str) -> None:
        """What may have been deleted is there again."""
        for under, name, how, body in THERE:
            if not path.startswith(under):
                continue
            self.names[under] = name
            if how:
                method, where = how.split()
                made = await self.ask(Request(method, where, body, (ROOT,), gives_up_after=60.0))
                self.names[under] = name or made.json["id"]

    async def ask(self, request: Request) -> Answer:
        task = self.world.call(DOOR, request.run(self.world.instances[DOOR].service.asgi()))
        assert task is not None
        await task
        await asyncio.sleep(0.01)  # else time would hardly go on
        return request.answer

    def salt(self, case: Any, *, named: bool, stream: bool) -> None:
        """What is named is there, and what is asked for can be answered."""
        known = next((name for path, name in self.names.items() if case.path.startswith(path)), None)
        if named and known is not None and "id" in (case.path_parameters or {}):
            case.path_parameters["id"] = known
        if not named or not isinstance(case.body, dict):
            return
        if case.path in STREAMED:
            case.body |= {"model": nodes.MODEL, "stream": stream}
        elif "model" in case.body:
            case.body["model"] = nodes.MODEL
        job: Any = case.body
        if "cron" in job:
            job, case.body["cron"] = job.get("job"), "0 3 * * *"
        if isinstance(job, dict) and case.path.startswith(("/v1/jobs", "/v1/schedules")):
            for name in ONE_INPUT:
                job.pop(name, None)
            job |= HELLO

    async def close(self) -> None:
        await self.world.__aexit__()


Stage = tuple[asyncio.Runner, Doors]


@pytest.fixture(scope="module")
def doors() -> Iterator[Stage]:
    with asyncio.Runner(loop_factory=ProcessLoop) as runner:
        found = Doors()
        runner.run(found.open())
        yield runner, found
        runner.run(found.close())


def sent(case: Any) -> requests.PreparedRequest | None:
    """As a client would send it; None where no client can."""
    told = case.as_transport_kwargs("http://test")
    kept = {name: told.get(name) for name in ("method", "url", "headers", "params", "cookies", "json", "data")}
    try:
        return requests.Request(**kept).prepare()
    except (requests.RequestException, UnicodeError):
        return None


def raw(body: Any) -> bytes:
    return body.encode() if isinstance(body, str) else body or b""


def asked(prepared: requests.PreparedRequest) -> Request:
    """The same for an application. A reader of what goes on for ever leaves after a while."""
    url = urlsplit(str(prepared.url))
    headers = tuple((name.lower().encode("latin-1"), value.encode("latin-1", "replace")) for name, value in prepared.headers.items())
    path = f"{url.path}?{url.query}" if url.query else url.path
    return Request(str(prepared.method), path, raw(prepared.body), (*headers, ROOT), gives_up_after=5.0)


def judged(case: Any, prepared: requests.PreparedRequest, answer: Answer) -> None:
    """Raises what does not fit the document."""
    if not answer.status:
        return  # nobody waited for it
    request = httpx.Request(str(prepared.method), str(prepared.url))
    response = httpx.Response(answer.status, headers=answer.headers, content=answer.body, request=request)
    response.elapsed = timedelta(0)
    checks = [status_code_conformance, content_type_conformance, response_headers_conformance]
    checks += [response_schema_conformance] if answer.complete else []
    checks += [] if answer.status in NOT_OURS else [not_a_server_error]
    case.validate_response(response, checks=checks)


@pytest.mark.parametrize("mode", list(GenerationMode))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_door_answers_as_its_document_says(operation: str, mode: GenerationMode, doors: Stage) -> None:
    runner, there = doors

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), database=None)
    @given(OPERATIONS[operation].as_strategy(generation_mode=mode), st.integers(0, 3), st.booleans())
    def check(case: Any, named: int, stream: bool) -> None:
        there.salt(case, named=named > 0, stream=stream)
        prepared = sent(case)
        if prepared is not None:
            judged(case, prepared, runner.run(there.ask(asked(prepared))))

    runner.run(there.furnish(OPERATIONS[operation].path))
    try:
        check()
    except Unsatisfiable:
        assert mode is GenerationMode.NEGATIVE, "nothing can be sent that is as the document says"
