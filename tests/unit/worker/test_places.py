"""The whole worker with an endpoint that has one place: no load begins while a call runs of the model that it would put out. How well its
starts are foreseen is measured.
"""

from __future__ import annotations

import pytest
from prometheus_client import REGISTRY

from services.worker import handlers
from services.worker.attempt import Attempt
from services.worker.backends.base import BackendProbe
from services.worker.inbox import GROUP_SECONDS, Inbox
from services.worker.slots import Slots
from shared.contracts import headers
from shared.contracts.base import ClaimId
from shared.contracts.node import NodeModel
from shared.contracts.outcome import StepSucceeded
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import NODE, World, play, step


class OnePlace(ScriptedBackend):
    """It manages its models; the last one that was asked is in memory."""

    async def probe(self) -> BackendProbe:
        return BackendProbe(version="0.34.0", manages=True)

    grown = False
    """It holds both."""

    async def models(self) -> tuple[NodeModel, ...]:
        last = self.calls[-1].model if self.calls else "small"
        return tuple(NodeModel(name=name, resident=self.grown or name == last) for name in self.known)


def test_a_swap_waits_for_what_runs() -> None:
    """A B A, three slots: the second A goes before B, B waits for both, and no place is offered meanwhile."""

    async def scenario(world: World) -> None:
        backend = OnePlace(Script(pause=1.0))
        async with world.worker(backend, slots=3, most_models=1):
            world.presence("r")
            world.route(step(1))
            await world.until(lambda: backend.running == 1)
            world.route(step(2, model="other"), step(3))
            await world.until(lambda: backend.running == 2)
            await world.until(lambda: world.credits()[-1].running == 2)
            assert world.credits()[-1].offers.get("r", 0) == 0
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 3)
            assert [(call.step.job, call.model) for call in backend.calls] == [("j1", "small"), ("j3", "small"), ("j2", "other")]
            assert backend.most_running == 2

    play(scenario)


HEAD = step(2, model="other")


@pytest.mark.parametrize("how", ["it is stopped", "its deadline is over", "taking it again raised", "its model is in memory"])
def test_however_the_first_leaves_what_stands_behind_it_starts(how: str) -> None:
    """While slots are free, and though no call ends; places are offered again."""

    async def scenario(world: World) -> None:
        backend = OnePlace(Script(pause=100.0))
        async with world.worker(backend, slots=3, most_models=1) as running:
            attempts = running.service.attempts
            world.route(step(1))
            await world.until(lambda: backend.running == 1)
            world.route(HEAD.model_copy(update={"seconds_left": 5.0} if "deadline" in how else {}))
            await world.clock.sleep(2 * GROUP_SECONDS)
            world.route(step(3))
            await world.clock.sleep(1.0)
            assert (backend.running, len(attempts.inbox), attempts.places()) == (1, 2, 0)
            match how:
                case "it is stopped":
                    world.stop_step(HEAD)
                case "taking it again raised":
                    attempts.fail(HEAD, None)
                case "its model is in memory":
                    backend.grown = True
                    running.service.registration.look()
            await world.until(lambda: {call.step.job for call in backend.calls} >= {"j1", "j3"}, 5.0)
            assert (backend.closed_at, len(attempts.inbox), attempts.inbox.blocked) == ([], 0, False)

    play(scenario)


def test_an_empty_inbox_blocks_nothing() -> None:
    """What waited is given back: the free slots are offered as soon as the node is open again."""

    async def scenario(world: World) -> None:
        backend = OnePlace(Script(pause=100.0))
        async with world.worker(backend, slots=3, most_models=1) as running:
            attempts = running.service.attempts
            world.route(step(1), HEAD)
            await world.until(lambda: attempts.inbox.blocked)
            attempts.close("a reason")
            attempts.reopen("a reason")
            assert (backend.running, attempts.places()) == (1, 2)

    play(scenario)


def test_how_wrong_a_start_was_foreseen_is_measured() -> None:
    """By what the choice has said, where it has; a second was foreseen, and it took two. What says nothing sensible costs no step."""

    def measured() -> tuple[float, float]:
        told = [REGISTRY.get_sample_value(f"tutti_start_error_{what}", {"priority_class": "standard"}) or 0.0 for what in ("count", "sum")]
        return told[0], told[1]

    async def scenario(world: World) -> None:
        before = measured()
        async with world.worker(ScriptedBackend(Script(pause=2.0))):
            why = b'{"policy":"hybrid","node":"node-1","model":"small","load":0.5,"read":0.5}'
            for number, said in enumerate((why, b"odd", None, b"", b"\xff", b"o" * 1_025)):
                more = () if said is None else ((headers.WHY, said),)
                head = (*headers.envelope("step"), (headers.NODE, NODE.encode()), *more)
                world.write(world.topics.work("chat"), 0, step(number).to_bytes(), head)
                await world.until(lambda: len(world.outcomes(StepSucceeded)) == number + 1)  # noqa: B023 - it is asked at once
        count, total = measured()
        assert count - before[0] == 1
        assert 0.49 < total - before[1] < 0.51

    play(scenario)


def test_a_model_that_would_put_out_a_running_one_waits() -> None:
    """Others of the model that runs go before it for a second; then nothing does, until it may begin or is taken out."""
    inbox, begins = Inbox(10), {"a"}

    def pushed(number: int, model: str, at: float) -> Attempt:
        attempt = Attempt(step(number, model=model), ClaimId(str(number)), None, at)
        inbox.push(attempt)
        return attempt

    def popped(now: float) -> str | None:
        found = inbox.pop("a", now, lambda attempt: attempt.step.model in begins)
        return found.claim if found else None

    for number, model in enumerate("baa"):
        pushed(number, model, 0.1 * number)
    assert (popped(0.5), inbox.blocked) == ("1", False)
    assert (popped(GROUP_SECONDS), inbox.blocked) == (None, True)  # no places are offered meanwhile
    begins.add("b")
    assert (popped(2.0), popped(2.0), inbox.blocked) == ("0", "2", False)
    begins.remove("b")
    again = pushed(4, "b", 2.0)
    assert popped(4.0) is None
    assert inbox.remove(again)
    assert not inbox.blocked


def test_what_only_counts_keeps_no_step_from_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    """A defect where an end is measured costs the figure: the outcome is out, the slot is free, the next step begins."""

    def defect(*_: object) -> None:
        raise AttributeError

    monkeypatch.setattr(handlers, "measure", defect)

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pause=0.1)), slots=1):
            world.route(step(1), step(2))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)

    play(scenario)


def test_a_defect_where_a_step_ends_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop would only log it, the slot be taken for ever. Here the service drains and fails; the next boot voids the claim."""

    def defect(*_: object, **__: object) -> None:
        raise AttributeError("planted")

    monkeypatch.setattr(Slots, "give_back", defect)

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pause=0.1)), slots=1) as worker:
            world.route(step(1))
            with pytest.raises(AttributeError, match="planted"):
                await worker.task

    play(scenario)
