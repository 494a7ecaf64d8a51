"""The HTTP side of a service: health, readiness and metrics for every one; the service's own application for the rest."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from shared.service import Readiness
from shared.service.application import Application


class Shell:
    """An application over a service whose state the test sets."""

    def __init__(self, own: Any = None) -> None:
        self.living = True
        self.state = Readiness(ready=True)
        self.course: list[str] = []
        self.application = Application(alive=lambda: self.living, readiness=lambda: self.state, own=own, lifespan=self._lifespan)

    @asynccontextmanager
    async def _lifespan(self) -> AsyncGenerator[None, None]:
        self.course.append("started")
        yield
        self.course.append("ended")

    async def get(self, path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.application)
        async with httpx.AsyncClient(transport=transport, base_url="http://tutti") as client:
            return await client.get(path)


async def own_application(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": f"own {scope['path']}".encode()})


async def test_health_follows_the_service() -> None:
    """200 while its task runs, 503 once it has ended."""
    shell = Shell()
    assert (await shell.get("/healthz")).status_code == 200
    shell.living = False
    assert (await shell.get("/healthz")).status_code == 503


async def test_readiness_gives_its_reasons() -> None:
    """A person who asks why sees why."""
    shell = Shell()
    assert (await shell.get("/readyz")).json() == {"ready": True, "reasons": []}
    shell.state = Readiness(ready=False, reasons=("Kafka does not answer",))
    response = await shell.get("/readyz")
    assert response.status_code == 503
    assert json.loads(response.content) == {"ready": False, "reasons": ["Kafka does not answer"]}


async def test_metrics_are_prometheus_text() -> None:
    """Every declared metric is there from the start, under its own name."""
    text = (await Shell().get("/metrics")).text
    assert "# TYPE tutti_live_jobs gauge" in text
    assert "_created" not in text


@pytest.mark.parametrize("path", ["/", "/v1/jobs", "/healthz/", "/metrics/x"])
async def test_every_other_path_is_the_services_own(path: str) -> None:
    """The shell takes three exact paths and no more."""
    assert (await Shell(own_application).get(path)).text == f"own {path}"


async def test_without_an_own_application_other_paths_are_unknown() -> None:
    """404, not an error."""
    assert (await Shell().get("/v1/jobs")).status_code == 404


async def test_the_lifespan_runs_without_a_broker() -> None:
    """FastStream's own refuses to start without one."""
    shell = Shell()
    async with shell.application.start_lifespan_context():
        assert shell.course == ["started"]
    assert shell.course == ["started", "ended"]
