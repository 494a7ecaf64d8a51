"""Callers of a chaos run: what they take for an answer, when they ask again, and what is held against the cluster."""

from __future__ import annotations

import asyncio
import json
from collections import Counter

from aiohttp import web

from infra.lab.chaos.callers import Balancer, Callers, noticed
from infra.lab.chaos.figures import Struck
from infra.lab.chaos.jobs import Met
from infra.lab.chaos.plan import Fault, FaultKind
from infra.native.ports import free_ports
from shared.clock import SystemClock

TEXT = "an answer in words"


class Ingress:
    """One that refuses the first of each kind of request, and breaks a job's events off in the middle. `tells`: what it streams."""

    def __init__(self, tells: str = TEXT) -> None:
        self.tells = tells
        self.asked: Counter[str] = Counter()
        self.behind: list[str] = []

    def application(self) -> web.Application:
        found = web.Application()
        found.router.add_post("/v1/chat/completions", self.chat)
        found.router.add_post("/v1/jobs", self.job)
        found.router.add_get("/v1/jobs/{id}/events", self.events)
        found.router.add_get("/v1/jobs/{id}", self.status)
        return found

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        kind = "stream" if body.get("stream") else "chat"
        self.asked[kind] += 1
        if self.asked[kind] == 1:
            return web.Response(status=503, headers={"retry-after": "0"}, text="leaving")
        if kind == "chat":
            return web.json_response({"choices": [{"message": {"content": TEXT}}]})
        parts = [{"choices": [{"delta": {"content": part}}]} for part in (self.tells[:3], self.tells[3:])]
        text = "".join(f"data: {json.dumps(part)}\n\n" for part in parts)
        return web.Response(text=text if self.asked[kind] == 2 else f"{text}data: [DONE]\n\n")

    async def job(self, request: web.Request) -> web.Response:
        return web.json_response({"id": request.headers["idempotency-key"]}, status=202)

    async def events(self, request: web.Request) -> web.Response:
        self.behind.append(request.headers.get("last-event-id", ""))
        if not self.behind[-1]:
            return web.Response(text=f"id: 1.3\nevent: chunk\ndata: {json.dumps({'text': TEXT[:3]})}\n\n")
        rest = f"id: 1.9\nevent: chunk\ndata: {json.dumps({'text': TEXT[3:]})}\n\n"
        return web.Response(text=rest + 'id: 2.9\nevent: job_settled\ndata: {"type": "job_settled"}\n\n')

    async def status(self, _request: web.Request) -> web.Response:
        return web.json_response({"result": {"answer": {"text": TEXT}}})


def ask(ingress: Ingress) -> tuple[Callers, list[Met]]:
    """One question of each caller."""

    async def main() -> tuple[Callers, list[Met]]:
        [port] = free_ports(1)
        runner = web.AppRunner(ingress.application())
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        met: list[Met] = []
        callers = Callers(Balancer([f"http://127.0.0.1:{port}"]), "q", met, SystemClock(), callers=1)
        running = asyncio.create_task(callers.run())
        while callers.answered < 1:
            await SystemClock().sleep(0.01)
        callers.enough.set()
        async with asyncio.timeout(10):
            await running
        await runner.cleanup()
        return callers, met

    return asyncio.run(main())


def test_a_question_is_asked_again_until_it_is_answered() -> None:
    """After a refusal and a stream that broke off, both noted; a reader of events that was sent elsewhere goes on behind what he has."""
    ingress = Ingress()
    callers, met = ask(ingress)
    assert (callers.answered, callers.wrong) == (3, [])
    assert ingress.asked == {"chat": 2, "stream": 3}
    assert ingress.behind == ["", "1.3"]
    assert [one.what.split(": ")[1].split()[0] for one in met] == ["503", "503", "the"]


def test_answers_that_differ_are_told() -> None:
    """A character lost in a stream."""
    callers, _ = ask(Ingress(tells=TEXT[:-1]))
    assert len(callers.wrong) == 1


def test_only_what_is_met_in_an_upgrade_is_held_against_it() -> None:
    struck = [Struck(Fault(FaultKind.KILL), 0.0, 10.0, 20.0, None), Struck(Fault(FaultKind.UPGRADE), 20.0, 30.0, 40.0, None)]
    met = [Met(at, "refused") for at in (5.0, 19.0, 21.0, 30.0, 31.0)]
    assert [one.at for one in noticed(met, struck)] == [21.0, 30.0]


def test_nobody_is_led_to_who_is_taken_away() -> None:
    """Unless all are."""
    balancer = Balancer(["a", "b"])
    assert {balancer.url() for _ in range(4)} == {"a", "b"}
    balancer.away.add("a")
    assert {balancer.url() for _ in range(4)} == {"b"}
    balancer.away.add("b")
    assert {balancer.url() for _ in range(4)} == {"a", "b"}
