"""Retention: what the brokers delete by age, its readers have read, as long as none of them was away for longer than that.

Who only follows a topic (credits, nodes, replies, the ingress's events) begins anew where it is; who owns its records tells what it missed.
That nothing else is skipped is "offsets pass no unfinished work".
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.support.cluster.violation import Violation
from tests.support.cluster.world import World

LAW = "nothing outlives its log"
OWNERS = {"planner": ("jobs", "outcomes", "job-events"), "router": ("steps",), "worker": ("work", "controls"), "delay": ("delays",)}


def check(world: World) -> Iterator[Violation]:
    """After the whole run."""
    for service, families in OWNERS.items():
        for missed in world.missed[service]:
            if missed.partition.topic.split(".")[0] in families:
                yield Violation(
                    LAW, f"a {service} came too late to {missed.partition}: it wanted {missed.expected}, and {missed.offset} was left"
                )
