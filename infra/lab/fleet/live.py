"""`python -m infra.lab.fleet.live`: a fleet of simulated Ollama servers in real time, over HTTP: before it tutti, and a peer beside it.

Each has servers of its own, all alike, since who warms models meanwhile would else do it for the other; they are asked in turns, so that
what the machine does hits both. ollama-herd is started here where it is installed (`--herd`); any other gateway that speaks Ollama's API
is named by its address (`--peer`), before servers that this prints.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from math import inf
from pathlib import Path
from random import Random

import aiohttp
import click
import httpx

from infra.lab.bench import machine
from infra.lab.bench.figures import Budget, Figures, Spreads, median_of, most_of, percentile
from infra.lab.bench.local import local_cluster, started_broker
from infra.lab.bench.outcome import Outcome
from infra.lab.fleet.herd import herd
from infra.lab.fleet.scenarios import beside
from infra.lab.fleet.spec import Change, Fleet, Request, fleet_options, requests
from infra.native.http import answers, get_json
from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.processes import Daemon
from infra.native.services import REPOSITORY
from infra.native.waiting import wait_until
from shared.clock import Clock, SystemClock
from shared.model_names import canonical

START_SECONDS = 30.0
PATIENCE_SECONDS = 300.0
SETTLE_SECONDS = 15.0
"""After a server came back, until everybody has heard of it."""
_WORDS = "the and was for are not job".split()  # noqa: SIM905  (a token each, of simulated servers, and of `make ollama`'s tiny models)
LONG = 16_384
"""Words of an answer that a trace's row cuts, unless the fleet's file says how long they are."""
_IN_REAL_TIME = ("dies", "returns", "fails", "mends")


_COMPARED = ("loads", "first p50, s", "first p95, s", "makespan, s")
BUDGETS: tuple[Budget[Spreads], ...] = (
    Budget("requests failed or cut", "", most_of("tutti/failed or cut"), at_most=0),
    Budget("the same while one dies", "", most_of("tutti/one dies/failed or cut"), at_most=0),
    *(Budget(f"to strict herd: {figure}", "x", median_of(f"to strict herd: {figure}, x"), at_most=1.0) for figure in _COMPARED),
)


@dataclass(frozen=True, slots=True)
class Server:
    """A node's simulated Ollama."""

    daemon: Daemon
    url: str

    def start(self) -> None:
        """Raises StartFailed."""
        self.daemon.start()
        if not wait_until(partial(answers, f"{self.url}/api/version"), START_SECONDS):
            raise self.daemon.failure("it does not answer")

    def loads(self) -> int:
        """Since its start; none of one that is down."""
        told = get_json(f"{self.url}/control")
        return 0 if told is None else int(told["truth"]["loads"])

    def change(self, change: Change) -> None:
        """What the fleet's file says of it."""
        if change.what == "dies":
            self.daemon.kill()
        elif change.what == "returns":
            self.start()
        else:
            failing = {"chances": {"error_500": 1.0} if change.what == "fails" else {}}
            httpx.post(f"{self.url}/control", json={"failures": failing}, timeout=5.0).raise_for_status()


@contextmanager
def simulated(fleet: Fleet, home: StackHome) -> Iterator[dict[str, Server]]:
    """By node. Raises StartFailed."""
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name, spec in fleet.each():
            [port] = free_ports(1)
            parameters = home.directory("data") / f"{name}.json"
            node = spec.machine() if "answer_tokens" in spec.parameters else spec.machine().with_(answer_tokens=(LONG, LONG))
            parameters.write_text(node.model_dump_json())
            command = (sys.executable, "-m", "infra.lab.simulators.ollama", "--port", str(port), "--parameters", str(parameters))
            daemon = Daemon(name, command, home.pid_file(name), home.log(name), {"PYTHONPATH": str(REPOSITORY)}, dies_with_parent=True)
            servers[name] = Server(daemon, f"http://127.0.0.1:{port}")
            stack.callback(daemon.stop, 5.0)
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


async def play(url: str, asked: Sequence[Request], fleet: Fleet, servers: Mapping[str, Server], *, clock: Clock, key: str) -> Figures:
    """All requests, and what the fleet's file says of its machines."""
    before = [server.loads() for server in servers.values()]

    async def changed(change: Change, server: Server) -> None:
        await clock.sleep(change.at_seconds)
        await asyncio.to_thread(server.change, change)

    changing = [(one, servers[name]) for name, spec in fleet.each() for one in spec.changes]
    begun = clock.monotonic()
    changes = [asyncio.ensure_future(changed(*one)) for one in changing]
    found = await at_their_times(url, asked, clock, key)
    seconds = clock.monotonic() - begun
    await asyncio.gather(*changes)
    after = [server.loads() for server in servers.values()]
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


