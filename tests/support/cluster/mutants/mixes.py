"""Faults under which planted bugs do harm."""

from __future__ import annotations

from typing import Any

from tests.support.cluster.faults import FaultMix

SMALL: dict[str, Any] = {"jobs": 20, "seconds": 8.0}
CALM = FaultMix(**SMALL)
CRASHES = FaultMix(kill=0.3, down_seconds=(0.0, 1.0), send_seconds=0.4, ack_seconds=0.4, lost=0.2, only=("planner",), jobs=60, seconds=24.0)
"""Rare enough that the successor owns the partitions, six seconds after each."""
ZOMBIES = FaultMix(pause=1.0, pause_seconds=(7.0, 12.0), send_seconds=0.3, ack_seconds=0.3, only=("planner",), jobs=40, seconds=12.0)
OUTLIVED = FaultMix(
    jobs=12,
    seconds=170.0,
    arrive_seconds=20.0,
    day_seconds=3.0,
    no_node_seconds=200.0,
    kill=0.1,
    down_seconds=(0.0, 3.0),
    only=("planner",),
    workers=1,
)
"""Ninety seconds are longer than `job-events` is kept."""
UNKNOWN = FaultMix(unacknowledged=0.1, lost=0.1, ack_seconds=0.2, **SMALL)
