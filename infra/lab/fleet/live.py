"""`python -m infra.lab.fleet.live`: the peer's scenario in real time, over HTTP: simulated Ollama servers, before them tutti, or another
gateway that is there already (`--peer URL`, with the servers that this prints as its nodes). In turns, so that what the machine does
meanwhile hits both. ollama-herd, for example: `herd --node URL ...`, then `--peer http://127.0.0.1:11435`.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import aiohttp
import click

from infra.lab.bench.figures import Figures, percentile
from infra.lab.bench.local import local_cluster, started_broker
from infra.lab.fleet.scenarios import beside
from infra.lab.fleet.spec import Fleet, Request
from infra.native.http import answers
from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.processes import Daemon
from infra.native.services import REPOSITORY
from infra.native.waiting import wait_until
from shared.clock import Clock, SystemClock

START_SECONDS = 30.0
PATIENCE_SECONDS = 300.0
_WORD = "abc "  # four characters of a prompt are a token of the simulator


@contextmanager
def simulated(fleet: Fleet, home: StackHome) -> Iterator[dict[str, str]]:
    """Node to the address of its simulated Ollama. Raises click.ClickException."""
    with ExitStack() as stack:
        urls: dict[str, str] = {}
        for name, spec in fleet.each():
            [port] = free_ports(1)
            parameters = home.directory("data") / f"{name}.json"
            parameters.write_text(spec.machine().model_dump_json())
            command = (sys.executable, "-m", "infra.lab.simulators.ollama", "--port", str(port), "--parameters", str(parameters))
            daemon = Daemon(name, command, home.pid_file(name), home.log(name), {"PYTHONPATH": str(REPOSITORY)}, dies_with_parent=True)
            daemon.start()
            stack.callback(daemon.stop, 5.0)
            urls[name] = f"http://127.0.0.1:{port}"
            if not wait_until(partial(answers, f"{urls[name]}/api/version"), START_SECONDS):
                raise click.ClickException(f"the simulated node {name} does not answer")
        yield urls


async def play(url: str, requests: Sequence[Request], nodes: Sequence[str], clock: Clock) -> Figures:
    """All requests at their times, streamed, by Ollama's API."""
    begun, first, failed = clock.monotonic(), list[float](), 0
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as session:
        before = sum([await _loads(session, node) for node in nodes])

        async def ask(request: Request) -> None:
            nonlocal failed
            await clock.sleep(max(0.0, begun + request.at - clock.monotonic()))
            asked = clock.monotonic()
            said = [{"role": "user", "content": _WORD * request.prompt}]
            body = {"model": request.model, "messages": said, "options": {"num_predict": request.output}}
            try:
                async with session.post(f"{url}/api/chat", json=body) as response:
                    done = False
                    async for line in response.content:
                        if len(first) <= 10**6 and not done and b'"content":""' not in line:
                            first.append(clock.monotonic() - asked)
                            done = True
                    failed += response.status != 200 or b'"done":true' not in line.replace(b" ", b"")
            except (aiohttp.ClientError, TimeoutError):
                failed += 1

        await asyncio.gather(*map(ask, requests))
        loads = sum([await _loads(session, node) for node in nodes]) - before
    return {
        "loads": float(loads),
        "first p50, s": percentile(first, 0.5),
        "first p95, s": percentile(first, 0.95),
        "makespan, s": clock.monotonic() - begun,
        "failed": float(failed),
    }


async def _loads(session: aiohttp.ClientSession, node: str) -> int:
    async with session.get(f"{node}/control") as response:
        return int((await response.json(content_type=None))["truth"]["loads"])


@click.command(context_settings={"show_default": True})
@click.option("--repeats", type=click.IntRange(1, 20), default=3, help="Seeds.")
@click.option("--peer", metavar="URL", help="Another gateway before the same servers: Ollama's API.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the runs here.")
def main(*, repeats: int, peer: str | None, json_file: Path | None) -> None:
    """tutti, and a peer where one is named, before simulated Ollama servers in real time."""
    clock, runs = SystemClock(), dict[str, list[Figures]]()
    fleet, _ = beside(0)
    with ExitStack() as stack:
        made = stack.enter_context(tempfile.TemporaryDirectory(prefix="tutti-fleet-"))
        urls = stack.enter_context(simulated(fleet, StackHome(Path(made))))
        click.echo(f"simulated nodes: {' '.join(urls.values())}")
        own = [
            {"TUTTI_WORKER__BACKEND": "ollama", "TUTTI_WORKER__URL": url, "TUTTI_WORKER__SLOTS": "1", "TUTTI_WORKER__MOST_MODELS": "1"}
            for url in urls.values()
        ]
        cluster = stack.enter_context(local_cluster("fleet", stack.enter_context(started_broker(None)), nodes=own))
        for seed in range(repeats):
            for name, url in {"tutti": cluster.url, **({"peer": peer} if peer else {})}.items():
                found = asyncio.run(play(url, beside(seed)[1], list(urls.values()), clock))
                runs.setdefault(name, []).append(found)
                click.echo(f"{name:<8}" + ", ".join(f"{figure} {value:.2f}" for figure, value in found.items()))
    for name, all_ in runs.items():
        click.echo(f"{name:<8}medians: " + ", ".join(f"{figure} {median(run[figure] for run in all_):.2f}" for figure in all_[0]))
    if json_file is not None:
        json_file.write_text(json.dumps(runs, indent=1))


if __name__ == "__main__":
    main()
