"""Policies: among the nodes that could run a step, which one gets it. Pure, each in a file here with its `pick`; `TUTTI_ROUTER__POLICY`
names one.

`hybrid` is the default: what it foresees decides, and it may wait for a better node. The others take a node that has a place at once.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from shared.placement.policies.port import Policy

POLICIES: dict[str, Policy] = {
    found.name: module.pick
    for found in pkgutil.iter_modules(__path__)
    if hasattr(module := import_module(f"{__name__}.{found.name}"), "pick")
}


def known(name: str) -> str:
    """The name of one. Raises ValueError."""
    if name not in POLICIES:
        raise ValueError(f"there is no such policy; known: {', '.join(POLICIES)}")
    return name
