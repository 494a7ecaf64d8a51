"""A worker of the fleet: the real policies (places, inbox, speeds, shares of offers) around a simulated machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf

from infra.lab.fleet.machine import Call, Machine
from infra.lab.fleet.timeline import Timeline
from infra.lab.simulators.ollama.parameters import GIGABYTE, Parameters
from services.worker.attempt import Attempt
from services.worker.backends.base import Completion
from services.worker.breakers import NODE, BreakerPolicy, Breakers, Called
from services.worker.credits import share
from services.worker.inbox import Inbox
from services.worker.registration import signature
from services.worker.round_trip import RoundTrip
from services.worker.slots import Slots
from services.worker.speeds import Speeds
from shared.contracts.chat import Answer
from shared.contracts.credits import Credits
from shared.contracts.failure import FailureKind
from shared.contracts.node import Hardware, Node, NodeModel
from shared.contracts.outcome import claim_id
from shared.contracts.step import Step
from shared.contracts.usage import Timings, Usage
from shared.placement.choosing import split
from shared.placement.demand import cost_of
from shared.placement.filters import crowded

COALESCE_SECONDS = 0.005
CREDITS_SECONDS = 1.0
TURN_SECONDS = 0.2
PROBE_SECONDS = 1.0
PREFETCH_LIMIT = 512
GPU_REACHES, CPU_REACHES = 0.65, 0.7
_ANSWER = Answer()


@dataclass(slots=True)
class Given:
    """A step in a mailbox, with what its model will really read and write."""

    step: Step
    prompt: int
    output: int
    ended: Callable[[Step, Call | None], None]


def hardware_of(parameters: Parameters) -> Hardware:
    """As a worker finds it: by the makers' figure of its memory's bandwidth, of which calls reach a part."""
    vram = int(parameters.vram_gb * GIGABYTE)
    written = max((model.decode_tokens_per_second or 0.0) * model.size_gb for model in parameters.models)
    return Hardware(
        vram_bytes=vram, ram_bytes=int(parameters.ram_gb * GIGABYTE), bandwidth=written / (GPU_REACHES if vram else CPU_REACHES)
    )


class Worker:
    """`tell_credits`, `tell_node`: what routers are to hear, at once; whoever is given them counts the way."""

    def __init__(
        self,
        name: str,
        mailbox: int,
        parameters: Parameters,
        machine: Machine,
        timeline: Timeline,
        *,
        slots: int,
        tell_credits: Callable[[Credits], None],
        tell_node: Callable[[Node], None],
    ) -> None:
        self.name, self.mailbox, self.machine = name, mailbox, machine
        self._parameters, self._timeline = parameters, timeline
        self._tell_credits, self._tell_node = tell_credits, tell_node
        self._hardware = hardware_of(parameters)
        self.slots = Slots(slots, prefetch_limit=PREFETCH_LIMIT, round_trip=RoundTrip(0.05))
        self.speeds = Speeds()
        self.inbox = Inbox(2_048)
        self.backlogs: dict[str, int] = {}
        self.reads = self.written = 0
        """Of its mailbox: next offset to be read; next one to be written."""
        self._claims = self._sequence = 0
        self._running: dict[Attempt, Call] = {}
        self._waits: dict[Attempt, Given] = {}
        self._model: str | None = None
        self._planned = False
        self._told: Node | None = None
        self._boot = 0
        self.there = self.reachable = True
        self.breakers = Breakers(BreakerPolicy())
        self.taken: list[float] = []
        """When each step was read."""

    # What it is given

    def take(self, offset: int, given: Given) -> None:
        """It reads a record of its mailbox."""
        if not self.there:
            self._timeline.after(10.0, lambda: given.ended(given.step, None))
            return
        self.reads = offset + 1
        self.taken.append(self._timeline.now)
        self._claims += 1
        attempt = Attempt(given.step, claim_id(self.name, self._boot, self._claims), None, self._timeline.now)
        self._waits[attempt] = given
        self.inbox.push(attempt)
        self._start_waiting()
        self.announce()

    def _start_waiting(self) -> None:
        while self.slots.free > 0:
            attempt = self.inbox.pop(self._model, self._timeline.now, self._begins)
            if attempt is None:
                return
            self._model = attempt.step.model
            self.slots.take(self._timeline.now)
            attempt.busy_before = self.slots.busy_seconds(self._timeline.now)
            given = self._waits[attempt]
            attempt.started_at = self._timeline.now
            call = Call(attempt.step.model, given.prompt, given.output, partial(self._ended, attempt))
            self._running[attempt] = call
            self.machine.begin(call)

    def _begins(self, attempt: Attempt) -> bool:
        """As `services.worker.registration` does."""
        node, model = self._parameters, attempt.step.model
        running = {call.model for call in self._running.values()}
        if not running or model in running or (model in self.machine.loaded and running <= self.machine.loaded.keys()):
            return True
        return not crowded(model, running, {}, node.max_loaded_models, 0)

    def _ended(self, attempt: Attempt, call: Call) -> None:
        if self._running.pop(attempt, None) is None:
            return
        given, now = self._waits.pop(attempt), self._timeline.now
        area = self.slots.busy_seconds(now) - attempt.busy_before
        running = area / (now - attempt.started_at) if attempt.started_at is not None and now > attempt.started_at else 1.0
        self.slots.give_back(now, succeeded=not call.failed)
        if not call.failed:
            assert call.first_at is not None
            reading, writing = (call.first_at - call.read_at) * 1e3, (now - call.first_at) * 1e3
            done = Completion(
                _ANSWER,
                Usage(calls=1, prompt_tokens=call.prompt, completion_tokens=call.output),
                Timings(load_ms=call.load_seconds * 1e3, prefill_ms=reading, decode_ms=writing),
                call.prompt,
            )
            self.speeds.observe(call.model, done, running)
        given.ended(attempt.step, call)
        if call.failed and not self.machine.alive and self.reachable:
            self._unreachable()
        else:
            self._judge(attempt, call)
        self._start_waiting()
        self.announce()

    # What it tells

    def announce(self) -> None:
        """Soon, together with what else changes until then."""
        if not self._planned:
            self._planned = True
            self._timeline.after(COALESCE_SECONDS, self._announce)

    def hear(self, router: str, backlog: int) -> None:
        """A router says how much waits there."""
        before = self.backlogs.get(router)
        self.backlogs[router] = backlog
        if backlog and not before:
            self.announce()

    def beat(self) -> None:
        """Each second, whatever happens."""
        if self.there:
            self._announce()
        self._timeline.after(CREDITS_SECONDS, self.beat)

    def _announce(self) -> None:
        self._planned = False
        if not self.there:
            return
        now = self._timeline.now
        self._sequence += 1
        resident = tuple(sorted(name for name, there in self.machine.loaded.items()))
        self._tell_credits(
            Credits(
                node=self.name,
                boot=f"b{self._boot}",
                incarnation=self._boot,
                sequence=self._sequence,
                mailbox=self.mailbox,
                offers=share(self._places(now), self.backlogs, int(now / TURN_SECONDS)),
                read={"chat": self.reads, "embed": 0},
                told={"chat": (0, self.reads)},
                running=self.slots.busy,
                queued_tokens=sum(cost_of(attempt.step) for attempt in self._waits),
                resident=resident,
                decode_tokens_per_second=self.speeds.node_decode,
                free_seconds=self._free_seconds(),
            )
        )
        node = self.node(resident)
        if self._told is None or signature(node) != signature(self._told):
            self._told = node
            self._tell_node(node)

    def _places(self, now: float) -> int:
        return self.breakers.places(self.slots.places(now, len(self.inbox))) if self.reachable and not self.inbox.blocked else 0

    def _judge(self, attempt: Attempt, call: Call) -> None:
        """As `services.worker.health` does; a probe asks the machine itself, as it would be asked by one token."""
        now, before = self._timeline.now, self.breakers.shut
        said = Called(attempt.step.id, now - call.asked_at, int(call.output - call.left) if call.first_at else 0)
        if call.failed:
            self.breakers.failed(attempt.claim, call.model, FailureKind.MODEL_ERROR, said, now)
        else:
            self.breakers.succeeded(attempt.claim, call.model, said, now)
        if self.breakers.shut - before:
            self._probe()

    def _probe(self) -> None:
        now = self._timeline.now
        for name in self.breakers.due(now):
            self.breakers.probed(name, self.machine.fails_after is None, now, called=True)
        self.announce()
        if (seconds := self.breakers.due_in(now)) < inf:
            self._timeline.after(max(0.001, seconds), self._probe)

    def _unreachable(self) -> None:
        """A call found nobody: nothing is offered until a probe does."""
        self.reachable = False

        def probe() -> None:
            self.reachable = self.machine.alive
            if not self.reachable:
                self._timeline.after(PROBE_SECONDS, probe)
            self.announce()

        self._timeline.after(PROBE_SECONDS, probe)

    def _free_seconds(self) -> float | None:
        """Until the first of its slots is likely to be free."""
        if self.slots.free > 0:
            return None
        now, running = self._timeline.now, self.slots.busy
        left = []
        for attempt, call in self._running.items():
            prompt, output = split(attempt.step)
            whole = self.speeds.seconds(call.model, prompt, output, running)
            if whole is None:
                return None
            since = now - (attempt.started_at or now)
            left.append(max(whole - since, whole / 4))
        return min(left) if left else None

    def node(self, resident: tuple[str, ...] = ()) -> Node:
        """As it registers."""
        models = (
            NodeModel(
                name=model.name,
                size_bytes=model.weights_bytes,
                context_length=model.context_length,
                operations=("embed",) if "embedding" in model.capabilities else ("chat", "generate"),
                resident=model.name in resident,
            )
            for model in self._parameters.models
        )
        return Node(
            id=self.name,
            boot=f"b{self._boot}",
            mailbox=self.mailbox,
            backend="ollama",
            simulated=True,
            slots=self.slots.total,
            most_models=self._parameters.max_loaded_models,
            hardware=self._hardware,
            models=tuple(self.speeds.attach(model).model_copy(update={"broken": model.name in self.breakers.shut}) for model in models),
            broken=NODE in self.breakers.shut,
            at=0.0,
        )

    # What becomes of it

    def die(self) -> None:
        """The whole machine: nobody hears of it. What it had is asked again when its silence is noticed."""
        self.there = False
        self.machine.die()
        lost = list(self._waits.values())
        self._waits.clear()
        self._running.clear()
        self.inbox.clear()
        self.slots.busy = 0
        for given in lost:
            self._timeline.after(10.0, partial(given.ended, given.step, None))

    def lose_machine(self) -> None:
        """Its model server ends; the worker is there, and hears of its calls' ends at once."""
        calls = list(self._running.values())
        self.machine.die()
        for call in calls:
            call.failed = True
            call.ended(call)

    def come_back(self) -> None:
        """As a new boot."""
        self.there, self.machine.alive = True, True
        self._boot += 1
        self._told = None
        self.announce()
