"""Helm's chart says what the code says: services, settings, topics, metrics, alerts. Needs no Helm; `make helm-check` renders it."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from shared import __version__
from shared.contracts.base import CLASSES
from shared.services import SERVICES
from shared.telemetry import metrics
from shared.topics import FAMILIES, TopicSettings
from tests.support.chart import CHART, SCHEMA, VALUES, VARIANTS, is_setting, services, settings_of, with_defaults

ROOT = CHART.parents[1]
TEMPLATES = {path.name: path.read_text() for path in sorted((CHART / "templates").iterdir())}


def test_it_runs_the_services_that_there_are() -> None:
    """The worker is what pools are made of."""
    known = {service.name: service.port for service in SERVICES}
    assert {name: service["port"] for name, service in services()} | {"worker": 9103} == known
    assert known["worker"] == 9103, "templates/pools.yaml"


def test_what_groups_read_is_what_scales_them() -> None:
    """Topics that nobody else writes, so that no mark of a foreign transaction counts as work, and that hold nothing back."""
    grouped = {service.name for service in SERVICES if service.grouped}
    families = {family.pattern: family for family in FAMILIES}
    for name, service in services():
        assert name in grouped or not service["scale"]["lag"], name
        for topic in service["scale"]["lag"]:
            family = families[topic]
            assert name in family.read_by
            assert "any producer" not in family.written_by
    foreign = {family.pattern.split(".")[0] for family in families.values() if "any producer" in family.written_by}
    assert foreign == {"jobs"}, "tutti.check refuses them"
    assert 'regexMatch "^(jobs|delays)\\\\."' in TEMPLATES["_services.tpl"]


def test_pools_wait_where_their_steps_lie() -> None:
    """The triggers of a pool name topics and series that exist."""
    scaling = TEMPLATES["_scaling.tpl"]
    assert 'printf "steps.%s.%s"' in scaling
    assert next(family for family in FAMILIES if family.pattern == "steps.{capability}.{class}").read_by == ("router",)
    assert " ".join(f'"{c.value}"' for c in CLASSES) in scaling
    for name, metric in (("tutti_steps_waiting", metrics.STEPS_WAITING), ("tutti_steps_unplaced_total", metrics.STEPS_UNPLACED)):
        assert f"sum({name}{{" in scaling or f"rate({name}{{" in scaling
        assert "capability" in metric._labelnames


def test_planners_are_never_more_than_homes() -> None:
    """A home has one."""
    homes = VALUES["topics"]["settings"]["home_partitions"]
    planner = dict(services())["planner"]
    assert max(planner["replicas"], planner["scale"]["max"]) <= homes == TopicSettings().home_partitions


def test_counts_of_topics_are_the_registrys() -> None:
    """But for copies: in production there are three brokers."""
    own = TopicSettings(**VALUES["topics"]["settings"])
    assert own.model_copy(update={"replication": 1, "min_insync_replicas": 1}) == TopicSettings()


def test_every_variable_is_a_setting() -> None:
    """Of the service that is told it; a misspelt one would be passed over in silence."""
    own = [settings_of(name) for name in (*dict(services()), "worker")]
    named = {name for text in TEMPLATES.values() for name in re.findall(r"\bTUTTI_[A-Z_]+[A-Z]\b", text)}
    assert len(named) > 10
    for name in named:
        assert is_setting(name, *own), name


def test_settings_and_stores_in_values_are_settings() -> None:
    """By name; in every variant."""
    for values in (VALUES, *(yaml.safe_load(path.read_text()) for path in VARIANTS.values())):
        for name in values.get("settings", {}):
            assert is_setting(f"TUTTI_{name}".upper()), name
        assert set(values.get("topics", {}).get("settings", {})) <= set(TopicSettings.model_fields)
        for name, service in values.get("services", {}).items():
            assert {*service.get("settings", {}), *service.get("stores", {})} <= set(settings_of(name).model_fields), name
        for pool in values.get("pools", ()):
            kind = settings_of("worker")
            assert set(pool.get("settings", {})) <= set(kind.model_fields)


def test_alerts_have_one_source() -> None:
    """The chart's file is infra/alerts' own."""
    linked = CHART / "files" / "rules.yml"
    assert linked.is_symlink()
    assert linked.resolve() == (ROOT / "infra" / "alerts" / "rules.yml").resolve()


def test_versions_and_user_are_the_images() -> None:
    """The image of this checkout, by default; as the README builds it."""
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == __version__
    assert f"docker build --tag registry.example.org/tutti:{__version__} ." in (ROOT / "README.md").read_text()
    assert f"USER {VALUES['pods']['user']}:{VALUES['pods']['user']}" in (ROOT / "Dockerfile").read_text()


def _errors(values: dict[str, Any]) -> list[str]:
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message}" for error in Draft202012Validator(SCHEMA).iter_errors(values)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_variants_fit_the_schema(variant: str) -> None:
    """As Helm sees them: over the defaults."""
    assert _errors(with_defaults(VALUES, yaml.safe_load(VARIANTS[variant].read_text()))) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kafka": {"server": "kafka:9092"}}, "'server' was unexpected"),
        ({"kafka": {"servers": "kafka"}}, "kafka/servers"),
        ({"kafka": {"sasl": {"mechanism": "GSSAPI"}}}, "kafka/sasl/mechanism"),
        ({"kafka": {"sasl": {"password": "x"}}}, "'password' was unexpected"),
        ({"services": {"planner": {"replica": 2}}}, "'replica' was unexpected"),
        ({"services": {"planner": {"port": 0}}}, "services/planner/port"),
        ({"services": {"planner": {"settings": {"live_job": 3}}}}, "services/planner/settings"),
        ({"services": {"sink": {"stores": {"stores": "mongodb"}}}}, "services/sink/stores"),
        ({"poolDefaults": {"settings": {"backends": "openai"}}}, "poolDefaults/settings"),
        ({"topics": {"settings": {"homes": 12}}}, "topics/settings"),
        ({"settings": {"loglevel": "debug"}}, "settings"),
        ({"services": {"planner": {"scale": {"min": 0}}}}, "services/planner/scale/min"),
        ({"stores": {"redis": {"url": "redis://user:secret@redis/0"}}}, "stores/redis/url"),
        ({"autoscaling": {"kind": "cron"}}, "autoscaling/kind"),
        ({"settings": {"grace_seconds": "long"}}, "settings/grace_seconds"),
        ({"pools": [{"kind": "Deployment"}]}, "'name' is a required property"),
        ({"pools": [{"name": "a_b"}]}, "pools/0/name"),
        ({"pools": [{"name": "a", "kind": "StatefulSet"}]}, "pools/0/kind"),
        ({"pools": [{"name": "a", "ollama": {"storage": {"size": "1Gi", "hostPath": "/m"}}}]}, "pools/0/ollama/storage"),
        ({"pools": [{"name": "a", "url": "https://key@api.example.org"}]}, "pools/0/url"),
        ({"pools": [{"name": "a", "slots": 0}]}, "pools/0/slots"),
        ({"networkPolicy": {"callers": [{}]}}, "networkPolicy/callers"),
        ({"sevices": {}}, "'sevices' was unexpected"),
    ],
)
def test_bad_values_are_refused_by_name(change: dict[str, Any], said: str) -> None:
    """Each says where."""
    found = _errors(with_defaults(VALUES, change))
    assert any(said in error for error in found), found


def test_no_object_of_the_schema_is_open() -> None:
    """What has properties has no others, but where keys are free: labels, settings, environment."""

    def opened(node: Any, place: str) -> list[str]:
        if isinstance(node, list):
            return [found for n, item in enumerate(node) for found in opened(item, f"{place}/{n}")]
        if not isinstance(node, dict):
            return []
        loose = isinstance(node.get("properties"), dict) and "additionalProperties" not in node and "/allOf/" not in place
        return [place] * loose + [found for name, item in node.items() for found in opened(item, f"{place}/{name}")]

    assert opened(SCHEMA, "") == []


def test_values_that_are_secret_are_references() -> None:
    """The chart makes no Secret, and no value holds one."""
    assert not any("kind: Secret" in text for text in TEMPLATES.values())
    secret = re.compile(r"password|token|api_?key", re.IGNORECASE)
    named = {name for name in re.findall(r"^\s*(\w+):", (CHART / "values.yaml").read_text(), re.MULTILINE) if secret.search(name)}
    assert named == {"apiKey"}
    assert set(VALUES["poolDefaults"]["apiKey"]) == {"name", "key"}
