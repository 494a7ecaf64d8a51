"""Every pattern that takes a bare prompt, on a model of this machine, and what it costs.

    calls, tokens, seconds, critical path   medians over the prompts, of each job's tree
    right                                   share of prompts whose known answer the result names; beside `single`: the gain
    planner                                 CPU of the planner's process an event, over all of it, less what it uses while nothing is asked

A node of the given kind is started (`embedded`: a real, very small model; `ollama`: what `make ollama` built; `simulator`: no model), and
five services as processes on a real Kafka. A model with random weights is right by chance only: then only that all jobs end is told.
"""

from __future__ import annotations

import asyncio
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import click

from infra.lab.bench.figures import Budget, Figures, most_of
from infra.lab.bench.report import Table
from infra.lab.bench.runner import Bench, Lab, Unmeasured, option
from infra.native import node, ports
from infra.native.cluster import LocalCluster
from infra.native.processes import cpu_seconds
from infra.native.settings import NativeSettings
from shared.clock import SystemClock
from shared.patterns import BUILT_IN

LONGEST_SECONDS = 120.0
_IDLE_SECONDS = 5.0
QUESTIONS: Mapping[str, str] = {
    "What is 17 plus 25?": "42",
    "A box holds 6 eggs. How many eggs do 7 boxes hold?": "42",
    "What is the capital of France?": "Paris",
    "How many days are in 3 weeks?": "21",
    "Which planet do we live on?": "Earth",
    "What is 100 minus 36?": "64",
    "How many legs do 4 dogs have?": "16",
    "What colour do you get from blue and yellow?": "green",
    "What is 9 times 9?": "81",
    "Which animal says meow?": "cat",
}
_CLOCK = SystemClock()
_EVENTS = re.compile(r"^tutti_events_appended_total(?:\{[^}]*\})? ([0-9.e+]+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Done:
    """One job, ended."""

    succeeded: bool
    right: bool
    calls: int
    tokens: int
    seconds: float
    critical_seconds: float


def names() -> list[str]:
    """Patterns that a prompt is enough for, `single` first."""
    return sorted(
        (name for name, pattern in BUILT_IN.current.items() if pattern.takes_bare_prompt), key=lambda name: (name != "single", name)
    )


async def ask(session: aiohttp.ClientSession, pattern: str, question: str, model: str) -> Done:
    """Submit, wait, read the tree. Raises aiohttp.ClientError, TimeoutError."""
    body = {"pattern": pattern, "prompt": question, "model": model, "options": {"max_tokens": 128}, "deadline_seconds": LONGEST_SECONDS}
    async with session.post("/v1/jobs", json=body) as response:
        job = await response.json()
        if "id" not in job:
            raise Unmeasured(f"{pattern}: {job}")
    async with asyncio.timeout(LONGEST_SECONDS + 10.0):
        while (shown := await _get(session, f"/v1/jobs/{job['id']}")).get("state") != "settled":
            await _CLOCK.sleep(0.05)
    tree, result = await _get(session, f"/v1/jobs/{job['id']}/tree"), shown.get("result") or {}
    usage, answer = tree["usage"], (result.get("answer") or {}).get("text", "")
    return Done(
        succeeded=result.get("status") == "succeeded",
        right=re.search(rf"\b{QUESTIONS[question]}\b", answer, re.IGNORECASE) is not None,
        calls=usage.get("calls", 0) + usage.get("wasted_calls", 0),
        tokens=usage.get("prompt_tokens", 0) + usage.get("completion_tokens", 0) + usage.get("wasted_tokens", 0),
        seconds=tree.get("seconds") or 0.0,
        critical_seconds=tree["critical_seconds"],
    )


async def _offered(session: aiohttp.ClientSession, model: str) -> None:
    """Until the node has told of its model. Raises TimeoutError."""
    async with asyncio.timeout(node.START_SECONDS):
        while "error" in await _get(session, f"/v1/models/{model}"):
            await _CLOCK.sleep(0.1)


async def _get(session: aiohttp.ClientSession, path: str) -> dict[str, Any]:
    async with session.get(path) as response:
        found: dict[str, Any] = await response.json()
        return found


async def _run(cluster: LocalCluster, model: str, questions: Sequence[str]) -> Figures:
    """Every pattern, one job after the other."""
    planner = cluster.pids()["planner"]
    figures: dict[str, float] = {"failed": 0.0, "longest": 0.0}
    idle = await _idle(planner)
    began, used, events = _CLOCK.monotonic(), cpu_seconds(planner), await _events(cluster)
    timeout = aiohttp.ClientTimeout(total=LONGEST_SECONDS + 10.0)
    async with aiohttp.ClientSession(cluster.url, timeout=timeout) as session:
        await _offered(session, model)
        for pattern in names():
            done = [await ask(session, pattern, question, model) for question in questions]
            figures |= {f"{pattern}.{name}": value for name, value in _summary(done).items()}
            figures["failed"] += sum(not one.succeeded for one in done)
            figures["longest"] = max(figures["longest"], *(one.seconds for one in done))
            click.echo(f"  {pattern:<10} " + ", ".join(f"{name} {value:.3g}" for name, value in _summary(done).items()), err=True)
    for pattern in names()[1:]:
        figures[f"{pattern}.gain"] = figures[f"{pattern}.right"] - figures["single.right"]
    used = cpu_seconds(planner) - used - idle * (_CLOCK.monotonic() - began)
    figures["planner.us_an_event"] = 1e6 * max(0.0, used) / max(1.0, await _events(cluster) - events)
    return figures


async def _idle(process: int | None) -> float:
    """CPU seconds a second of a process that is asked for nothing."""
    began, used = _CLOCK.monotonic(), cpu_seconds(process)
    await _CLOCK.sleep(_IDLE_SECONDS)
    return (cpu_seconds(process) - used) / (_CLOCK.monotonic() - began)


def _summary(done: Sequence[Done]) -> dict[str, float]:
    median = statistics.median
    return {
        "calls": median(one.calls for one in done),
        "tokens": median(one.tokens for one in done),
        "seconds": median(one.seconds for one in done),
        "critical_seconds": median(one.critical_seconds for one in done),
        "right": sum(one.right for one in done) / len(done),
    }


async def _events(cluster: LocalCluster) -> float:
    async with aiohttp.ClientSession() as session, session.get(f"{cluster.services['planner'].url}/metrics") as response:
        return sum(float(found) for found in _EVENTS.findall(await response.text()))


@contextmanager
def _node(lab: Lab, kind: node.Kind) -> Iterator[node.ModelNode]:
    settings = NativeSettings(home=lab.home.root, node=kind, node_port=ports.free_ports(1)[0])
    started = node.start(settings, lambda text: click.echo(f"  {text}", err=True))
    try:
        yield started
    finally:
        if started.daemon is not None:
            started.daemon.stop(node.STOP_SECONDS)


def measure(lab: Lab, repeat: int, *, kind: node.Kind, model: str | None, questions: int) -> Figures:
    """Every pattern on a model of this machine, and what it costs."""
    started = lab.kept(_node, lab, kind)
    chosen = model or started.models[0]
    lab.simulated = "no model answers: the node is simulated" if started.simulated else f"a real model: {started.about}"
    with lab.cluster("patterns", nodes=[started.worker_environment() | {"TUTTI_WORKER__MODELS": chosen}]) as cluster:
        return lab.run(_run(cluster, chosen, list(QUESTIONS)[:questions]))


def _place(name: str) -> tuple[str, str] | None:
    pattern, dot, figure = name.partition(".")
    return (pattern, figure) if dot and pattern in names() else None


BENCH = Bench(
    measure,
    "",
    (
        Budget("jobs that did not succeed", "jobs", most_of("failed"), at_most=0.0),
        Budget("longest job", "s", most_of("longest"), at_most=LONGEST_SECONDS),
    ),
    (
        click.Option(
            ["--node", "kind"], type=click.Choice(["embedded", "ollama", "simulator"]), default="embedded", help="Where the model is."
        ),
        option("model", None, "Its name there.  [default: the first]"),
        option("questions", len(QUESTIONS), "So many of them.", type=click.IntRange(1, len(QUESTIONS))),
    ),
    quick={"kind": "simulator", "questions": 1},
    tables=(Table(_place),),
)
