"""Policies: among the nodes that could run a step, which one gets it. Pure, each in a file; `TUTTI_ROUTER__POLICY` names one.

`hybrid` is the default: what it foresees decides, and it may wait for a better node. The others take a node that has a place at once.
"""

from __future__ import annotations

from shared.placement.policies import bid, hybrid, least_active, random_of_two, round_robin, warm_first, weighted
from shared.placement.policies.port import Policy

POLICIES: dict[str, Policy] = {
    "hybrid": hybrid.pick,
    "round_robin": round_robin.pick,
    "least_active": least_active.pick,
    "weighted": weighted.pick,
    "random_of_two": random_of_two.pick,
    "warm_first": warm_first.pick,
    "bid": bid.pick,
}
