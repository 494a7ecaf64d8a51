"""The Prometheus rules of `infra/alerts`: they name metrics that exist, and each is tested by `promtool test rules`, where there is one."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml
from prometheus_client.metrics import MetricWrapperBase

from shared.telemetry import metrics
from tests.support.native import missing

FOLDER = Path(__file__).parents[2] / "infra" / "alerts"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"][0]["rules"]
LABELS = {
    f"{told.name}{'_total' if told.type == 'counter' else ''}": set(value._labelnames)
    for value in vars(metrics).values()
    if isinstance(value, MetricWrapperBase)
    for told in value.describe()
}
_SELECTOR = re.compile(r"(tutti_\w+)(?:\{([^}]*)\})?")


def test_every_rule_names_metrics_that_exist() -> None:
    """With labels that they have; `up` is Prometheus's own."""
    for rule in RULES:
        found = _SELECTOR.findall(rule["expr"])
        assert found or "up{" in rule["expr"], rule["alert"]
        for name, labels in found:
            assert name in LABELS, (rule["alert"], name)
            assert {label.split("=")[0].strip() for label in labels.split(",") if label} <= LABELS[name], rule["alert"]
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert {"summary", "what_to_do"} <= set(rule["annotations"]) <= {"summary", "what_to_do", "runbook"}, rule["alert"]


def test_every_rule_is_seen_to_fire_and_to_be_silent() -> None:
    """In the tests that promtool runs."""
    tests = [test for group in yaml.safe_load((FOLDER / "rules_test.yml").read_text())["tests"] for test in group["alert_rule_test"]]
    names = [rule["alert"] for rule in RULES]
    assert len(set(names)) == len(names)
    assert {test["alertname"] for test in tests if test["exp_alerts"]} == set(names)
    assert {test["alertname"] for test in tests if not test["exp_alerts"]} == set(names)
    annotated = {rule["alert"]: set(rule["annotations"]) for rule in RULES}
    for test in tests:
        assert all(set(alert["exp_annotations"]) == annotated[test["alertname"]] for alert in test["exp_alerts"]), test["alertname"]


def test_promtool_agrees() -> None:
    """Syntax, lint, and every test."""
    tool = shutil.which("promtool")
    if tool is None:
        missing("promtool", "there is no promtool on the PATH (Debian: prometheus)")
    for arguments in (["check", "rules", "--lint=all", "rules.yml"], ["test", "rules", "rules_test.yml"]):
        done = subprocess.run([tool, *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
