"""One play: a fleet, requests, a policy; what became of each request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import blake2b
from math import inf
from random import Random

from infra.lab.fleet.machine import Call, Machine
from infra.lab.fleet.routers import Router
from infra.lab.fleet.spec import Change, Fleet, Request
from infra.lab.fleet.timeline import Timeline
from infra.lab.fleet.worker import Given, Worker
from services.router.messages import Placed
from services.router.settings import RouterSettings
from shared.contracts.chat import Options
from shared.contracts.credits import Credits
from shared.contracts.node import Node
from shared.contracts.step import Step
from shared.estimates import ANSWER_TOKENS
from shared.topics import Topics

RETRY_SECONDS = 0.2
MOST_ATTEMPTS = 5
ESTIMATE_SPREAD = 0.2
"""Prompt tokens are known to a router by their characters only: so far off, either way."""


@dataclass(slots=True, eq=False)
class Told:
    """One request's way. Seconds of the timeline; predictions are seconds from `given_at`."""

    request: Request
    given_at: float = inf
    first_at: float = inf
    ended_at: float = inf
    node: str = ""
    attempts: int = 0
    predicted_first: float = 0.0
    predicted_end: float = 0.0

    @property
    def first_seconds(self) -> float:
        return self.first_at - self.request.at


@dataclass(slots=True)
class Played:
    """All of one play."""

    told: list[Told]
    workers: list[Worker]
    seconds: float
    failed: int = 0
    moments: dict[str, float] = field(default_factory=dict)

    @property
    def loads(self) -> int:
        return sum(worker.machine.loads for worker in self.workers)


class Play:
    """`routers`: how many share the work."""

    def __init__(self, fleet: Fleet, requests: Sequence[Request], *, policy: str, seed: int, routers: int = 1) -> None:
        self._fleet, self._requests, self._timeline = fleet, requests, Timeline()
        self._random, topics = Random(seed), Topics()
        settings = RouterSettings.model_validate({"policy": policy})
        self._told = [Told(request) for request in requests]
        self._left, self._failed = len(requests), 0
        self._by_id: dict[str, Told] = {}
        presence = self._on_presence
        self.routers = [
            Router(f"r{n}", topics, self._timeline, settings=settings, deliver=self._deliver, presence=presence) for n in range(routers)
        ]
        self.workers: list[Worker] = []
        for mailbox, (name, spec) in enumerate(fleet.each()):
            parameters = spec.machine()
            machine = Machine(parameters, self._timeline, Random(f"{seed}-{name}"))
            worker = Worker(
                name,
                mailbox,
                parameters,
                machine,
                self._timeline,
                slots=spec.slots,
                tell_credits=self._tell_credits,
                tell_node=self._tell_node,
            )
            self.workers.append(worker)
            for change in spec.changes:
                self._timeline.after(change.at_seconds, partial(self._change, worker, change))
        self._of_mailbox = {worker.mailbox: worker for worker in self.workers}

    def run(self, most_seconds: float = 1e7) -> Played:
        """To the last answer."""
        for worker in self.workers:
            worker.backlogs = dict.fromkeys((router.name for router in self.routers), 0)
            worker.beat()
        for router in self.routers:
            router.sweep()
            router.beat()
        for number, told in enumerate(self._told):
            self._timeline.after(told.request.at + 2.0, partial(self._arrive, number, told))
        self._timeline.run(lambda: not self._left, most_seconds)
        for told in self._told:
            told.given_at, told.first_at, told.ended_at = told.given_at - 2.0, told.first_at - 2.0, told.ended_at - 2.0
        return Played(self._told, self.workers, self._timeline.now - 2.0, self._failed)

    # Steps

    def _arrive(self, number: int, told: Told) -> None:
        request = told.request
        estimate = max(1, round(request.prompt * (1 + ESTIMATE_SPREAD * (2 * self._random.random() - 1))))
        step = Step(
            job=f"j{number}",
            id=blake2b(str(number).encode(), digest_size=16).hexdigest(),
            home=number % 6,
            tenant="default",
            model=request.model,
            priority_class=request.priority_class,
            options=Options(max_tokens=request.limit),
            estimated_tokens=estimate + (request.limit or ANSWER_TOKENS),
        )
        self._by_id[step.id] = told
        self._send(step)

    def _send(self, step: Step) -> None:
        told = self._by_id[step.id]
        told.attempts += 1
        there = [router for router in self.routers if router.there]
        router = there[int(step.id[:8], 16) % len(there)]
        self._timeline.after(self._fleet.hop_seconds, lambda: router.read(step))

    def _deliver(self, router: Router, placed: Placed) -> int:
        worker, step = self._of_mailbox[placed.chosen.account.mailbox], placed.entry.step
        told = self._by_id[step.id]
        offset, worker.written = worker.written, worker.written + 1
        told.given_at, told.node = self._timeline.now, worker.name
        told.predicted_first, told.predicted_end = placed.chosen.first, placed.chosen.seconds
        given = Given(step.changed(model=placed.chosen.model), told.request.prompt, told.request.output, self._on_end)
        self._timeline.after(self._fleet.hop_seconds, lambda: worker.take(offset, given))
        return offset

    def _on_end(self, step: Step, call: Call | None) -> None:
        told, node = self._by_id[step.id], self._by_id[step.id].node
        if call is not None and not call.failed:
            told.first_at, told.ended_at = call.first_at or inf, self._timeline.now
            self._left -= 1
        elif step.attempt >= MOST_ATTEMPTS:
            self._failed, self._left = self._failed + 1, self._left - 1
        else:
            again = step.changed(attempt=step.attempt + 1, avoid=(*step.avoid, node), model=told.request.model)
            self._timeline.after(RETRY_SECONDS, lambda: self._send(again))

    # Facts

    def _tell_credits(self, record: Credits) -> None:
        for router in self.routers:
            self._timeline.after(self._fleet.hop_seconds, partial(router.on_credits, record))

    def _tell_node(self, node: Node) -> None:
        for router in self.routers:
            self._timeline.after(self._fleet.hop_seconds, partial(router.on_node, node))

    def _on_presence(self, name: str, backlog: int) -> None:
        for worker in self.workers:
            self._timeline.after(self._fleet.hop_seconds, partial(worker.hear, name, backlog))

    def _change(self, worker: Worker, change: Change) -> None:
        match change.what:
            case "dies":
                worker.lose_machine()
            case "vanishes":
                worker.die()
            case "returns":
                worker.come_back()
            case "slow":
                worker.machine.slow = change.factor
            case "fails":
                worker.machine.fails_after = change.seconds
            case "mends":
                worker.machine.slow, worker.machine.fails_after = 1.0, None
