"""Status: when everything is ready, and what a person must not overlook."""

from __future__ import annotations

from infra.native import report
from infra.native.report import Row

READY = Row("kafka", "ready", "Apache Kafka", "127.0.0.1:1", 7)
ELSEWHERE = Row("model node", "elsewhere", "Ollama", "http://127.0.0.1:2")


def test_components_that_run_elsewhere_count_as_ready() -> None:
    """An Ollama that was there before is as good as one started here."""
    assert report.all_ready([READY, ELSEWHERE])
    assert not report.all_ready([READY, Row("planner", "not ready", "waits for Kafka")])
    assert not report.all_ready([READY, Row("planner", "stopped", "")])


def test_a_simulated_node_is_said_loudly() -> None:
    """Only when it is one."""
    simulated = Row("model node", "ready", "simulator", simulated=True)
    assert any("SIMULATED" in warning for warning in report.warnings([READY, simulated]))
    assert not any("SIMULATED" in warning for warning in report.warnings([READY, ELSEWHERE]))
    mended = Row("model node", "ready", "simulator", simulated=True, remedy="`x` is missing; install with: y")
    assert any(warning.endswith("For a real one: `x` is missing; install with: y") for warning in report.warnings([mended]))


def test_rows_have_a_cell_for_each_title() -> None:
    """What is unknown is a dash."""
    assert report.cells([READY]) == [("kafka", "ready", "7", "127.0.0.1:1", "Apache Kafka")]
    assert report.cells([Row("redis", "stopped", "store")]) == [("redis", "stopped", "-", "-", "store")]
    assert len(report.TITLES) == 5
