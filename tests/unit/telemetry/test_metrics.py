"""Metrics are declared once, in one place, with a meaning and few labels."""

from __future__ import annotations

import ast
from pathlib import Path

from prometheus_client.metrics import MetricWrapperBase

import shared
from shared.telemetry import metrics

ROOT = Path(shared.__file__).parents[1]
DECLARED = {name: value for name, value in vars(metrics).items() if isinstance(value, MetricWrapperBase)}
BOUNDED_BY_THE_SINK = ("USAGE_", "NODE_")
"""Its label values are bounded where they are counted (`services/sink/gauges.py: LabelValues`)."""
UNBOUNDED = {"job", "step", "tenant", "node", "trace", "topic", "partition", "offset"}


def test_every_metric_is_documented() -> None:
    """`docs()` lists each with a sentence."""
    documented = {name: about for name, _, _, about in metrics.docs()}
    assert len(documented) == len(DECLARED)
    assert all(about.endswith((".", "alarm.")) for about in documented.values())
    assert all(name.startswith("tutti_") for name in documented)


def test_names_tell_their_unit() -> None:
    """A duration ends in seconds, a histogram's constant in its metric's name."""
    for constant, metric in DECLARED.items():
        assert next(iter(metric.describe())).name == f"tutti_{constant.lower()}"


def test_labels_have_few_values() -> None:
    """No label takes an id: the number of series is bounded by construction."""
    for constant, metric in DECLARED.items():
        bounded = constant.startswith(BOUNDED_BY_THE_SINK)
        assert bounded or not set(metric._labelnames) & UNBOUNDED, constant


def test_no_other_module_declares_a_metric() -> None:
    """One list: dashboards and documents are derived from it. Naming a metric's type is no declaration, calling it is."""
    elsewhere = [
        path for folder in ("services", "shared", "infra") for path in (ROOT / folder).rglob("*.py") if path != Path(metrics.__file__)
    ]
    assert [path for path in elsewhere if _declares(path)] == []


def _declares(path: Path) -> bool:
    source = path.read_text()
    if "prometheus_client" not in source:
        return False
    nodes = list(ast.walk(ast.parse(source)))
    imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("prometheus_client")]
    kinds = {alias.asname or alias.name for node in imports for alias in node.names} & {
        "Counter",
        "Gauge",
        "Histogram",
        "Summary",
        "Info",
        "Enum",
    }
    return any(isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in kinds for node in nodes)


def test_every_metric_is_counted_somewhere() -> None:
    """One that nobody sets tells 0, whatever happens."""
    nodes = [
        node
        for folder in ("services", "shared")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
    ]
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert set(DECLARED) - used == set()
