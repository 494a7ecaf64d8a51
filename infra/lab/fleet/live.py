"""A fleet of simulated Ollama servers in real time, over HTTP: before it tutti, and a peer beside it.

Each has servers of its own, all alike, since who warms models meanwhile would else do it for the other; they are asked in turns, so that
what the machine does hits both. ollama-herd is started here where it is installed (`--herd`); any other gateway that speaks Ollama's API
is named by its address (`--peer`), before servers that this prints.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from math import inf
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import click
import httpx

from infra.lab.bench.figures import Budget, Figures, median_of, most_of, percentile
from infra.lab.bench.runner import Bench, Lab, option, under
from infra.lab.fleet.herd import herd
from infra.lab.fleet.scenarios import beside
from infra.lab.fleet.spec import FLEET_OPTIONS, Change, Fleet, Request, requests
from infra.native.cluster import LocalCluster
from infra.native.http import get_json
from infra.native.node import ModelServer, simulator
from infra.native.paths import StackHome
from shared.clock import Clock, SystemClock
from shared.model_names import canonical

PATIENCE_SECONDS = 300.0
SETTLE_SECONDS = 15.0
"""After a server came back, until everybody has heard of it."""
_WORDS = "the and was for are not job".split()  # noqa: SIM905  (a token each, of simulated servers, and of `make ollama`'s tiny models)
LONG = 16_384
"""Words of an answer that a trace's row cuts, unless the fleet's file says how long they are."""
_IN_REAL_TIME = ("dies", "returns", "fails", "mends")


_COMPARED = ("loads", "first p50, s", "first p95, s", "makespan, s")
_CLOCK = SystemClock()


def _loads(server: ModelServer) -> int:
    """Since its start; none of one that is down."""
    told = get_json(f"{server.url}/control")
    return 0 if told is None else int(told["truth"]["loads"])


def _change(server: ModelServer, change: Change) -> None:
    """What the fleet's file says of it."""
    if change.what == "dies":
        server.kill()
    elif change.what == "returns":
        server.start()
    else:
        failing = {"chances": {"error_500": 1.0} if change.what == "fails" else {}}
        httpx.post(f"{server.url}/control", json={"failures": failing}, timeout=5.0).raise_for_status()


@contextmanager
def simulated(fleet: Fleet, home: StackHome) -> Iterator[dict[str, ModelServer]]:
    """By node. Raises StartFailed."""
    with ExitStack() as stack:
        servers: dict[str, ModelServer] = {}
        for name, spec in fleet.each():
            parameters = home.directory("data") / f"{name}.json"
            node = spec.machine() if "answer_tokens" in spec.parameters else spec.machine().with_(answer_tokens=(LONG, LONG))
            parameters.write_text(node.model_dump_json())
            servers[name] = simulator(home, name, "--parameters", str(parameters))
            stack.callback(servers[name].stop)
            servers[name].start()
        yield servers


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of one request; seconds from when it was asked. `whole`: with its last line, neither refused nor cut."""

    first: float
    end: float
    whole: bool = False
    model: str = ""
    """Who has answered."""
    read: int = 0
    written: int = 0
    """Tokens."""


async def ask(session: aiohttp.ClientSession, url: str, request: Request, clock: Clock, key: str) -> Answered:
    """Streamed, by Ollama's API. `key`: of the prompt, which begins like no other's."""
    asked, first, line = clock.monotonic(), inf, b""
    said = [{"role": "user", "content": " ".join(Random(key).choices(_WORDS, k=request.prompt))}]
    body = {"model": request.model, "messages": said, "options": {"num_predict": request.limit or request.output}}
    try:
        async with session.post(f"{url}/api/chat", json=body) as response:
            async for line in response.content:
                if first == inf and b'"content":""' not in line:
                    first = clock.monotonic() - asked
        last = json.loads(line)
        whole = response.status == 200 and last.get("done") is True
        tokens = int(last.get("prompt_eval_count", 0)), int(last.get("eval_count", 0))
        end = clock.monotonic() - asked
        return Answered(min(first, end), end, whole, str(last.get("model")), *tokens)
    except (aiohttp.ClientError, TimeoutError, ValueError):
        end = clock.monotonic() - asked
        return Answered(min(first, end), end)


async def at_their_times(url: str, asked: Sequence[Request], clock: Clock, key: str) -> list[Answered]:
    """All requests, each when it is due."""
    begun = clock.monotonic()

    async def one(number: int, request: Request) -> Answered:
        await clock.sleep(max(0.0, begun + request.at - clock.monotonic()))
        return await ask(session, url, request, clock, f"{key}-{number}")

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
        return await asyncio.gather(*(one(number, request) for number, request in enumerate(asked)))


async def play(url: str, asked: Sequence[Request], fleet: Fleet, servers: Mapping[str, ModelServer], *, clock: Clock, key: str) -> Figures:
    """All requests, and what the fleet's file says of its machines."""
    before = [_loads(server) for server in servers.values()]

    async def changed(change: Change, server: ModelServer) -> None:
        await clock.sleep(change.at_seconds)
        await asyncio.to_thread(_change, server, change)

    changing = [(one, servers[name]) for name, spec in fleet.each() for one in spec.changes]
    begun = clock.monotonic()
    changes = [asyncio.ensure_future(changed(*one)) for one in changing]
    found = await at_their_times(url, asked, clock, key)
    seconds = clock.monotonic() - begun
    await asyncio.gather(*changes)
    after = [_loads(server) for server in servers.values()]
    first = [one.first for one in found]
    others = [one.whole and canonical(one.model) != canonical(request.model) for one, request in zip(found, asked, strict=True)]
    return {
        "loads": float(sum(now - then if now >= then else now for then, now in zip(before, after, strict=True))),
        "first p50, s": percentile(first, 0.5),
        "first p95, s": percentile(first, 0.95),
        "makespan, s": seconds,
        "failed or cut": float(sum(not one.whole for one in found)),
        "by another model": float(sum(others)),
    }


