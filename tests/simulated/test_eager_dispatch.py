"""A planner that writes into a mailbox itself (decision 0029), on the in-memory log: when it does, when it does not, and what follows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest

from infra.lab.virtual_loop import run
from services.planner.sending.eager import Eager
from services.planner.settings import PlannerSettings
from shared.contracts import headers
from shared.contracts.credits import Credits, RouterPresence
from shared.contracts.event import AttemptFailed, StepAsked
from shared.contracts.failure import FailureKind
from shared.contracts.node import Node, NodeModel
from shared.contracts.outcome import StepClaimed, StepReleased
from shared.contracts.step import Step
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import Message, TopicPartition
from shared.placement import why
from shared.placement.choosing import Placement
from shared.placement.ledger import CreditLedger
from shared.placement.parties import presence
from tests.support.planner_world import World

MODEL = NodeModel(name="small:1b", context_length=8192, resident=True)
PARTY = "p-1-planner"


class Scene:
    """One planner, and one node's announcements; what goes to the routers is run by nobody."""

    def __init__(self, world: World) -> None:
        self.world, self.sequence, self.offers = world, 0, {PARTY: 4}
        world.node.silent = 1.0
        node = Node(id="n", boot="b", mailbox=1, backend="ollama", slots=4, models=(MODEL,), at=0.0)
        world.log.write(TopicPartition(world.topics.nodes, 0), [Message(world.topics.nodes, node.to_bytes(), b"n", 0)])

    def credits(self, *, read: int = 0, **changes: Any) -> None:
        """The node's next record."""
        self.sequence += 1
        known = {"node": "n", "boot": "b", "sequence": self.sequence, "mailbox": 1, "offers": self.offers, "resident": ("small:1b",)}
        record = Credits(**(known | {"read": {"chat": read, "embed": 0}} | changes))
        self._announce(Message(self.world.topics.credits, record.to_bytes(), b"n", 0))

    def backlog(self, count: int) -> None:
        for message in presence(RouterPresence(router="r", backlog=count), self.world.topics):
            self._announce(message)

    def _announce(self, message: Message) -> None:
        self.world.log.write(TopicPartition(message.topic, 0), [message])

    async def submit(self, count: int = 1, **job: Any) -> None:
        for _ in range(count):
            self.world.produce(b'{"prompt": "q"}', **job)
        await asyncio.sleep(0.2)

    @property
    def given(self) -> list[MemoryRecord]:
        records = self.world.log.existing(TopicPartition(self.world.topics.work("chat"), 1)).records
        return [record for record in records if isinstance(record, MemoryRecord)]

    @property
    def slow(self) -> list[Step]:
        return self.world.node.steps_seen

    def facts(self, kind: type) -> list[Any]:
        return [fact for home in range(2) for fact in self.world.history(home) if isinstance(fact, kind)]

    def claim(self, record: MemoryRecord, number: int = 1) -> None:
        step = Step.model_validate_json(record.value or b"")
        of = {"job": step.job, "step": step.id, "attempt": step.attempt, "node": "n"}
        self.world.outcome(StepClaimed(**of, claim=f"n.b.{number}", mailbox=1, lease_seconds=20.0), step.home)

    def release(self, record: MemoryRecord) -> None:
        step = Step.model_validate_json(record.value or b"")
        self.world.outcome(
            StepReleased(job=step.job, step=step.id, attempt=step.attempt, node="n", reason="others wait"), step.home
        )  # fmt: skip


@asynccontextmanager
async def opened(**options: Any) -> AsyncIterator[Scene]:
    async with World(3, options=PlannerSettings(**options)) as world:
        scene = Scene(world)
        world.start("p")
        await asyncio.sleep(3.0)
        scene.credits()
        await asyncio.sleep(0.2)
        yield scene


def played(scene: Callable[[], Coroutine[Any, Any, None]]) -> None:
    run(scene())


def test_a_step_goes_into_the_mailbox_beside_its_event() -> None:
    """No record of `steps`; the event says where it went and why; the record says whose place it uses."""

    async def scene() -> None:
        async with opened() as here:
            await here.submit()
            [record], [asked] = here.given, here.facts(StepAsked)
            says = headers.Envelope(record.headers)
            assert (says.text(headers.NODE), says.text(headers.CREDITS)) == ("n", "b/1")
            assert Step.model_validate_json(record.value or b"").model == "small:1b"
            assert asked.node == "n"
            told = why.read(says.text(headers.WHY) or "")
            assert told is not None
            assert (told.node, told.load) == ("n", 0.0)
            assert not here.slow

    played(scene)


