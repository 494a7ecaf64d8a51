"""Maintenance: a node is out of service. An entry of the registry (`maintenance/<node>`), so that it holds whatever is started again."""

from __future__ import annotations

from shared.contracts.base import Contract, EpochSeconds, Label

KIND = "maintenance"
"""Of the entries."""


class Maintenance(Contract):
    """Until the entry is removed the node's worker takes no steps."""

    by: Label
    """The name of the key that asked for it."""
    at: EpochSeconds
    reason: Label = ""
