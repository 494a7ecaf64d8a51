"""A page without a cluster: a sink on the in-memory log with a made-up, busy cluster in it, and a made-up ingress; over real sockets.

`python -m tests.support.page_world [JOBS] [PORT]` serves it for who wants to look at the page.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from random import Random
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from infra.native.ports import free_ports
from services.sink.app import UsageSink, build
from services.sink.settings import SinkSettings
from shared.clock import LoopClock, until
from shared.contracts import event as events
from shared.contracts import ids
from shared.contracts.base import PriorityClass, StepId
from shared.contracts.chat import Answer
from shared.contracts.credits import Credits
from shared.contracts.dead_letter import DeadLetter
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.headers import envelope
from shared.contracts.job import Job
from shared.contracts.limits import Limits
from shared.contracts.node import Hardware, Node, NodeModel
from shared.contracts.result import Result, Status
from shared.contracts.usage import Timings, Usage
from shared.derived import comparison_id
from shared.kafka.port import Message, TopicPartition
from shared.patterns.comparison import Comparison
from shared.topics import TopicSettings
from tests.support.sink_store import MemoryStore
from tests.support.stage import Stage

GIB = 2**30
PROMPT = "nobody may read this"
TENANTS = ("default", "acme", "globex", "initech", "umbrella-research")
_PATTERNS = {"single": 1, "vote": 5, "chain": 3, "cascade": 2, "debate": 6, "map": 8}
_CHOICES = ("single",) * 10 + ("vote", "chain", "chain", "cascade", "debate", "map")


def nodes() -> list[Node]:
    """Five unequal machines, of which one is ill, one slow and one draining."""

    def node(name: str, box: int, slots: int, hardware: Hardware, *models: NodeModel, **more: Any) -> Node:
        agents = ("chat", "research", "reasoning", "creative", "code", "critic")
        about = {"backend": "ollama", "version": "0.19.2", "capabilities": agents, "at": 1.0, **more}
        return Node(id=name, boot=f"b-{name}", mailbox=box, slots=slots, hardware=hardware, models=models, **about)

    def model(name: str, gib: float, speed: float | None, *, resident: bool = True, window: int = 8192) -> NodeModel:
        return NodeModel(
            name=name, size_bytes=int(gib * GIB), quantisation="Q4_K_M", window=window, resident=resident, decode_tokens_per_second=speed
        )

    return [
        node("gpu-server", 0, 8, Hardware(cpu_count=32, ram_bytes=256 * GIB, vram_bytes=80 * GIB, accelerator="NVIDIA H100 80GB"),
             model("llama3.3:70b", 40, 61, window=32768), model("qwen3:32b", 19, 88)),
        node("workstation-lena", 1, 4, Hardware(cpu_count=16, ram_bytes=64 * GIB, vram_bytes=24 * GIB, accelerator="NVIDIA RTX 4090"),
             model("qwen3:14b", 9, 74), model("gemma3:12b", 8, 70, resident=False)),
        node("mac-studio", 2, 4, Hardware(cpu_count=24, ram_bytes=128 * GIB, vram_bytes=96 * GIB, accelerator="Apple M2 Ultra"),
             model("qwen3:32b", 19, 24)),
        node("minipc-3", 3, 1, Hardware(cpu_count=8, ram_bytes=16 * GIB), model("gemma3:4b", 3, 2.4)),
        node("minipc-7.lab.example.internal", 4, 1, Hardware(cpu_count=4, ram_bytes=16 * GIB), model("gemma3:1b", 1, 21), reachable=False),
    ]  # fmt: skip


@dataclass(order=True, slots=True)
class _Due:
    at: float
    number: int
    job: str = field(compare=False)
    event: Any = field(compare=False)


class MadeUp:
    """Histories of plausible jobs. Each home's epoch is 0."""

    def __init__(self, random: Random, homes: int) -> None:
        self._random, self._homes, self._numbers = random, homes, count()
        self._places = [(node.id, model.name) for node in nodes()[:4] for model in node.models if model.resident for _ in range(node.slots)]

    def job(self, at: float, *, ends: bool = True) -> Iterator[_Due]:
        """Its events, each with its time."""
        r = self._random
        number = next(self._numbers)
        tenant, pattern = r.choices(TENANTS, (5, 4, 3, 2, 1))[0], r.choice(_CHOICES)
        job = f"j_{r.getrandbits(110):027x}" if r.random() < 0.6 else ids.qualified(tenant, f"order-{number}-{r.getrandbits(24):06x}")
        class_ = r.choices(list(PriorityClass), (5, 3, 2))[0]
        about: dict[str, Any] = {"epoch": 0, "job": job}
        request = Job(prompt=PROMPT, tenant=tenant, pattern="single", model="auto")
        object.__setattr__(request, "pattern", pattern)  # its input is nobody's business here
        usage, steps, now = Usage(), _PATTERNS[pattern], at
        fails = r.random() < 0.03
        wide = pattern in ("vote", "map")
        asks = [self._ask(f"0.0/{n}.0" if wide else "0.0") for n in range(steps if wide else 1)]
        yield _Due(at, next(self._numbers), job, events.JobAccepted(
            **about, at=at, request=request, priority_class=class_, home=ids.home_of(job, self._homes), source="jobs.standard/0/0",
            source_offset=number, pattern_version=1, limits=Limits(), deadline_at=at + 600, digest="", asks=tuple(asks),
        ))  # fmt: skip
        todo = [*asks, *(self._ask(f"0.{n}") for n in range(len(asks), steps))]
        ended = now
        for n, ask in enumerate(todo):
            begin = at if n < len(asks) else ended
            if n >= len(asks):
                yield _Due(begin, next(self._numbers), job, events.StepAsked(**about, at=begin, **ask.__dict__))
            waited, ran = r.expovariate(4) + 0.02, r.expovariate(0.7) + 0.3
            node = ask.node or r.choice(self._places)[0]
            told: dict[str, Any] = {**about, "step": ask.step, "attempt": 1}
            yield _Due(begin + waited, next(self._numbers), job, events.StepClaimedBy(
                **told, at=begin + waited, claim="c", node=node, mailbox=0, lease_seconds=20,
            ))  # fmt: skip
            ended = max(ended, begin + waited + ran)
            if fails:
                failure = Failure(kind=FailureKind.MODEL_ERROR, message="no")
                yield _Due(begin + waited + ran, next(self._numbers), job, events.AttemptFailed(
                    **told, at=begin + waited + ran, failure=failure, retry_after_seconds=None,
                ))  # fmt: skip
                break
            used = Usage(calls=1, prompt_tokens=r.randint(20, 900), completion_tokens=r.randint(20, 600), cost=r.randint(20, 900) / 1e6)
            usage = usage.plus(used)
            yield _Due(begin + waited + ran, next(self._numbers), job, events.StepAnswered(
                **told, at=begin + waited + ran, node=node, usage=used, answer=Answer(text=PROMPT), timings=Timings(total_ms=1e3 * ran),
            ))  # fmt: skip
        if ends:
            status = Status.FAILED if fails else r.choices((Status.SUCCEEDED, Status.CANCELLED, Status.EXPIRED), (96, 2, 1))[0]
            result = Result(
                job=job, tenant=tenant, status=status, usage=usage, pattern=pattern, priority_class=class_, steps=steps, attempts=steps,
                accepted_at=at, finished_at=ended + 0.01, failure=Failure(kind=FailureKind.MODEL_ERROR, message="no") if fails else None,
                answer=Answer(text=PROMPT) if status is Status.SUCCEEDED else None,
            )  # fmt: skip
            yield _Due(ended + 0.01, next(self._numbers), job, events.JobSettled(**about, at=ended + 0.01, result=result))

    def _ask(self, path: str) -> events.FirstAsk:
        r = self._random
        node, model = r.choice(self._places)
        eager = r.random() < 0.6
        why = f"{r.uniform(0.2, 4):.2f} s predicted, least of {r.randint(2, 4)}; {r.randint(0, 900)} tokens ahead; resident"
        agent = r.choice(("chat", "chat", "chat", "research", "critic", "code"))
        step = StepId(f"{r.getrandbits(128):032x}")
        return events.FirstAsk(step=step, path=path, agent=agent, model=model, node=node if eager else None, why=why if eager else "")

    def comparison(self, number: int, at: float) -> _Due:
        """A judged answer of `vote` or `chain`."""
        r = self._random
        pattern, job = ("vote", "chain")[number % 2], f"measured-{number}"
        verdict = r.choices(("better", "equal", "worse"), (5, 4, 1) if pattern == "vote" else (2, 6, 2))[0]
        one = Comparison(
            job=job, accepted_at=at, pattern=pattern, baseline="first sample", verdict=verdict, judge="consistent",
            cost_ratio=r.uniform(3, 5.5), seconds_ratio=r.uniform(1, 2.2),
        )  # fmt: skip
        name = comparison_id(job, at, self._homes)
        answer = Answer(text=one.model_dump_json())
        result = Result(
            job=name, tenant="acme", status=Status.SUCCEEDED, answer=answer, pattern="compare", priority_class=PriorityClass.BATCH,
            accepted_at=at, finished_at=at + 1,
        )  # fmt: skip
        return _Due(at, next(self._numbers), name, events.JobSettled(epoch=0, job=name, at=at + 1, result=result))