def tutti(lab: Lab, fleet: Fleet, servers: Mapping[str, str]) -> AbstractContextManager[LocalCluster]:
    """A cluster before the servers at these addresses, by node."""
    own = [
        {
            "TUTTI_WORKER__BACKEND": "ollama",
            "TUTTI_WORKER__URL": servers[name],
            "TUTTI_WORKER__SLOTS": str(spec.slots),
            "TUTTI_WORKER__MOST_MODELS": str(spec.machine().max_loaded_models),
        }
        for name, spec in fleet.each()
    ]
    return lab.cluster("fleet", nodes=own)


def dying(fleet: Fleet, seconds: float) -> Fleet:
    """The same, but for its last machine, which dies then."""
    *others, last = fleet.nodes
    return fleet.model_copy(update={"nodes": (*others, last.model_copy(update={"changes": (Change(at_seconds=seconds, what="dies"),)}))})


@dataclass(frozen=True, slots=True)
class Gateway:
    """tutti or a peer, and the servers behind it."""

    url: str
    servers: Mapping[str, ModelServer]


@contextmanager
def _gateways(lab: Lab, fleet: Fleet, programs: Path | None, peer: str | None) -> Iterator[dict[str, Gateway]]:
    with ExitStack() as stack:
        names = ["tutti", *(["herd", "herd, strict"] if programs else []), *(["peer"] if peer else [])]
        found: dict[str, Gateway] = {}
        for name in names:
            home = StackHome(lab.home.root / name)
            servers = stack.enter_context(simulated(fleet, home))
            addresses = {node: server.url for node, server in servers.items()}
            if name == "tutti":
                url = stack.enter_context(tutti(lab, fleet, addresses)).url
            elif programs is not None and name != "peer":
                url = stack.enter_context(herd(programs, addresses, home, strict=name != "herd"))
            else:
                url = peer or ""
                click.prompt(f"nodes for {url}: {' '.join(addresses.values())}; enter when it knows them", default="")
            found[name] = Gateway(url, servers)
        yield found


def _of_own(fleet_file: Path, trace: Path, rows: int, faster: float, seed: int) -> tuple[Fleet, list[Request]]:
    try:
        fleet = Fleet.read(fleet_file)
        found = fleet, requests(trace, fleet, seed, most=rows, faster=faster)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if odd := {change.what for spec in fleet.nodes for change in spec.changes} - {*_IN_REAL_TIME}:
        raise click.UsageError(f"only in virtual time: {', '.join(sorted(odd))}")
    return found


def measure(
    lab: Lab, repeat: int, *, programs: Path | None, peer: str | None, kill: float | None, fleet_file: Path | None, **own: Any
) -> Figures:
    """tutti, and a peer where one is named, before simulated Ollama servers in real time: the peer's scenario, or a fleet of yours. Each
    run is a seed.
    """

    def asked_of(seed: int) -> tuple[Fleet, list[Request]]:
        return beside(seed) if fleet_file is None else _of_own(fleet_file, **own, seed=seed)

    fleet, asked = asked_of(repeat)
    gateways = lab.kept(_gateways, lab, fleet, programs, peer)
    found = _played(lab, gateways, fleet, asked, str(repeat))
    if kill is not None and repeat == lab.repeats - 1:  # one further play
        more = _played(lab, gateways, dying(fleet, kill), asked_of(lab.repeats)[1], str(lab.repeats))
        found |= {f"{name}/one dies/{figure}": value for key, value in more.items() for name, figure in [key.split("/", 1)]}
    if programs is not None:
        found |= {f"to strict herd: {figure}, x": found[f"tutti/{figure}"] / found[f"herd, strict/{figure}"] for figure in _COMPARED}
    return found


def _played(lab: Lab, gateways: Mapping[str, Gateway], fleet: Fleet, asked: Sequence[Request], key: str) -> dict[str, float]:
    """By all, one after the other; whoever died is there again afterwards."""
    found: dict[str, float] = {}
    for name, gateway in gateways.items():
        figures = lab.run(play(gateway.url, asked, fleet, gateway.servers, clock=_CLOCK, key=key))
        found |= under(name, figures, "/")
        down = [server for server in gateway.servers.values() if server.pid() is None]
        for server in down:
            server.start()
        if down:
            lab.run(_CLOCK.sleep(SETTLE_SECONDS))
    return found


BENCH = Bench(
    measure,
    "servers are simulated; gateways are real",
    (
        Budget("requests failed or cut", "", most_of("tutti/failed or cut"), at_most=0),
        Budget("the same while one dies", "", most_of("tutti/one dies/failed or cut"), at_most=0),
        *(Budget(f"to strict herd: {figure}", "x", median_of(f"to strict herd: {figure}, x"), at_most=1.0) for figure in _COMPARED),
    ),
    (
        *FLEET_OPTIONS,
        click.Option(
            ["--herd", "programs"], type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of herd and herd-node."
        ),
        option("peer", None, "Another gateway, before the servers that are printed.", metavar="URL"),
        option("kill", None, "One further play, in which the last machine dies then.", type=click.FloatRange(0), metavar="SECONDS"),
    ),
    repeats=5,
)
