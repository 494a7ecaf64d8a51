"""Waiting steps whose deadline comes near are served in a higher class."""

from __future__ import annotations

from collections import Counter
from itertools import product
from math import inf
from typing import Any

from services.delay.handlers import DelayReader
from services.router import messages
from services.router.handlers import PendingStep
from services.router.routing import Routing
from services.router.settings import RouterSettings
from services.router.unplaced import Leaves
from shared.contracts import headers
from shared.contracts.base import PriorityClass
from shared.contracts.delayed import Delayed
from shared.contracts.step import Step
from shared.kafka.port import TopicPartition
from shared.placement.choosing import Placement
from shared.placement.ledger import CreditLedger
from shared.processing.node_table import NodeTable
from shared.processing.window import Window, WindowBounds
from shared.telemetry import metrics
from shared.topics import Topics, TopicSettings
from tests.support.routing import FakeRecord, credit, node, step

INTERACTIVE, STANDARD, BATCH = PriorityClass
WALL = 1_700_000_000.0
TOPICS = Topics()


class Scene:
    """A router with one node; steps arrive by class, places when told."""

    def __init__(self) -> None:
        registry = NodeTable(silent_seconds=1e9)
        registry.on_node(node(), 0.0)
        self.placement = Placement(registry, CreditLedger("r1", lost_seconds=1e9, forgotten_seconds=1e9))
        self.routing = Routing(self.placement, RouterSettings(), TOPICS)
        self._windows = {c: Window(TopicPartition(TOPICS.steps("chat", c), 0), WindowBounds(), 0) for c in PriorityClass}
        self._credits = 0

    def arrive(self, priority_class: PriorityClass, now: float, *jobs: str, deadline_at: float = WALL + 86_400, **changes: Any) -> None:
        window = self._windows[priority_class]
        values = [step(job=job, priority_class=priority_class, deadline_at=deadline_at, **changes) for job in jobs]
        window.receive(
            [
                FakeRecord(
                    topic=window.partition.topic,
                    offset=window.next_offset + n,
                    timestamp=int((WALL + now) * 1000),
                    value=value.to_bytes(),
                )
                for n, value in enumerate(values)
            ]
        )
        self.routing.admit([window], now)

    def waiting(self) -> dict[PriorityClass, int]:
        return Counter(entry.priority_class for entry in self.routing.waiting)

    def serve(self, places: int, now: float) -> list[Step]:
        """The steps as the worker reads them."""
        self._credits += 1
        self.placement.ledger.on_credits(credit(places=places, sequence=self._credits, read={"chat": 0, "embed": 0}), now)
        self.placement.refresh()
        placed = self.routing.match(now)
        return [Step.model_validate_json(messages.work(one, TOPICS, now).value or b"") for one in placed]


def test_a_batch_step_with_a_near_deadline_goes_before_standard() -> None:
    """Batch has waited a minute so far; one with half a minute left is served at once, in its higher class, the others are not."""
    scene = Scene()
    scene.arrive(BATCH, 0.0, *(f"b{n}" for n in range(20)))
    scene.arrive(BATCH, 60.0, "near", deadline_at=WALL + 90.0)
    scene.arrive(STANDARD, 60.0, *(f"s{n}" for n in range(20)))
    assert scene.routing.sweep(60.0, judge=False) == []
    assert scene.waiting() == {STANDARD: 21, BATCH: 20}
    first, *rest = scene.serve(6, 60.0)
    assert (first.job, first.priority_class) == ("near", STANDARD)
    assert next(one.job for one in rest if one.priority_class is STANDARD) == "s0"


def test_time_enough_raises_nothing() -> None:
    """The default deadlines are far: the classes stand."""
    scene = Scene()
    scene.arrive(BATCH, 0.0, "b", deadline_at=WALL + 86_400)
    scene.arrive(STANDARD, 0.0, "s", deadline_at=WALL + 3_600)
    scene.routing.sweep(5.0, judge=False)
    assert scene.waiting() == {STANDARD: 1, BATCH: 1}


def test_it_is_computed_anew_while_a_step_waits() -> None:
    """One step on its way up: batch, standard, interactive, as the time left shrinks."""
    scene = Scene()
    scene.arrive(BATCH, 0.0, *(f"b{n}" for n in range(5)))
    scene.arrive(STANDARD, 99.0, *(f"s{n}" for n in range(5)))
    scene.arrive(BATCH, 99.0, "one", deadline_at=WALL + 300.0)
    seen = []
    for now in (99.0, 110.0, 295.0):
        scene.routing.sweep(now, judge=False)
        [entry] = [entry for entry in scene.routing.waiting if entry.step.job == "one"]
        seen.append(entry.priority_class)
    assert seen == [BATCH, STANDARD, INTERACTIVE]


