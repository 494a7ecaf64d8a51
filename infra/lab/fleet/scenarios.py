"""Scenarios of the fleet bench: each a function from (policy, seed) to figures. Figures' names hold their units.

A seed takes another stretch of the trace, other paces of the machines and other errors of the estimates. No constant of a policy was
chosen on the stretches from `HELD_BACK` on, which odd seeds take.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

from infra.lab.bench.figures import Figures, percentile
from infra.lab.fleet.play import Play, Played
from infra.lab.fleet.spec import Arrival, Change, Fleet, NodeSpec, Request, at_load, mixed, recorded
from shared.contracts.base import PriorityClass

SPEEDS = (1, 2, 4, 8, 16)
SIX = tuple(f"m{number}" for number in range(6))
PREFILL, DECODE, SIZE = 1_200.0, 50.0, 4.9
"""Gigabytes a second of the slowest machine, and gigabytes of a model: a mini PC; the fastest of `SPEEDS` is a GPU server."""
HELD_BACK = 10_000
PEER = Path(__file__).with_name("peer.yaml")

Scenario = Callable[[str, int], Figures]


@cache
def trace() -> tuple[Arrival, ...]:
    """All of it."""
    return tuple(recorded())


def stretch(seed: int, count: int) -> list[Arrival]:
    """So many arrivals: even seeds of the first half of the trace, odd ones of what was held back."""
    first = (HELD_BACK if seed % 2 else 0) + seed // 2 * 1_500 % (HELD_BACK - count)
    return list(trace()[first : first + count])


def model(name: str, size: float = SIZE) -> Mapping[str, Any]:
    """As a machine's parameters have it."""
    return {"name": name, "size_gb": size}


def machines(speeds: Sequence[float], models: Sequence[str], *, slots: int = 1, most_models: int = 3, size: float = SIZE) -> Fleet:
    """One of each speed."""
    parameters = {
        "models": [model(name, size) for name in models],
        "max_loaded_models": most_models,
        "decode_gb_per_second": DECODE,
        "prefill_gb_per_second": PREFILL,
    }
    return Fleet(nodes=tuple(NodeSpec(name=f"n{n}", speed=speed, slots=slots, parameters=parameters) for n, speed in enumerate(speeds)))


def seconds_alone(arrival: Arrival, *, size: float = SIZE, writers: float = 1.0) -> float:
    """Of the slowest machine, `writers`: how many times as much it writes with all its slots."""
    return arrival.prompt * size / PREFILL + arrival.output * size / DECODE / writers


def batch(policy: str, seed: int) -> Figures:
    """All there at once: when is the last one done, beside what the machines need if none ever waits."""
    arrivals = stretch(seed, 3_000)
    requests = [Request(0.0, one.prompt, one.output, "m", PriorityClass.BATCH) for one in arrivals]
    played = Play(machines(SPEEDS, ["m"]), requests, policy=policy, seed=seed).run()
    return {"makespan to lower bound, x": played.seconds / (sum(map(seconds_alone, arrivals)) / sum(SPEEDS))}


def interactive(policy: str, seed: int, *, routers: int = 1) -> Figures:
    """Conversations at 80 % load, four slots a machine."""
    writers = 4**0.7
    arrivals = at_load(stretch(seed, 3_000), lambda one: seconds_alone(one, writers=writers) / sum(SPEEDS), 0.8)
    requests = [Request(one.at, one.prompt, one.output, "m") for one in arrivals]
    return told(Play(machines(SPEEDS, ["m"], slots=4), requests, policy=policy, seed=seed, routers=routers).run())


def swaps(policy: str, seed: int) -> Figures:
    """Six models for three places, one machine each, at 80 % load."""
    arrivals = at_load(stretch(seed, 1_000), lambda one: seconds_alone(one) / 48, 0.8)
    return told(Play(machines((16, 16, 16), SIX, most_models=1), mixed(arrivals, SIX, seed), policy=policy, seed=seed).run())


def one_place(policy: str, seed: int) -> Figures:
    """A B A A C A B C on one place."""
    requests = [Request(number / 100, 100, 20, name) for number, name in enumerate("abaacabc")]
    return told(Play(machines((16,), "abc", most_models=1), requests, policy=policy, seed=seed).run())