class PageWorld(Stage):
    """The sink, its log, and what happens in it: `jobs` that have ended, and `per_second` more as time goes on. In real time its clock is
    the machine's.
    """

    def __init__(
        self, jobs: int, per_second: float = 6.0, *, settings: dict[str, Any] | None = None, seed: int = 5, letters: int = 7
    ) -> None:
        super().__init__(TopicSettings(), seed=seed, clock=LoopClock(epoch=time.time() - time.monotonic()))
        self._jobs, self._rate, self._letters, self._settings = jobs, per_second, letters, settings or {}
        self._due: list[_Due] = []
        self.made = MadeUp(self.random, self.topics.settings.home_partitions)
        self.store = MemoryStore(Random(2))
        self.sink: UsageSink

    async def build(self, ingress_url: str) -> UsageSink:
        """In the loop in which it will run."""
        self.sink = build(self.environment("sink-1"), SinkSettings(ingress_url=ingress_url, **self._settings), self.store)
        for home in range(self.topics.settings.home_partitions):
            started = events.PlannerStarted(nonce="n", planner="planner-1", version=2)
            self._written(self.clock.wall() - 4_000, home, started, b"")
        self._past()
        return self.sink

    def _written(self, at: float, home: int, event: Any, key: bytes) -> None:
        """An event, as if it had been written then."""
        message = Message(self.topics.job_events, event.to_bytes(), key, home, envelope(event.type))
        self.log.existing(TopicPartition(self.topics.job_events, home)).append([message], int(1e3 * at), 0.0)

    def _home(self, due: _Due) -> int:
        return ids.home_of(due.job, self.topics.settings.home_partitions)

    def _past(self) -> None:
        now = self._next = self.clock.wall()
        found: list[_Due] = []
        for _ in range(self._jobs):
            found += self.made.job(now - self.random.uniform(0.0, self._jobs / max(1.0, self._rate)))
        if self._jobs:
            found += [self.made.comparison(n, now - 900 + n) for n in range(64)]
        for due in sorted(found):
            if due.at < now:
                self._written(due.at, self._home(due), due.event, due.job.encode())
            else:
                heappush(self._due, due)
        self._rest(now)

    def _rest(self, now: float) -> None:
        for node in nodes() if self._jobs else []:
            self.write(self.topics.nodes, 0, node.to_bytes(), envelope("Node"), node.id.encode())
        for n in range(self._letters if self._jobs else 0):
            letter = DeadLetter(
                topic="jobs.standard", partition=n % 6, offset=4_000 + n, timestamp=1, service="planner", code="invalid_record",
                key=b"k", reason="the job has an unknown field `promt`", value=b'{"promt": "x"}', truncated=n == 3, at=now - 700 * n - 5,
            )  # fmt: skip
            self.write(self.topics.dead_letters, n % 6, letter.to_bytes(), envelope("DeadLetter"), b"k")

    async def live(self) -> None:
        """Go on for ever."""
        while True:
            now, r = self.clock.wall(), self.random
            if self._rate and self._jobs:
                while self._next < now:
                    for due in self.made.job(self._next):
                        heappush(self._due, due)
                    self._next += r.expovariate(self._rate)
                self._places()
            while self._due and self._due[0].at <= now:
                due = heappop(self._due)
                self.write(self.topics.job_events, self._home(due), due.event.to_bytes(), envelope(due.event.type), due.job.encode())
            await asyncio.sleep(0.25)

    def _places(self) -> None:
        r = self.random
        for node in nodes():
            running = r.randint(0, node.slots) if node.reachable else 0
            told = Credits(
                node=node.id, boot=node.boot, sequence=1, mailbox=node.mailbox, offers={}, read={}, running=running,
                queued_tokens=running * r.randint(80, 400), resident=tuple(m.name for m in node.models if m.resident),
                decode_tokens_per_second=sum(m.decode_tokens_per_second or 0 for m in node.models[:1]) * max(1, running) ** 0.6,
            )  # fmt: skip
            self.write(self.topics.credits, 0, told.to_bytes(), envelope("credits"), node.id.encode())


