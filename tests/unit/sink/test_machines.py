"""What the page says of nodes and queues: predictions only where there is something to tell."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

from services.sink.page.machines import Machines
from services.sink.page.overview import overview
from services.sink.page.present import ShownJobs
from shared.contracts import event as events
from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.credits import Credits
from shared.contracts.headers import envelope
from shared.contracts.node import Node, NodeModel
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.scheduling.places import Pace
from tests.support.page_world import MadeUp

GIB = 2**30


def node(**changes: Any) -> Node:
    model = NodeModel(name="m:7b", size_bytes=4 * GIB, resident=True, decode_tokens_per_second=30)
    base: dict[str, Any] = {"id": "n1", "boot": "b", "mailbox": 0, "backend": "ollama", "slots": 4, "models": (model,), "at": 1.0}
    return Node(**base | changes)


def record(value: bytes | None, key: bytes = b"n1") -> MemoryRecord:
    return MemoryRecord("nodes", 0, 0, 1, key, value, tuple(envelope("x")), 0.0)


def credits_of(name: str, running: int) -> bytes:
    return Credits(node=name, boot="b", sequence=1, mailbox=0, offers={}, read={}, running=running, resident=("m:7b",)).to_bytes()


def test_nodes_come_go_and_fall_silent() -> None:
    """Slots that serve, and free ones; silence counts from when this reader began."""
    machines = Machines(100.0)
    machines.on_credits(record(credits_of("n1", 1)), 100.0)  # of a node that is not known
    machines.on_node(record(node().to_bytes()), 100.0)
    assert machines.places(101.0) == (4, 4)
    machines.on_credits(record(credits_of("n1", 3)), 102.0)
    assert machines.places(103.0) == (4, 1)
    [row] = machines.rows(103.0)["rows"]
    assert (row["running"], row["slots"], row["advice"]) == (3, 4, [])
    assert machines.places(150.0) == (0, 0)
    assert "Silent for 48 s" in machines.rows(150.0)["rows"][0]["advice"][0]["text"]
    machines.on_node(record(None), 151.0)
    assert machines.rows(151.0) == {"total": 0, "rows": []}


def test_a_queue_tells_how_old_and_how_long() -> None:
    """Of a new job at the end of the line; nothing is made up where too little was seen."""
    made, jobs, pace = MadeUp(Random(6), 3), ShownJobs(1_000, 3), Pace()
    for n in range(40):
        accepted, *_ = sorted(made.job(1_000.0 + n))
        jobs.event(accepted.event, 1_000.0 + n)
    unread = dict.fromkeys(CLASSES, 50)
    told = overview(jobs, unread, pace, (4, 0), 1_050.0)
    assert told["flow"]["unread"] == 150
    assert told["flow"]["waiting"] + told["flow"]["placed"] == 40
    assert sum(told["reasons"].values()) == told["flow"]["waiting"]
    assert all(queue["predicted"]["seconds"] is None and queue["predicted"]["place"] > 50 for queue in told["queues"])
    assert max(queue["oldest"] for queue in told["queues"] if queue["oldest"] is not None) <= 50.0
    assert sum(agent["waiting"] for agent in told["agents"]) == sum(queue["steps"] for queue in told["queues"])
    for second in range(60):
        pace.look(float(second), busy=True)
        pace.news += 10
    predicted = {queue["class"]: queue["predicted"] for queue in overview(jobs, unread, pace, (4, 0), 1_050.0)["queues"]}
    interactive = predicted[PriorityClass.INTERACTIVE.value]
    assert interactive["earliest"] <= interactive["seconds"] <= interactive["latest"]
    assert interactive["seconds"] < predicted[PriorityClass.BATCH.value]["seconds"]


def test_what_a_cache_served_is_counted() -> None:
    """By how it was found."""
    made, jobs = MadeUp(Random(2), 3), ShownJobs(1_000, 3)
    for kind in ("exact", "semantic", "exact", None):
        for due in sorted(made.job(1_000.0)):
            event = due.event
            if isinstance(event, events.StepAnswered):
                served = None if kind is None else SimpleNamespace(kind=kind)
                event = event.model_copy(update={"answer": SimpleNamespace(text="", blob=None, served=served)})
            jobs.event(event, 1_000.0)
    told = overview(jobs, {}, Pace(), (1, 1), 1_001.0)["cache"]
    assert told["exact"] > 0 < told["semantic"]
    assert told["exact"] + told["semantic"] < told["answers"]
    assert {row.served for row in jobs.ended()} <= {"", "exact", "semantic"}