def tutti(fleet: Fleet, servers: Mapping[str, str], stack: ExitStack) -> str:
    """A cluster before the servers at these addresses, by node: its own address."""
    own = [
        {
            "TUTTI_WORKER__BACKEND": "ollama",
            "TUTTI_WORKER__URL": servers[name],
            "TUTTI_WORKER__SLOTS": str(spec.slots),
            "TUTTI_WORKER__MOST_MODELS": str(spec.machine().max_loaded_models),
        }
        for name, spec in fleet.each()
    ]
    return stack.enter_context(local_cluster("fleet", stack.enter_context(started_broker(None)), nodes=own)).url


def dying(fleet: Fleet, seconds: float) -> Fleet:
    """The same, but for its last machine, which dies then."""
    *others, last = fleet.nodes
    return fleet.model_copy(update={"nodes": (*others, last.model_copy(update={"changes": (Change(at_seconds=seconds, what="dies"),)}))})


@click.command(context_settings={"show_default": True})
@fleet_options
@click.option("--repeats", type=click.IntRange(1, 20), default=5, help="Seeds.")
@click.option("--herd", "programs", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of herd and herd-node.")
@click.option("--peer", metavar="URL", help="Another gateway, before the servers that are printed.")
@click.option("--kill", type=click.FloatRange(0), metavar="SECONDS", help="One further run, in which the last machine dies then.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the runs here.")
def main(
    *,
    fleet_file: Path | None,
    trace: Path,
    rows: int,
    faster: float,
    repeats: int,
    programs: Path | None,
    peer: str | None,
    kill: float | None,
    json_file: Path | None,
) -> None:
    """tutti, and a peer where one is named, before simulated Ollama servers in real time: the peer's scenario, or a fleet of yours."""
    clock, facts, runs = SystemClock(), machine.facts(), list[dict[str, float]]()
    try:
        fleet = beside(0)[0] if fleet_file is None else Fleet.read(fleet_file)
        traces = [beside(n)[1] if fleet_file is None else requests(trace, fleet, n, most=rows, faster=faster) for n in range(repeats + 1)]
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if odd := {change.what for spec in fleet.nodes for change in spec.changes} - {*_IN_REAL_TIME}:
        raise click.UsageError(f"only in virtual time: {', '.join(sorted(odd))}")
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tutti-fleet-")))
        names = ["tutti", *(["herd", "herd, strict"] if programs else []), *(["peer"] if peer else [])]
        own = {name: stack.enter_context(simulated(fleet, StackHome(home / name))) for name in names}
        addresses = {name: {node: server.url for node, server in servers.items()} for name, servers in own.items()}
        urls = {"tutti": tutti(fleet, addresses["tutti"], stack)}
        if programs is not None:
            for name in names[1:3]:
                urls[name] = stack.enter_context(herd(programs, addresses[name], StackHome(home / name), strict=name != "herd"))
        if peer:
            click.prompt(f"nodes for {peer}: {' '.join(addresses['peer'].values())}; enter when it knows them", default="")
            urls["peer"] = peer
        for seed, asked in enumerate(traces[: repeats + (kill is not None)]):
            killed = seed == repeats
            runs += [] if killed else [{}]
            for name, url in urls.items():
                at = dying(fleet, kill or 0.0) if killed else fleet
                found = asyncio.run(play(url, asked, at, own[name], clock=clock, key=str(seed)))
                runs[-1] |= {f"{name}/{'one dies/' * killed}{figure}": value for figure, value in found.items()}
                click.echo(f"{name:<14}" + ", ".join(f"{figure} {value:.2f}" for figure, value in found.items()) + " (one died)" * killed)
                _mend(own[name], clock)
    for run in runs if programs else ():
        run |= {f"to strict herd: {figure}, x": run[f"tutti/{figure}"] / run[f"herd, strict/{figure}"] for figure in _COMPARED}
    said, options = "servers are simulated; gateways are real", {"fleet": "peer" if fleet_file is None else fleet_file.stem}
    Outcome("fleet-live", said, facts, options, runs, BUDGETS).end(json_file)


def _mend(servers: Mapping[str, Server], clock: Clock) -> None:
    """Whoever died is there for the next run."""
    down = [server for server in servers.values() if server.daemon.pid() is None]
    for server in down:
        server.start()
    if down:
        asyncio.run(clock.sleep(SETTLE_SECONDS))


if __name__ == "__main__":
    main()
