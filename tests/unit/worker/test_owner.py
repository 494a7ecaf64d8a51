"""The whole worker, on the in-memory log, on a machine that is somebody's: it yields, comes back, sleeps; an administrator beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf

import pytest

from services.worker.app import WorkerService
from services.worker.owner.manners import OWNER_IS_THERE, OwnerFacts, OwnerSettings, SleepSettings
from services.worker.owner.yielding import FALLS_ASLEEP_SECONDS
from shared.contracts import headers
from shared.contracts.control import Drain
from shared.contracts.node import NodeModel
from shared.contracts.outcome import StepReleased, StepSucceeded
from shared.kafka.port import TopicPartition
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import NODE, World, play, step

AWAY, THERE = OwnerFacts(input_seconds=inf), OwnerFacts(input_seconds=0.0)
RULES = OwnerSettings(away_seconds=300, look_seconds=1, finish_seconds=20)


@dataclass
class Desk:
    """A machine that a test plays: what it tells, and what it is told to do."""

    facts: OwnerFacts = AWAY
    ran: list[tuple[str, ...]] = field(default_factory=list)
    code: int = 0

    def before(self, service: WorkerService) -> None:
        service.yielding.look, service.yielding.execute = self.look, self.execute

    async def look(self, rules: OwnerSettings, wall: float, *, in_use: bool) -> OwnerFacts:
        return self.facts

    async def execute(self, command: Sequence[str]) -> int:
        self.ran.append(tuple(command))
        return self.code


class Unloading(ScriptedBackend):
    """Has a model in memory until it is told to unload it."""

    resident: bool = True

    async def models(self) -> tuple[NodeModel, ...]:
        return tuple(NodeModel(name=name, resident=self.resident and name == "small") for name in self.known)

    async def unload(self, model: str) -> None:
        assert model == "small"
        self.resident = False


def drain(world: World, draining: bool) -> None:
    world.write(world.topics.controls, 0, Drain(node=NODE, draining=draining).to_bytes(), headers.envelope("drain"))


async def offers(world: World, seconds: float = 2.5) -> dict[str, int]:
    """What is offered to a router that has work, after a while."""
    for _ in range(int(seconds / 0.5)):
        world.presence("r", backlog=5)
        await world.clock.sleep(0.5)
    return world.credits()[-1].offers


def test_a_node_yields_lets_what_runs_end_unloads_and_comes_back() -> None:
    """While the owner is there nothing is offered, what waits and what comes is given back uncounted, and its record says why."""

    async def scenario(world: World) -> None:
        backend = Unloading(Script(pause=2.0))
        desk = Desk()
        async with world.worker(backend, slots=1, owner=RULES, before=desk.before) as worker:
            world.route(step(1), step(2))
            await world.clock.sleep(1.5)
            desk.facts = THERE
            await world.until(lambda: bool(world.outcomes(StepReleased)), 2)
            assert [r.job for r in world.outcomes(StepReleased)] == ["j2"]
            world.route(step(3))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)), 5)
            await world.until(lambda: not backend.resident, 2)
            assert await offers(world) == {}
            assert [r.job for r in world.outcomes(StepReleased)] == ["j2", "j3"]
            assert OWNER_IS_THERE in world.outcomes(StepReleased)[-1].reason
            told = world.nodes()[-1]
            assert (told.yields, told.draining, told.asleep) == (OWNER_IS_THERE, False, False)
            assert not told.models[0].resident
            assert [r for r in worker.service.readiness().reasons if OWNER_IS_THERE in r]
            desk.facts = AWAY
            await world.clock.sleep(1.5)
            assert (await offers(world)) == {"r": 1}
            assert not world.nodes()[-1].yields
            assert worker.service.readiness().ready

    play(scenario)


def test_a_machine_that_cannot_be_read_and_models_that_stay_stop_nothing() -> None:
    """Whatever is raised: the worker goes on, and what is not told makes nobody yield."""

    class Stuck(Unloading):
        async def unload(self, model: str) -> None:
            raise OSError("stuck")

    class Broken(Desk):
        async def look(self, rules: OwnerSettings, wall: float, *, in_use: bool) -> OwnerFacts:
            if self.facts is AWAY:
                raise OSError("no such file")
            return self.facts

    async def scenario(world: World) -> None:
        desk = Broken()
        async with world.worker(Stuck(), owner=RULES, before=desk.before) as worker:
            await world.clock.sleep(5)
            assert worker.service.readiness().ready
            desk.facts = THERE
            await world.until(lambda: bool(world.nodes()[-1].yields), 3)
            desk.facts = AWAY
            assert (await offers(world)) == {"r": 2}

    play(scenario)


def test_what_does_not_end_in_time_is_given_back_once() -> None:
    """The owner waits for nobody's long generation; the job goes on elsewhere, without a counted failure."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(hangs=True))
        desk = Desk()
        async with world.worker(backend, owner=RULES, before=desk.before):
            world.route(step(1))
            await world.clock.sleep(1.5)
            began, desk.facts = world.clock.monotonic(), THERE
            await world.until(lambda: bool(world.outcomes(StepReleased)), 30)
            assert 19 <= world.clock.monotonic() - began <= 23
            assert backend.running == 0
            await world.clock.sleep(30)
            assert len(world.outcomes(StepReleased)) == 1

    play(scenario)


