"""Promise: the way of a job through the code is counted by a script, and does not grow: who adds a service, a pattern or a dialect adds no
step to a job that does not use it.

How: `infra.lab.walk` on the in-memory cluster, under virtual time; a backend answers by itself (simulated: no model).
"""

from __future__ import annotations

import pytest

from infra.lab.walk import calls, walk
from shared.contracts.base import Contract


@pytest.mark.parametrize(
    ("kind", "functions", "files", "changes", "services"),
    [
        ("chat", 652, 150, 455, {"ingress", "planner", "router", "worker"}),
        ("maestro", 736, 156, 500, {"ingress", "planner", "router", "worker"}),
        ("cached", 492, 112, 341, {"ingress", "planner", "cache"}),
    ],
)
def test_the_way_of_a_job_does_not_grow(kind: str, functions: int, files: int, changes: int, services: set[str]) -> None:
    """As counted (decision 0026). More: find out why before the numbers are raised; lower them when they have become lower."""
    found = walk(kind)
    assert len(found.steps) <= functions
    assert found.files <= files
    assert found.changes <= changes
    assert {step.file.split("/")[1] for step in found.steps if step.file.startswith("services/")} == services


@pytest.mark.parametrize(("kind", "most"), [("chat", 1_840), ("cached", 1_105)])
def test_a_job_costs_no_more_calls(kind: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a bench on a machine with other load cannot show (decision 0027). More: as above."""
    monkeypatch.setattr(Contract, "checks_valid", False)  # as it is outside of tests
    assert calls(kind) <= most
