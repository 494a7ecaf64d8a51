"""Promise: the way of one chat job through the code is counted by a script, and does not grow: who adds a service, a pattern or a dialect
adds no step to a job that does not use it.

How: `infra.lab.walk` on the in-memory cluster, in real time (some 8 s); a backend answers by itself (simulated: no model).
"""

from __future__ import annotations

import asyncio

from infra.lab.walk import walk

FUNCTIONS, FILES, CHANGES = 672, 156, 464
"""As counted (decisions 0026, 0061, 0062), with room for what varies from run to run. Lower them when they have become lower."""


def test_the_way_of_a_job_does_not_grow() -> None:
    """More functions, files or changes of file than these: find out why before the numbers are raised."""
    found = asyncio.run(walk())
    assert len(found.steps) <= FUNCTIONS
    assert found.files <= FILES
    assert found.changes <= CHANGES
    assert {step.file.split("/")[1] for step in found.steps if step.file.startswith("services/")} == {
        "ingress",
        "planner",
        "router",
        "worker",
    }
