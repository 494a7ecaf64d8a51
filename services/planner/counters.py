"""Counters: the planner's metrics with their labels bound once. Looking a label set up costs more than counting."""

from __future__ import annotations

from functools import cache

from prometheus_client import Counter, Histogram

from shared.contracts.base import PriorityClass
from shared.contracts.result import Status
from shared.telemetry import metrics

# Values of every label are few: classes, statuses, this build's patterns, the cluster's capabilities.


@cache
def accepted(priority_class: PriorityClass, pattern: str) -> Counter:
    """Jobs taken in."""
    return metrics.JOBS_ACCEPTED.labels(priority_class.value, pattern)


@cache
def asked(capability: str) -> Counter:
    """Steps asked for."""
    return metrics.STEPS_ASKED.labels(capability)


@cache
def settled(status: Status, priority_class: PriorityClass) -> Counter:
    """Jobs ended."""
    return metrics.JOBS_SETTLED.labels(status.value, priority_class.value)


@cache
def seconds(priority_class: PriorityClass) -> Histogram:
    """From acceptance to the end."""
    return metrics.JOB_SECONDS.labels(priority_class.value)
