"""A step on which the router's own work fails ends as `internal` for its job; the steps around it are placed."""

from __future__ import annotations

from typing import Any

import pytest

from services.router import handlers, messages, routing
from services.router.fairness import WaitingSteps
from services.router.routing import Routing
from services.router.settings import RouterSettings
from shared.contracts.failure import FailureKind
from shared.contracts.outcome import StepFailed
from shared.kafka.port import TopicPartition
from shared.placement import choosing, filters
from shared.placement.choosing import Placement
from shared.placement.ledger import CreditLedger
from shared.processing.node_table import NodeTable
from shared.processing.tries import TRIES
from shared.processing.window import Window, WindowBounds
from shared.topics import Topics
from tests.support.routing import FakeRecord, credit, node, step

TOPICS = Topics()
TOPIC = TOPICS.all_steps()[0]


class Scene:
    """A router with one node of ten places, and three steps; the one in the middle wants another model."""

    def __init__(self, *, places: int = 10, seconds_left: float | None = None) -> None:
        registry = NodeTable(silent_seconds=1e9)
        if places:
            registry.on_node(node(), 0.0)
        ledger = CreditLedger("r1", lost_seconds=1e9, forgotten_seconds=1e9)
        ledger.on_credits(credit(places=places), 0.0)
        self.routing = Routing(Placement(registry, ledger), RouterSettings(), TOPICS)
        self.window = Window(TopicPartition(TOPIC, 0), WindowBounds(), 0)
        steps = [
            step(job=job, model=model, seconds_left=seconds_left) for job, model in (("a", "auto"), ("odd", "small:1b"), ("b", "auto"))
        ]
        self.window.receive([FakeRecord(topic=TOPIC, offset=n, value=s.to_bytes()) for n, s in enumerate(steps)])

    def rounds(self, count: int) -> tuple[list[str], list[StepFailed]]:
        """Jobs that were placed, and what was told of those that were given up."""
        placed, failed = [], []
        for _ in range(count):
            assert self.routing.admit([self.window], 0.0) == []
            placed += [one.entry.step.job for one in self.routing.match(0.0)]
            failed += [StepFailed.model_validate_json(closing.message.value or b"") for closing in self.routing.give_up()]
        return placed, failed


def failing(real: Any, odd: Any) -> Any:
    """`real`, but it raises where `odd` says so."""

    def work(*args: Any, **named: Any) -> Any:
        if odd(*args):
            raise OverflowError("int too large to convert to float")
        return real(*args, **named)

    return work


def test_a_demand_that_cannot_be_judged_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its filters raise; the lane of the others is open."""
    monkeypatch.setattr(choosing, "candidates", failing(filters.candidates, lambda demand, *_: demand.model == "small:1b"))
    scene = Scene()
    placed, failed = scene.rounds(TRIES)
    assert placed == ["a", "b"]
    assert [(one.job, one.failure.kind) for one in failed] == [("odd", FailureKind.INTERNAL)]
    assert len(scene.routing.waiting) == 0


def test_a_step_that_cannot_be_placed_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice among its nodes raises; it is tried again at once, and keeps no place."""
    monkeypatch.setattr(routing, "ask_of", failing(choosing.ask_of, lambda step: step.job == "odd"))
    scene = Scene()
    placed, failed = scene.rounds(TRIES)
    assert placed == ["a", "b"]
    assert [(one.job, one.failure.kind) for one in failed] == [("odd", FailureKind.INTERNAL)]


def test_a_step_without_a_node_whose_demand_cannot_be_judged_does_not_end_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """`sweep` looks at every waiting demand."""
    monkeypatch.setattr(choosing, "candidates", failing(filters.candidates, lambda *_: True))
    scene = Scene()
    scene.routing.admit([scene.window], 0.0)
    for _ in range(TRIES):
        assert scene.routing.sweep(0.0, judge=True) == []
    assert len(scene.routing.give_up()) == 3


def test_a_record_on_which_reading_fails_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one that is no step: for the dead letters."""
    monkeypatch.setattr(routing, "read_step", failing(handlers.read_step, lambda record, _: record.offset == 1))
    scene = Scene()
    [refused] = scene.routing.admit([scene.window], 0.0)
    assert (refused.record.offset, refused.error.code) == (1, "internal")
    assert [one.entry.step.job for one in scene.routing.match(0.0)] == ["a", "b"]


@pytest.mark.parametrize(("what", "now"), [("failed", 1e9), ("delayed", 1_000.0)])
def test_a_step_that_cannot_be_sent_away_is_given_up(monkeypatch: pytest.MonkeyPatch, what: str, now: float) -> None:
    """Past its deadline, or without a node: the steps around it leave; it is tried again, and ends without a word at worst."""
    monkeypatch.setattr(messages, what, failing(getattr(messages, what), lambda entry, *_: entry.step.job == "odd"))
    scene = Scene(places=0, seconds_left=1e6)
    assert scene.routing.admit([scene.window], 0.0) == []
    gone = []
    for _ in range(TRIES):
        scene.routing.sweep(1.0, judge=True)
        gone += scene.routing.sweep(now, judge=True)
        gone += scene.routing.give_up()
    assert len(gone) == (2 if what == "failed" else 3)
    assert len(scene.routing.waiting) == 0


def test_what_was_placed_before_choosing_fails_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Work that concerns no step is tried again at the next round, and readiness says that it fails."""
    scene = Scene()
    served = WaitingSteps.drain

    def drain(*args: Any) -> Any:
        yield next(served(*args))
        raise OverflowError

    monkeypatch.setattr(WaitingSteps, "drain", drain)
    placed = [scene.rounds(1)[0] for _ in range(TRIES)]
    assert sorted(placed) == [["a"], ["b"], ["odd"]]
    assert "choosing the next step fails again and again" in str(scene.routing.tries.undone)
    monkeypatch.setattr(WaitingSteps, "drain", served)
    scene.window.receive([FakeRecord(topic=TOPIC, offset=3, value=step(job="c").to_bytes())])
    assert scene.rounds(1)[0] == ["c"]
    assert not scene.routing.tries.undone
