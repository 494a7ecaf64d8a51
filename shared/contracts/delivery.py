"""Delivery: the end of a job that its callback could not be told yet, on its way to another try."""

from __future__ import annotations

from shared.contracts.base import Contract, Count, Seconds
from shared.contracts.result import Result


class Delivery(Contract):
    """`result` holds the callback. How long this record has waited itself, its header `waited` tells."""

    result: Result
    attempts: Count = 0
    """That failed."""
    age_seconds: Seconds = 0.0
    """Between the first try and this record."""