class MadeUpIngress:
    """Answers what the page asks of an ingress."""

    def __init__(self) -> None:
        opened = time.time()
        self.decided: list[dict[str, Any]] = []
        self.open = {
            f"order-{n}.{n:032x}": {
                "id": f"order-{n}.{n:032x}", "job": f"order-{n}", "tenant": "acme", "question": question, "quorum": 1, "state": "open",
                "assignees": ["ann", "bob"][: n % 2], "default": "reject", "due_at": opened + 3_600 * (n + 1), "said": [],
                "digest": f"{n:032x}",
            }
            for n, question in enumerate(("May this letter go to the customer?", "Is the summary of the contract right?"))
        }  # fmt: skip

    def app(self) -> Starlette:
        routes = [("/v1/models", self._models, "GET"), ("/v1/reviews", self._list, "GET"), ("/v1/reviews/{id}", self._get, "GET"),
                  ("/v1/reviews/{id}", self._decide, "POST"), ("/v1/chat/completions", self._chat, "POST")]  # fmt: skip
        found = Starlette(routes=[Route(path, answer, methods=[method]) for path, answer, method in routes])
        return _Open(found)  # type: ignore[return-value]

    async def _models(self, _: Request) -> Response:
        return JSONResponse({"data": [{"id": name} for name in ("auto", "llama3.3:70b", "qwen3:32b", "tutti/vote", "tutti/chain")]})

    async def _list(self, _: Request) -> Response:
        return JSONResponse({"reviews": list(self.open.values())})

    async def _get(self, request: Request) -> Response:
        text = "Dear Ms Miller,\n\nyour order has left our house today."
        return JSONResponse({**self.open[request.path_params["id"]], "artefact": text})

    async def _decide(self, request: Request) -> Response:
        said = await request.json()
        found = self.open.pop(request.path_params["id"])
        self.decided.append(said)
        return JSONResponse({**found, "heard": True, "state": "decided"})

    async def _chat(self, _: Request) -> Response:
        async def pieces() -> AsyncIterator[str]:
            for word in ("Paris", "is", "the", "capital", "of", "France,", "and", "has", "been", "for", "a", "thousand", "years."):
                yield f"data: {json.dumps({'model': 'qwen3:32b', 'choices': [{'delta': {'content': word + ' '}}]})}\n\n"
                await asyncio.sleep(0.02)
            usage = {"prompt_tokens": 14, "completion_tokens": 15}
            last = {"model": "qwen3:32b", "choices": [], "usage": usage, "tutti": {"node": "mac-studio", "job": "j_1"}}
            yield f"data: {json.dumps(last)}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(pieces(), media_type="text/event-stream")


