"""The budgets of `make bench` (ARCHITECTURE 14): what is promised, and whether it was kept. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from infra.lab.bench.figures import Budget, Verdict
from infra.lab.bench.summary import Summary, value


def at(path: str) -> Callable[[Summary], float | None]:
    """The figure at `scenario/system/value`."""
    return lambda summary: value(summary, path)


def _added_first_token(summary: Summary) -> float | None:
    through, direct = (value(summary, f"first_token/{system}/first_token_p50_ms") for system in ("tutti", "direct"))
    return None if through is None or direct is None else through - direct


def _largest_service(summary: Summary) -> float | None:
    found = [
        figure
        for scenario in summary.values()
        for system, values in scenario.items()
        if system.startswith("tutti")
        for name, figure in values.items()
        if name.startswith("resident_mb.")
    ]
    return max(found, default=None)


BUDGETS: tuple[Budget[Summary], ...] = (
    Budget("REST, one at a time, p50", "ms", at("rest_1/tutti_in_process/p50_ms"), at_most=10),
    Budget("REST, one at a time over a node, p99", "ms", at("rest_1/tutti/p99_ms"), at_most=30),
    Budget("REST, one at a time, p50 to bare", "x", at("rest_1/tutti_in_process/p50_ms_to_bare"), at_most=1.35),
    Budget("REST, 64 in flight, to bare", "x", at("rest_64/tutti_in_process/per_second_to_bare"), at_least=0.5),
    Budget("REST, 64 in flight over a node, to its floor", "x", at("rest_64/tutti/per_second_to_bare_node"), at_least=0.65),
    Budget("queued jobs to results", "jobs/s", at("queue/tutti_in_process/per_second"), at_least=2_500),
    Budget("queued jobs, to bare", "x", at("queue/tutti_in_process/per_second_to_bare"), at_least=0.19),
    Budget("added time to first token, p50", "ms", _added_first_token, at_most=8),
    Budget("streams of 50 chunks", "streams/s", at("streams/tutti/per_second"), at_least=300),
    Budget("CPU a chunk, services", "us", at("streams/tutti/cpu_us_per_chunk"), at_most=70),
    Budget("planner, CPU a queued job", "us", at("queue/tutti_in_process/cpu_us_per_job.planner"), at_most=280),
    Budget("largest service, resident", "MB", _largest_service, at_most=120),
)
"""Recovery, take-over and priority under backlog have budgets too, each in its own bench."""


def judge_all(summary: Mapping[str, Any]) -> list[Verdict]:
    """One verdict a budget."""
    return [budget.judge(dict(summary)) for budget in BUDGETS]
