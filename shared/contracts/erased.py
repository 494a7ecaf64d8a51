"""Erased: a tenant's data go, wherever a service holds some. An entry of the registry (`erased/<tenant>`): each owner erases his."""

from __future__ import annotations

from shared.contracts.base import Contract, EpochSeconds, Label

KIND = "erased"
"""Of the entries."""


class Erased(Contract):
    """All that was there before `at` goes; what comes later stays. Erasing again changes nothing."""

    at: EpochSeconds
    by: Label
    """The name of the key that asked for it."""