def test_a_deadline_is_counted_from_the_records_arrival_or_from_its_reading() -> None:
    """A user's instant beside the brokers' time of arrival; a duration less what the step has waited: no clock of this machine is asked."""
    window = Window(TopicPartition(TOPICS.steps("chat", STANDARD), 0), WindowBounds(), 0)
    record = FakeRecord(timestamp=int(WALL * 1000), headers=(headers.waiting(5.0),))

    def due(**changes: Any) -> float:
        return PendingStep(record, step(**changes), window, STANDARD, 1_000.0).expires_at

    assert due(deadline_at=WALL + 90.0) == 1_090.0
    assert due(seconds_left=90.0) == 1_085.0
    assert due() == inf
    [placed] = scene_of_one(seconds_left=90.0)
    assert headers.Envelope(messages.work(placed, TOPICS, 7.5).headers).waited() == 7.5
    [plain] = scene_of_one()
    assert headers.find(messages.work(plain, TOPICS, 7.5).headers, headers.WAITED) is None


def test_a_step_comes_back_to_a_partition_that_settings_know() -> None:
    """Of a topic that has more of them, as one of before may: delay refuses what it does not know, and the step would be lost there."""
    topics = Topics(TopicSettings(steps_partitions=2, agent_steps_partitions=1))
    reader, sent = DelayReader(topics), set()
    for capability, number in (("chat", 5), ("chat", 0), ("research", 1)):
        one = step(capability=capability, priority_class=BATCH)
        record = FakeRecord(topics.steps(capability, BATCH), number, value=one.to_bytes())
        window = Window(TopicPartition(record.topic, number), WindowBounds(), 0)
        closing = messages.delayed(PendingStep(record, one, window, BATCH, 0.0), Leaves(one, 1.0), topics)
        waiter = reader.read(FakeRecord(closing.message.topic, value=closing.message.value), window, WALL)
        sent.add((waiter.record.topic, Delayed.model_validate_json(closing.message.value or b"").partition))
    assert sent == {("delays.1s", 0), ("delays.1s", 1)}


def scene_of_one(**changes: Any) -> list[messages.Placed]:
    """One step that arrived at 0 and is placed."""
    scene = Scene()
    window = Window(TopicPartition(TOPICS.steps("chat", STANDARD), 0), WindowBounds(), 0)
    window.receive([FakeRecord(topic=window.partition.topic, value=step(**changes).to_bytes())])
    scene.routing.admit([window], 0.0)
    scene.placement.ledger.on_credits(credit(places=1), 0.0)
    scene.placement.refresh()
    return scene.routing.match(0.0)


def test_what_waits_is_told_by_capability_and_class() -> None:
    """Also of those of which nothing waits: a scaler takes a series that is not there for an unknown number."""
    scene = Scene()
    scene.arrive(STANDARD, 0.0, "a", "b")
    scene.arrive(BATCH, 0.0, "c")
    scene.routing.show()
    told = {
        (sample.labels["capability"], PriorityClass(sample.labels["priority_class"])): sample.value
        for sample in next(iter(metrics.STEPS_WAITING.collect())).samples
    }
    assert told == {
        of: {("chat", STANDARD): 2, ("chat", BATCH): 1}.get(of, 0) for of in product(TOPICS.settings.capabilities, PriorityClass)
    }


def test_a_step_that_leaves_for_want_of_a_node_is_counted() -> None:
    """It is on its way through delays then, where nothing tells that it waits."""
    scene = Scene()
    before = unplaced_count("chat")
    scene.arrive(STANDARD, 0.0, "a", model="none:1b")
    for now in (0.0, 2.0):
        scene.routing.sweep(now, judge=True)
    assert unplaced_count("chat") == before + 1
    assert unplaced_count("code") == 0


def unplaced_count(capability: str) -> float:
    """So far in this process."""
    return next(
        sample.value
        for sample in next(iter(metrics.STEPS_UNPLACED.collect())).samples
        if sample.labels["capability"] == capability and sample.name.endswith("_total")
    )