@pytest.mark.parametrize(
    ("options", "before"),
    [
        ({"eager": False}, Scene.credits),
        ({}, lambda here: here.backlog(1)),
        ({}, lambda here: here.credits(resident=("other:1b",))),
        ({}, lambda here: here.credits(offers={"r": 4})),
        ({}, lambda here: here.credits(boot="another")),
    ],
    ids=["switched off", "a router has a backlog", "the model is not resident", "the places are another's", "the node has started again"],
)
def test_else_it_goes_to_the_routers(options: dict[str, Any], before: Callable[[Scene], None]) -> None:
    """With the same event as ever."""

    async def scene() -> None:
        async with opened(**options) as here:
            before(here)
            await asyncio.sleep(0.2)
            await here.submit()
            assert not here.given
            assert len(here.slow) == 1
            assert here.facts(StepAsked)[0].node is None

    played(scene)


def test_places_are_used_once_by_all_homes_and_no_own_step_is_passed() -> None:
    """Four places for six steps of two homes; those that are left wait at the routers, and while they do nothing goes into the mailbox."""

    async def scene() -> None:
        async with opened() as here:
            await here.submit(3, home=0)
            await here.submit(3, home=1)
            assert (len(here.given), len(here.slow)) == (4, 2)
            here.credits(read=4)
            await asyncio.sleep(0.2)
            await here.submit()
            assert (len(here.given), len(here.slow)) == (4, 3)

    played(scene)


def each_home_its_own_ledger(patching: pytest.MonkeyPatch) -> None:
    """What one home has used the others do not know of."""
    ledgers: dict[CreditLedger, dict[int, CreditLedger]] = {}
    told, given = CreditLedger.on_credits, Eager.give

    def on_credits(self: CreditLedger, record: Credits, now: float) -> bool:
        for own in ledgers.get(self, {}).values():
            told(own, record, now)
        return told(self, record, now)

    def give(self: Eager, step: Any) -> Any:
        shared = self._placement
        of_home = ledgers.setdefault(shared.ledger, {})
        self._placement = Placement(shared.table, of_home.setdefault(step.home, deepcopy(shared.ledger)))
        found = given(self, step)
        self._placement = shared
        return found

    patching.setattr(CreditLedger, "on_credits", on_credits)
    patching.setattr(Eager, "give", give)


def test_the_planted_bug_of_homes_that_share_nothing_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """They use more places than are offered."""
    each_home_its_own_ledger(monkeypatch)

    async def scene() -> None:
        async with opened() as here:
            await here.submit(3, home=0)
            await here.submit(3, home=1)
            assert (len(here.given), len(here.slow)) == (6, 0)

    played(scene)


def test_a_claim_timeout_runs_from_the_acknowledged_event() -> None:
    """A node that says nothing loses the step to another one, by the routers."""

    async def scene() -> None:
        async with opened(claim_timeout_seconds=4.0) as here:
            await here.submit()
            await asyncio.sleep(3.5)
            assert not here.facts(AttemptFailed)
            await asyncio.sleep(2.0)
            [failed] = here.facts(AttemptFailed)
            assert (failed.failure.kind, failed.failure.node) == (FailureKind.UNCLAIMED, "n")
            assert [step.attempt for step in here.slow] == [2]

    played(scene)


def test_what_the_mailbox_does_not_take_goes_to_the_routers_at_once() -> None:
    """The same attempt, which waits there for as long as it takes; the place is not used before the node offers it anew."""

    async def scene() -> None:
        async with opened(claim_timeout_seconds=4.0) as here:
            here.world.log.faults.away["work.chat"] = 0.0
            await here.submit()
            assert [step.attempt for step in here.slow] == [1]
            here.world.log.faults.away.clear()
            await asyncio.sleep(10.0)
            assert not here.given
            assert not here.facts(AttemptFailed)

    played(scene)


def test_what_may_have_been_given_back_is_not_passed() -> None:
    """The node's credits tell that it has given steps back; until the planner has read which, nothing follows them into a mailbox."""

    async def scene() -> None:
        async with opened() as here:
            await here.submit(2)
            first, second = here.given
            here.credits(read=2, eager_from=2)
            await asyncio.sleep(0.2)
            await here.submit()
            assert (len(here.given), len(here.slow)) == (2, 1)
            here.release(first)
            here.claim(second)
            await asyncio.sleep(0.2)
            assert [step.attempt for step in here.slow] == [1, 2]
            assert not here.facts(AttemptFailed)[0].counted

    played(scene)