def beside(seed: int) -> tuple[Fleet, list[Request]]:
    """200 requests for 3 models on 3 machines 1:2:4 with one place each: also played in real time, beside a peer (`live`)."""
    random, random_ends, at, requests = Random(seed), Random(f"{seed}-ends"), 0.0, list[Request]()
    fleet = Fleet.read(PEER)
    ends = fleet.nodes[0].machine().answer_tokens
    for _ in range(200):
        at += random.expovariate(200 / 28)
        asked = random.choices("abc", (3, 2, 1))[0]
        prompt, limit = random.randint(20, 120), random.randint(24, 64)
        requests.append(Request(at, prompt, min(limit, random_ends.randint(*ends)), asked, limit=limit))
    return fleet, requests


def peer(policy: str, seed: int) -> Figures:
    """The same in virtual time."""
    return told(Play(*beside(seed), policy=policy, seed=seed).run())


DIES_AT = 600.0
NOTICED = 30.0
"""Seconds after which nobody may feel it any longer."""


def death(policy: str, seed: int) -> Figures:
    """One of eight machines' model server dies at 80 % load of the other seven; beside it seven that never had an eighth."""
    fleet = machines((4,) * 8, ["m"], slots=4)
    dying = fleet.nodes[0].model_copy(update={"changes": (Change(at_seconds=DIES_AT + 2.0, what="dies"),)})
    writers = 4**0.7
    arrivals = at_load(stretch(seed, 3_000), lambda one: seconds_alone(one, writers=writers) / 28, 0.8)
    requests = [Request(one.at, one.prompt, one.output, "m") for one in arrivals]
    fleets = [fleet.model_copy(update={"nodes": (*first, *fleet.nodes[1:])}) for first in ((dying,), ())]
    played, seven = (Play(each, requests, policy=policy, seed=seed).run() for each in fleets)
    p99 = [percentile([one.first_seconds for one in each.told if one.request.at > DIES_AT + NOTICED], 0.99) for each in (played, seven)]
    return {
        "failed": float(played.failed),
        "first p99 from 30 s on to that of seven, x": p99[0] / p99[1],
        "asked again": float(sum(one.attempts > 1 for one in played.told)),
        "steps it was given after": float(sum(at > DIES_AT + 2.0 for at in played.workers[0].taken)),
    }


FAILS_AT, MENDS_AT = 62.0, 242.0
"""By the timeline, which begins two seconds before the first arrival."""


def fails_fast(policy: str, seed: int) -> Figures:
    """One of four machines fails each call within a hundredth of a second for three minutes, at 60 % load of all."""
    fleet = machines((4,) * 4, ["m"], slots=4)
    changes = (Change(at_seconds=FAILS_AT, what="fails", seconds=0.01), Change(at_seconds=MENDS_AT, what="mends"))
    bad = fleet.nodes[0].model_copy(update={"changes": changes})
    fleet = fleet.model_copy(update={"nodes": (bad, *fleet.nodes[1:])})
    arrivals = at_load(stretch(seed, 3_000), lambda one: seconds_alone(one, writers=4**0.7) / 16, 0.6)
    requests = [Request(one.at, one.prompt, one.output, "m") for one in arrivals]
    played = Play(fleet, requests, policy=policy, seed=seed).run()
    met = sum(FAILS_AT <= at < MENDS_AT for at in played.workers[0].taken)
    after = sum(at >= MENDS_AT + NOTICED for at in played.workers[0].taken)
    return {"failed": float(played.failed), "steps it was given meanwhile": float(met), "and 30 s after it mends": float(after)}


def told(played: Played) -> Figures:
    """What people feel, what the machines did, and how well it was foreseen."""
    first = [one.first_seconds for one in played.told]
    end = [one.ended_at - one.request.at for one in played.told]
    wrong = [abs(one.predicted_first / (one.first_at - one.given_at) - 1) for one in played.told if one.first_at > one.given_at]
    return {
        "first p50, s": percentile(first, 0.5),
        "first p95, s": percentile(first, 0.95),
        "first p99, s": percentile(first, 0.99),
        "end p50, s": percentile(end, 0.5),
        "end p95, s": percentile(end, 0.95),
        "loads": float(played.loads),
        "makespan, s": played.seconds,
        "start predicted wrong by, median": percentile(wrong, 0.5),
        "failed": float(played.failed),
    }


SCENARIOS: Mapping[str, Scenario] = {
    "batch": batch,
    "interactive": interactive,
    "swaps": swaps,
    "one_place": one_place,
    "peer": peer,
    "death": death,
    "fails_fast": fails_fast,
}
