"""Is the simulated machine like a real one? Measures a real Ollama, writes it down as a node of a fleet (YAML), plays one trace on both,
each behind tutti, and compares what was predicted with what came.

A machine that others use is never twice the same, so it is measured before and after each trace, and the mean is taken.

The Ollama is that of `make ollama`, with one model in memory and two of random weights, made here: as slow as models that people use, and
their texts end where they are cut, so that both sides write as much.
"""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import inf, log
from pathlib import Path
from random import Random
from statistics import fmean, median
from typing import NamedTuple

import aiohttp
import click
import yaml

from infra.lab.bench.figures import Budget, Figures, median_of, most_of
from infra.lab.bench.runner import Bench, Lab, option
from infra.lab.fleet.live import Answered, ask, at_their_times, tutti
from infra.lab.fleet.play import Play
from infra.lab.fleet.spec import Fleet, NodeSpec, Request
from infra.lab.ollama_build import tiny_model
from infra.native import node
from infra.native.paths import StackHome
from infra.native.processes import started
from infra.native.settings import NativeSettings
from shared.clock import Clock, SystemClock

MODELS = ("first", "second")
REPEATS = 40
"""Of the tiny model's blocks: some 100 tokens a second."""
PROMPTS, OUTPUTS, SHORT = (50, 500), (30, 120), 8
"""Tokens of the trace, least and most; what is measured is measured there, since a token costs more the more stands before it."""
WITHIN = 0.2
_CLOCK = SystemClock()
_MODELFILE = 'FROM {file}\nTEMPLATE "{{{{ .Prompt }}}}"\nPARAMETER num_thread 1\n'


@contextmanager
def real(home: StackHome, slots: int) -> Iterator[str]:
    """An Ollama with `MODELS`, of which it keeps one: its address. Raises NativeError kinds, CalledProcessError."""
    own = {"OLLAMA_MAX_LOADED_MODELS": "1", "OLLAMA_MODELS": str(home.directory("models"))}
    with started(node.ollama(home, NativeSettings().cache_directory, slots=slots, more=own)) as server:
        for seed, name in enumerate(MODELS):
            weights, recipe = home.directory("data") / f"{name}.gguf", home.directory("data") / f"{name}.txt"
            tiny_model.write(weights, seed, repeats=REPEATS, ends=False)
            recipe.write_text(_MODELFILE.format(file=weights))
            create = [server.command[0], "create", name, "-f", str(recipe)]
            subprocess.run(create, env=dict(server.environment), check=True, capture_output=True, timeout=60)
        yield server.url


class Measuring:
    """Asks one server, one call after another unless it says so."""

    def __init__(self, session: aiohttp.ClientSession, url: str, clock: Clock) -> None:
        self._session, self._url, self._clock, self._asked = session, url, clock, 0

    async def call(self, model: str, prompt: int, output: int) -> Answered:
        self._asked += 1
        return await ask(self._session, self._url, Request(0.0, prompt, output, model), self._clock, f"measured-{self._asked}")

    async def load(self) -> float:
        """Seconds that a first token comes later where its model must be brought in."""
        cold = [(await self.call(MODELS[n % 2], SHORT, 2)).first for n in range(8)][2:]
        return median(cold) - median([(await self.call(MODELS[1], SHORT, 2)).first for _ in range(5)])

    async def read(self, model: str) -> float:
        """Tokens a second of prompts."""
        long, short = [[await self.call(model, length, 2) for _ in range(7)] for length in reversed(PROMPTS)]
        seconds = median(one.first for one in long) - median(one.first for one in short)
        return (median(one.read for one in long) - median(one.read for one in short)) / seconds

    async def token(self, model: str, prompt: int, beside: int) -> float:
        """Seconds of a token written behind such a prompt, of each of so many calls at once."""
        found = []
        for _ in range(5):
            found += await asyncio.gather(*(self.call(model, prompt, _middle(OUTPUTS)) for _ in range(beside)))
        return median((one.end - one.first) / (one.written - 1) for one in found)

    async def disturbed(self, model: str, token: float) -> float:
        """Share of its pace that a call loses while another one's prompt is read."""
        found = []
        for _ in range(5):
            writing, reading = await asyncio.gather(self.call(model, SHORT, OUTPUTS[1]), self.call(model, PROMPTS[1], 2))
            took = writing.end - writing.first
            found.append((took - token * (writing.written - 1)) / min(took, reading.first))
        return min(0.99, max(0.0, median(found)))


def _middle(bounds: tuple[int, int]) -> int:
    return sum(bounds) // 2


class Measured(NamedTuple):
    """Of a server: seconds of a load, of a token read, of a token written; how two calls share it, and what reading costs who writes."""

    load: float
    read: float
    token: float
    sharing: float
    disturbed: float


async def measured(url: str, slots: int, clock: Clock) -> Measured:
    """The server at `url`, now."""
    async with aiohttp.ClientSession() as session:
        at = Measuring(session, url, clock)
        load, read = await at.load(), 1.0 / await at.read(MODELS[0])
        token, alone = await at.token(MODELS[0], _middle(PROMPTS), 1), await at.token(MODELS[0], SHORT, 1)
        # behind long prompts, what several write would be mixed with what they read
        shared = [log(await at.token(MODELS[0], SHORT, beside) / alone) / log(beside) for beside in range(2, slots + 1)]
        disturbed = await at.disturbed(MODELS[0], alone) if slots > 1 else 0.0
    return Measured(load, read, token, min(1.0, max(0.0, fmean(shared or [0.0]))), disturbed)