@pytest.mark.parametrize("first", ["owner", "administrator"])
def test_neither_the_owner_nor_an_administrator_undoes_what_the_other_said(first: str) -> None:
    """In whatever order they come and go: the node works again when both have nothing against it."""

    async def scenario(world: World) -> None:
        desk = Desk()
        async with world.worker(ScriptedBackend(), owner=RULES, before=desk.before):

            async def say(who: str, closed: bool) -> None:
                if who == "owner":
                    desk.facts = THERE if closed else AWAY
                else:
                    drain(world, closed)
                await world.clock.sleep(2.5)

            second = "administrator" if first == "owner" else "owner"
            await say(first, True)
            await say(second, True)
            assert (world.nodes()[-1].yields, world.nodes()[-1].draining) == (OWNER_IS_THERE, True)
            await say(first, False)
            assert await offers(world) == {}
            assert (bool(world.nodes()[-1].yields), world.nodes()[-1].draining) == (second == "owner", second == "administrator")
            await say(second, False)
            assert await offers(world) == {"r": 2}

    play(scenario)


def test_a_machine_that_is_nobodys_is_never_looked_at() -> None:
    """By default nothing is read, and nothing runs."""

    async def scenario(world: World) -> None:
        blind = Desk()
        blind.look = None  # type: ignore[assignment, method-assign]
        async with world.worker(ScriptedBackend(), before=blind.before) as worker:
            await world.clock.sleep(10)
            assert worker.service.readiness().ready
            assert not world.nodes()[-1].yields

    play(scenario)


SLEEPS = SleepSettings(command=("suspend", "now; rm"), after_seconds=30, mac="AA-BB-CC-00-11-22")


def asleep(world: World) -> bool:
    return world.nodes()[-1].asleep


def test_an_idle_machine_is_put_to_sleep_and_its_node_is_there_when_it_wakes_up() -> None:
    """Told first: the record keeps models and says which address wakes it. The command's words are the settings'. Awake, it works."""

    async def scenario(world: World) -> None:
        desk = Desk()
        async with world.worker(ScriptedBackend(), owner=OwnerSettings(look_seconds=1), sleep=SLEEPS, before=desk.before):
            await world.clock.sleep(20)
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            await world.clock.sleep(29)
            assert not desk.ran, "a step is something to do"
            await world.until(lambda: bool(desk.ran), 10)
            told = world.nodes()[-1]
            assert (told.asleep, told.mac, told.draining) == (True, "aa:bb:cc:00:11:22", False)
            assert [model.name for model in told.models] == ["small", "other"]
            assert desk.ran == [("suspend", "now; rm")]
            assert await offers(world) == {}
            world.clock.ahead += 3_600  # it slept for an hour: the monotonic clock stood still
            await world.until(lambda: not asleep(world), 3)
            assert await offers(world) == {"r": 2}
            assert len(desk.ran) == 1

    play(scenario)


@pytest.mark.parametrize(("code", "seconds"), [(1, 3.0), (0, FALLS_ASLEEP_SECONDS + 3)])
def test_a_machine_that_does_not_sleep_works_on(code: int, seconds: float) -> None:
    """The command fails, or nothing comes of it: the node takes steps again, and tries as late as before."""

    async def scenario(world: World) -> None:
        desk = Desk(code=code)
        async with world.worker(ScriptedBackend(), owner=OwnerSettings(look_seconds=1), sleep=SLEEPS, before=desk.before):
            await world.until(lambda: bool(desk.ran), 40)
            await world.until(lambda: not asleep(world), seconds)
            assert await offers(world) == {"r": 2}
            await world.clock.sleep(20)
            assert len(desk.ran) == 1
            await world.until(lambda: len(desk.ran) == 2, 20)

    play(scenario)


def test_a_machine_that_sleeps_by_being_switched_off_leaves_its_record() -> None:
    """No tombstone: whoever wakes it knows what it has. Its next boot goes on in its mailbox."""

    async def scenario(world: World) -> None:
        desk = Desk()
        async with world.worker(ScriptedBackend(), owner=OwnerSettings(look_seconds=1), sleep=SLEEPS, before=desk.before) as worker:
            await world.until(lambda: bool(desk.ran), 40)
            await worker.end()
            assert asleep(world)
            last = world.log.existing(TopicPartition(world.topics.nodes, 0)).records[-1]
            assert last.value is not None
        async with world.worker(ScriptedBackend(), process="again") as again:
            await world.until(lambda: again.service.readiness().ready, 30)
            assert not asleep(world)
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))

    play(scenario)


def test_a_machine_with_an_owner_at_it_is_not_put_to_sleep() -> None:
    """However long no step has come."""

    async def scenario(world: World) -> None:
        desk = Desk(THERE)
        async with world.worker(ScriptedBackend(), owner=RULES, sleep=SLEEPS, before=desk.before):
            await world.clock.sleep(300)
            assert not desk.ran

    play(scenario)