class _Open:
    """CORS as the ingress has it for pages of this machine."""

    def __init__(self, app: Starlette) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        allowed = [(b"access-control-allow-origin", b"*"), (b"access-control-allow-headers", b"authorization, content-type")]
        if scope["type"] == "http" and scope["method"] == "OPTIONS":
            await Response(status_code=204, headers={name.decode(): value.decode() for name, value in allowed})(scope, receive, send)
            return

        async def with_cors(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *allowed]
            await send(message)

        await self._app(scope, receive, with_cors)


@contextmanager
def served(world: PageWorld, ingress: MadeUpIngress | None = None, port: int = 0) -> Iterator[str]:
    """The page's address, as long as its thread runs."""
    ports = free_ports(2)
    port, ingress = port or ports[0], ingress or MadeUpIngress()
    begun = threading.Event()
    stop: list[Callable[[], object]] = []

    async def run() -> None:
        sink = await world.build(f"http://127.0.0.1:{ports[1]}")
        ending = asyncio.Event()
        servers = [
            uvicorn.Server(uvicorn.Config(app, port=number, log_level="error", lifespan="off"))
            for app, number in ((sink.asgi(), port), (ingress.app(), ports[1]))
        ]
        tasks = [asyncio.create_task(work) for work in (sink.run(ending), world.live(), *(server.serve() for server in servers))]
        assert await until(world.clock, lambda: all(server.started for server in servers), 30.0)
        told_to_stop, loop = asyncio.Event(), asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(told_to_stop.set))
        begun.set()
        await told_to_stop.wait()
        ending.set()
        for server in servers:
            server.should_exit = server.force_exit = True
        await asyncio.wait(tasks, timeout=2.0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    thread = threading.Thread(target=lambda: asyncio.run(run()), daemon=True)
    thread.start()
    assert begun.wait(60.0)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop[0]()
        thread.join(10.0)


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    with served(PageWorld(*arguments[:1] or [2_000]), port=arguments[1] if len(arguments) > 1 else 0) as address:
        print(address, flush=True)  # noqa: T201
        threading.Event().wait()
