"""Tenants take turns over all partitions that a router reads, and behind one another within a partition."""

from __future__ import annotations

from collections import Counter

from services.router.routing import Routing
from services.router.settings import RouterSettings
from shared.kafka.port import TopicPartition
from shared.placement.choosing import Placement
from shared.placement.ledger import CreditLedger
from shared.processing.node_table import NodeTable
from shared.processing.window import Window, WindowBounds
from shared.topics import Topics
from tests.support.routing import FakeRecord, credit, node, step

TOPICS = Topics()
TOPIC = TOPICS.steps("chat", TOPICS.class_of("steps.chat.standard"))


class Scene:
    """A router with one node and four partitions of one class."""

    def __init__(self) -> None:
        registry = NodeTable(silent_seconds=1e9)
        registry.on_node(node(), 0.0)
        self._placement = Placement(registry, CreditLedger("r1", lost_seconds=1e9, forgotten_seconds=1e9))
        policy = RouterSettings()
        self._routing = Routing(self._placement, policy, TOPICS)
        bounds = WindowBounds(open=policy.window, span=policy.window_span, records=policy.buffered_records, bytes=policy.buffered_bytes)
        self._windows = [Window(TopicPartition(TOPIC, number), bounds, 0) for number in range(4)]
        self._credits = 0

    def arrive(self, partition: int, tenant: str, count: int, tokens: int = 100) -> None:
        window = self._windows[partition]
        value = step(tenant=tenant, estimated_tokens=tokens).to_bytes()
        window.receive([FakeRecord(topic=TOPIC, partition=partition, offset=window.next_offset + n, value=value) for n in range(count)])

    def serve(self, places: int) -> Counter[str]:
        """Tokens by tenant of the next steps."""
        self._routing.admit(self._windows, 0.0)
        self._credits += 1
        self._placement.ledger.on_credits(credit(places=places, sequence=self._credits), 0.0)
        self._placement.refresh()
        got: Counter[str] = Counter()
        for placed in self._routing.match(0.0):
            got[placed.entry.tenant] += placed.entry.cost
        return got


def test_many_partitions_are_no_larger_share() -> None:
    """A tenant whose steps lie in four partitions gets what one gets whose steps lie in one."""
    scene = Scene()
    for partition in range(4):
        scene.arrive(partition, "everywhere", 200)
    scene.arrive(2, "here", 200)
    got = scene.serve(200)
    assert abs(got["everywhere"] - got["here"]) <= 2 * (512 + 100)


def test_longer_steps_are_fewer() -> None:
    """Turns are of estimated tokens, also between partitions."""
    scene = Scene()
    scene.arrive(0, "long", 100, tokens=1_000)
    scene.arrive(1, "short", 400, tokens=100)
    got = scene.serve(220)
    assert abs(got["long"] - got["short"]) <= 2 * (512 + 1_000)


def test_a_small_tenant_behind_a_full_home_is_served_at_once() -> None:
    """One step behind 450 of another tenant in its partition: what one home has live is within reach."""
    scene = Scene()
    scene.arrive(0, "large", 450)
    scene.arrive(0, "small", 1)
    assert scene.serve(12)["small"] == 100
