"""Breakers in a worker: what fails is told, refused and given back, probed without a load, tried with one step; and rate groups."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from services.worker.backends.base import ModelCallFailed
from services.worker.backends.http import TokenBucket
from services.worker.health import BROKEN
from services.worker.rate_group import RateGroup
from shared.contracts.base import StepId
from shared.contracts.chat import Operation
from shared.contracts.failure import FailureKind
from shared.contracts.node import Node, NodeModel
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import Running, World, play, step

FAILS = Script(pieces=(), failure=FailureKind.MODEL_ERROR)


@dataclass
class Loaded(ScriptedBackend):
    """Its models are in memory, or only on disk."""

    resident: tuple[str, ...] = ("small",)

    async def models(self) -> tuple[NodeModel, ...]:
        return tuple(model.model_copy(update={"resident": model.name in self.resident}) for model in await super().models())

    @property
    def probed(self) -> list[str]:
        """The models of calls that were for nobody."""
        return [call.model for call in self.calls if call.step.job == "probe"]


async def fail(world: World, first: int, count: int, **changes: object) -> None:
    """Steps of jobs of their own, each awaited."""
    for number in range(first, first + count):
        world.presence("r", backlog=5)
        before = len(world.outcomes(StepFailed))
        world.route(step(number, **changes))
        await world.until(lambda before=before: len(world.outcomes(StepFailed)) > before)  # type: ignore[misc]


def shut(running: Running) -> set[str]:
    return set(running.service.attempts.health.breakers.shut)


@pytest.mark.parametrize("resident", [("small",), ()])
def test_a_model_that_fails_is_told_at_once_and_left_alone(resident: tuple[str, ...]) -> None:
    """Its record says so within 50 ms; its steps are given back uncounted, others' run. A resident model is asked for one token, and
    closed by it; another one is not called, and tried with one step."""

    async def scenario(world: World) -> None:
        backend = Loaded(script=FAILS, resident=resident, by_job={"j9": Script()})
        async with world.worker(backend) as running:
            await fail(world, 1, 2)
            assert shut(running) == {"small"}
            await world.until(lambda: world.nodes()[-1].models[0].broken, 0.05)
            assert not world.nodes()[-1].models[1].broken
            assert world.credits()[-1].offers
            world.route(step(5), step(9, model="other"))
            await world.until(lambda: [done.job for done in world.outcomes(StepSucceeded)] == ["j9"])
            assert [(given.job, given.reason, given.claim) for given in world.outcomes(StepReleased)] == [("j5", BROKEN, None)]
            backend.script = Script(pause=0.5)
            await world.until(lambda: not shut(running))
            assert backend.probed == [*resident, *resident]
            await world.until(lambda: not world.nodes()[-1].models[0].broken)
            world.route(step(6), step(7))
            if not resident:
                await world.until(lambda: world.nodes()[-1].models[0].broken)
            await world.until(lambda: len(world.outcomes(StepSucceeded)) + len(world.outcomes(StepReleased)) == 4)
            assert not shut(running)
            assert [given.job for given in world.outcomes(StepReleased)] == (["j5"] if resident else ["j5", "j7"])
            await world.until(lambda: not world.nodes()[-1].models[0].broken)

    play(scenario)


def test_what_waits_for_a_model_that_fails_is_given_back() -> None:
    """Uncounted, so that another node may have it; what waits for another model stays."""

    async def scenario(world: World) -> None:
        backend = Loaded(script=Script(pause=1.0, pieces=("x",), failure=FailureKind.MODEL_ERROR), by_job={"j5": Script()})
        async with world.worker(backend, slots=3, prefetch_limit=8):
            world.presence("r", backlog=9)
            world.route(*[step(n) for n in (1, 2, 3, 4)], step(5, model="other"))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            assert {given.job for given in world.outcomes(StepReleased)} == {"j4"}
            assert {failed.job for failed in world.outcomes(StepFailed)} == {"j1", "j2", "j3"}

    play(scenario)


@pytest.mark.parametrize(
    "kind",
    [FailureKind.BAD_REQUEST, FailureKind.CONTEXT_LENGTH, FailureKind.UNSUPPORTED, FailureKind.TOO_LARGE, FailureKind.INVALID_OUTPUT],
)
def test_what_the_request_is_to_blame_for_opens_nothing(kind: FailureKind) -> None:
    async def scenario(world: World) -> None:
        async with world.worker(Loaded(script=Script(pieces=(), failure=kind))) as running:
            await fail(world, 1, 8)
            assert not shut(running)

    play(scenario)


def test_a_model_that_a_node_says_it_has_and_has_not() -> None:
    """Of one that it does not list, nothing follows for the node."""

    async def scenario(world: World) -> None:
        async with world.worker(Loaded(script=Script(pieces=(), failure=FailureKind.UNKNOWN_MODEL))) as running:
            await fail(world, 1, 5, model="elsewhere")
            assert not shut(running)
            await fail(world, 11, 2)
            assert shut(running) == {"small"}

    play(scenario)


def test_slow_but_alive_is_not_dead() -> None:
    """A token each fifty seconds is below the timeouts of the settings."""

    async def scenario(world: World) -> None:
        async with world.worker(Loaded(script=Script(pause=50.0))) as running:
            for number in range(1, 5):
                world.route(step(number))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 4, 600.0)
            assert not shut(running)

    play(scenario)


def test_one_that_hangs_is_left_alone() -> None:
    """Its timeouts count; the probe, which hangs too, keeps it open."""

    async def scenario(world: World) -> None:
        backend = Loaded(script=Script(pieces=(), hangs=True))
        async with world.worker(backend, slots=4, first_token_timeout_seconds=5.0) as running:
            world.route(*[step(n) for n in (1, 2, 3)])
            await world.until(lambda: len(world.outcomes(StepFailed)) == 3)
            assert shut(running) == {"small"}
            await world.clock.sleep(30.0)
            assert shut(running) == {"small"}
            assert 2 <= len(backend.probed) <= 4
            backend.script = Script()
            await world.until(lambda: not shut(running))

    play(scenario)


def test_a_fallback_that_works_is_taken() -> None:
    """The router chose this node for it; the model itself is left alone, and `auto` is another one."""

    async def scenario(world: World) -> None:
        backend = Loaded(script=FAILS, by_job={"j8": Script(), "j9": Script()})
        async with world.worker(backend):
            await fail(world, 1, 2)
            world.route(step(8, fallback_models=("other",)), step(9, model="auto"))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
            assert {done.answer.model for done in world.outcomes(StepSucceeded)} == {"other"}

    play(scenario)


def test_a_node_where_nobody_answers_calls_offers_nothing() -> None:
    """Also where its probes are answered. Then one place, until that step has ended."""

    class Refuses(Loaded):
        async def probe(self):  # type: ignore[no-untyped-def]
            self.reachable, before = True, self.reachable
            try:
                return await super().probe()
            finally:
                self.reachable = before

    async def scenario(world: World) -> None:
        backend = Refuses(reachable=False, script=Script(pause=1.0), resident=())
        async with world.worker(backend, slots=4) as running:

            def offered() -> int:
                world.presence("r", backlog=5)
                return sum(world.credits()[-1].offers.values())

            for number in (1, 2):
                await world.until(lambda: bool(offered()))
                await fail(world, number, 1)
            assert "" in shut(running)
            await world.until(lambda: world.nodes()[-1].broken)
            await world.until(lambda: not world.credits()[-1].offers)
            assert any("calls of the endpoint fail" in reason for reason in running.service.readiness().reasons)
            backend.reachable = True
            await world.until(lambda: offered() == 1)
            world.route(step(7), step(8))
            await world.until(lambda: offered() == 4)
            assert [done.job for done in world.outcomes(StepSucceeded)] == ["j7"]
            assert [given.job for given in world.outcomes(StepReleased)] == ["j8"]

    play(scenario)


def test_a_probe_waits_for_a_pause() -> None:
    """Who is to be left alone is not probed either; a probe that is refused pauses like any call."""

    async def scenario(world: World) -> None:
        backend = Loaded(script=FAILS)
        async with world.worker(backend) as running:
            await fail(world, 1, 2)
            await world.clock.sleep(0.5)
            running.service.attempts.health.pause(20.0)
            await world.clock.sleep(15.0)
            assert len(backend.probed) == 1
            await world.until(lambda: len(backend.probed) == 2)

    play(scenario)


def test_an_embedder_is_probed_by_a_text() -> None:
    async def scenario(world: World) -> None:
        backend = Loaded(script=FAILS, known=("embedder",), resident=("embedder",))
        asked = {"operation": Operation.EMBED, "capability": "embed", "model": "embedder", "messages": (), "texts": ("a",)}
        async with world.worker(backend, slots=1) as running:
            await fail(world, 1, 2, **asked)
            backend.script = Script()
            await world.until(lambda: not shut(running))
            assert set(backend.probed) == {"embedder"}
            assert backend.calls[-1].step.operation is Operation.EMBED

    play(scenario)


# Rate groups


def member(name: str, **changes: object) -> Node:
    return Node.model_validate({"id": name, "boot": "b", "mailbox": 0, "backend": "openai", "at": 0.0, "rate_group": "g", **changes})


def test_a_group_counts_those_that_live() -> None:
    """Not others, nor itself; who is silent has no part, and has it again when he is heard."""
    group = RateGroup("g", "me", silent_seconds=10.0)
    for name, of in (("a", "g"), ("b", "g"), ("me", "g"), ("c", "other")):
        group.on_node(name, member(name, rate_group=of), 1_000, now=5.0)
    assert group.size(5.0) == 3
    group.on_credits("a", 12.0)
    group.on_credits("stranger", 12.0)
    assert group.size(16.0) == 2
    group.on_credits("b", 17.0)
    assert group.size(17.0) == 3
    group.on_node("b", None, 2_000, now=18.0)
    assert group.size(18.0) == 2
    alone = RateGroup("", "me", silent_seconds=10.0)
    alone.on_node("a", member("a", rate_group="", pause_seconds=9.0), 1_000, now=0.0)
    assert (alone.size(0.0), alone.pause_seconds(0.0)) == (1, 0.0)


def test_a_pause_of_long_ago_is_reckoned_by_the_brokers_clock() -> None:
    """A worker that starts reads what was said a minute ago. What a member was not asked itself is not passed on: it would go round."""
    group = RateGroup("g", "me", silent_seconds=10.0)
    assert group.on_node("a", member("a", pause_seconds=90.0), 1_000_000, now=3.0)
    group.on_node("me", member("me"), 1_060_000, now=3.1)
    assert group.pause_seconds(3.1) == pytest.approx(30.0)
    assert not group.on_node("b", member("b", pause_seconds=500.0, pause_of_group=True), 1_061_000, now=4.1)
    assert group.pause_seconds(14.1) == pytest.approx(19.0)
    group.on_node("a", None, 1_072_000, now=15.1)
    assert group.pause_seconds(15.1) == pytest.approx(18.0)
    assert group.pause_seconds(40.0) == 0.0


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_members_keep_the_rate_of_one_account_together(parts: int) -> None:
    """After the burst each takes its part, whatever the others do."""
    buckets = [TokenBucket(10.0, 4) for _ in range(parts)]
    starts = sorted(bucket.take(0.0, parts) for bucket in buckets for _ in range(60 // parts))
    per_second = sum(10.0 <= at < 20.0 for at in starts) / 10.0 if parts == 1 else sum(1.0 <= at < 5.0 for at in starts) / 4.0
    assert per_second <= 10.0 + 1e-9 * parts + (parts - 1) * 0.25


def test_what_one_is_asked_for_pauses_all() -> None:
    """Without having called: it offers nothing, gives back what comes, and takes steps again when the time is over."""

    class Once(Loaded):
        async def call(self, call):  # type: ignore[no-untyped-def]
            if not self.calls:
                self.calls.append(call)
                raise ModelCallFailed(FailureKind.OVERLOADED, "later", retry_after_seconds=20.0)
            async for piece in super().call(call):
                yield piece

    async def scenario(world: World) -> None:
        other = Loaded()
        async with (
            world.worker(Once(), rate_group="g") as first,
            world.worker(other, node="node-2", process="two", rate_group="g") as second,
        ):
            alone = Loaded()
            async with world.worker(alone, node="node-3", process="three") as third:
                world.presence("r", backlog=5)
                world.route(step(1))
                await world.until(lambda: bool(world.outcomes(StepFailed)))
                health = second.service.attempts.health
                await world.until(lambda: health.pause_seconds > 19.0, 0.5)
                assert health.group.size(world.clock.monotonic()) == 2
                assert first.service.attempts.health.pause_seconds >= health.pause_seconds - 0.5
                assert third.service.attempts.health.pause_seconds == 0.0
                assert third.service.attempts.places() > 0
                assert second.service.attempts.places() == 0
                world.route(step(2), mailbox=1, node="node-2")
                await world.until(lambda: bool(world.outcomes(StepReleased)))
                await world.clock.sleep(15.0)
                assert health.pause_seconds > 0
                told = [node for node in world.nodes() if node.id == "node-2"][-1]
                assert told.pause_of_group
                assert told.rate_group == "g"
                await world.clock.sleep(6.0)
                assert health.pause_seconds == 0.0
                world.route(step(3), mailbox=1, node="node-2")
                await world.until(lambda: bool(world.outcomes(StepSucceeded)))
                assert not other.probed

    play(scenario)


def test_ids_of_probes_are_no_steps() -> None:
    """The probe's step has an id that no step has: those are hashes."""
    assert StepId("0" * 32) != step(1).id