def node_of(found: Measured, slots: int) -> NodeSpec:
    """As a fleet's file has it."""
    speeds = {"prefill_tokens_per_second": round(1.0 / found.read, 1), "decode_tokens_per_second": round(1.0 / found.token, 1)}
    parameters = {
        "models": [{"name": f"{name}:latest", "size_gb": 0.04, **speeds} for name in MODELS],
        "max_loaded_models": 1,
        "load_fixed_seconds": round(found.load, 3),
        "load_gb_per_second": 1e3,
        "cached_load_gb_per_second": 1e3,
        "decode_sharing": round(found.sharing, 3),
        "prefill_interference": round(found.disturbed, 3),
        "jitter": 0.0,
    }
    return NodeSpec(name="measured", profile="gpu-server", slots=slots, parameters=parameters)


def drawn(spec: NodeSpec, seed: int, count: int, load: float) -> list[Request]:
    """A trace that asks so much of such a node: two of three requests for the first model."""
    random, at, found = Random(seed), 0.0, list[Request]()
    model = spec.machine().models[0]
    for _ in range(count):
        prompt, output = random.randint(*PROMPTS), random.randint(*OUTPUTS)
        alone = prompt / (model.prefill_tokens_per_second or inf) + output / (model.decode_tokens_per_second or inf)
        found.append(Request(at, prompt, output, random.choices([f"{name}:latest" for name in MODELS], (2, 1))[0], limit=output))
        at += random.expovariate(load * spec.slots ** (1 - spec.machine().decode_sharing) / alone)
    return found


def compared(asked: Sequence[Request], came: Sequence[Answered], fleet: Fleet, seed: int) -> Figures:
    """What came, and what the simulator says of the same requests with the tokens that were read and written."""
    same = [replace(one, prompt=answer.read, output=answer.written) for one, answer in zip(asked, came, strict=True)]
    played = Play(fleet, same, policy="hybrid", seed=seed).run()
    pairs = {
        "first": (fmean(one.first for one in came), fmean(one.first_seconds for one in played.told)),
        "end": (fmean(one.end for one in came), fmean(one.ended_at - one.request.at for one in played.told)),
        "makespan": (max(one.at + answer.end for one, answer in zip(asked, came, strict=True)), played.seconds),
    }
    found: dict[str, float] = {"not whole": float(sum(not one.whole for one in came)), "loads, simulated": float(played.loads)}
    for name, (real_seconds, told_seconds) in pairs.items():
        found |= {
            f"{name}, s": real_seconds,
            f"{name} simulated, s": told_seconds,
            f"{name} wrong by": abs(told_seconds / real_seconds - 1),
        }
    return found


@dataclass(slots=True)
class _Side:
    """The real server, tutti before it, and how it was found last."""

    url: str
    tutti: str
    last: Measured


@contextmanager
def _side(lab: Lab, slots: int) -> Iterator[_Side]:
    with real(lab.home, slots) as url:
        before = lab.run(measured(url, slots, _CLOCK))
        with tutti(lab, Fleet(nodes=(node_of(before, slots),)), {"measured": url}) as cluster:
            yield _Side(url, cluster.url, before)


def measure(lab: Lab, repeat: int, *, slots: int, count: int, load: float, spec: Path | None) -> Figures:
    """The simulated machine beside a real Ollama (of `make ollama`). Each run is a seed."""
    side = lab.kept(_side, lab, slots)
    before, asked = side.last, drawn(node_of(side.last, slots), repeat, count, load)
    came = lab.run(at_their_times(side.tutti, asked, _CLOCK, str(repeat)))
    side.last = lab.run(measured(side.url, slots, _CLOCK))
    fleet = Fleet(nodes=(node_of(Measured(*map(fmean, zip(before, side.last, strict=True))), slots),))
    if spec is not None:
        spec.parent.mkdir(parents=True, exist_ok=True)
        spec.write_text(yaml.safe_dump(fleet.model_dump(mode="json", exclude_defaults=True), sort_keys=False))
    drift = max(max(pair) / min(pair) for pair in zip(before[:3], side.last[:3], strict=True))
    return {**compared(asked, came, fleet, repeat), "measured before and after, most apart, x": drift}


BENCH = Bench(
    measure,
    "one side is simulated, the other an Ollama",
    (
        *(
            Budget(f"{name}, simulated, wrong by", "", median_of(f"{name} wrong by"), at_most=WITHIN)
            for name in ("first", "end", "makespan")
        ),
        Budget("answers that were refused or cut", "", most_of("not whole"), at_most=0),
    ),
    (
        option("slots", 2, "OLLAMA_NUM_PARALLEL.", type=click.IntRange(1, 8)),
        click.Option(["--requests", "count"], type=click.IntRange(10, 10_000), default=40, help="Of the trace."),
        option("load", 0.4, "Share of what the server can do, without its loads.", type=click.FloatRange(0, 1, min_open=True)),
        option("spec", None, "Write the server here, as a fleet of one node.", type=click.Path(path_type=Path)),
    ),
    quick={"count": 10, "slots": 1},
)
