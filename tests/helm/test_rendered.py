"""The chart in every variant: Helm's strict lint, Kubernetes' and the operators' own schemas, and what no pod may lack."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator
from pydantic_settings import BaseSettings
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT7

from infra.lab.kubernetes.tools import KUBERNETES, Tools
from shared.service.configuration import ShellSettings
from tests.helm.conftest import Render
from tests.support.chart import CHART, VARIANTS, is_setting, services, settings_of

SERVERS = ("--set", "kafka.servers=kafka:9092")


class Schemas:
    """Kubernetes' schemas for its own kinds, a CRD's for the others; both refuse fields that do not exist."""

    def __init__(self, tools: Tools) -> None:
        self._folder = tools.schemas
        definitions = json.loads((self._folder / "_definitions.json").read_text())
        self._registry = Registry().with_resource("_definitions.json", Resource.from_contents(definitions, default_specification=DRAFT7))
        self._kinds: dict[tuple[str, str], dict[str, Any]] = {}
        for path in tools.crds.glob("*.yaml"):
            crd = yaml.safe_load(path.read_text())["spec"]
            for version in crd["versions"]:
                schema = closed(version["schema"]["openAPIV3Schema"])
                self._kinds[f"{crd['group']}/{version['name']}", crd["names"]["kind"]] = schema

    def errors(self, one: dict[str, Any]) -> list[str]:
        """What is wrong with an object."""
        schema = self._kinds.get((one["apiVersion"], one["kind"])) or self._own(one["apiVersion"], one["kind"])
        validator = Draft7Validator(schema, registry=self._registry)
        return [f"{one['kind']} {'/'.join(map(str, e.absolute_path))}: {e.message}" for e in validator.iter_errors(one)]

    @cache  # noqa: B019  (one for the session)
    def _own(self, version: str, kind: str) -> dict[str, Any]:
        group, _, name = version.rpartition("/")
        parts = [kind.lower(), *([group.split(".")[0]] if group else []), name]
        text = (self._folder / f"{'-'.join(parts)}.json").read_text()
        found: dict[str, Any] = json.loads(text.replace('"/api/_definitions.json#', '"_definitions.json#'))
        found.pop("$id", None)
        return found


def closed(node: Any) -> Any:
    """A CRD's schema in which fields that it does not name are errors; the API server would prune them in silence."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {name: closed(item) for name, item in node.items()}
    free = "additionalProperties" in found or found.get("x-kubernetes-preserve-unknown-fields")
    if isinstance(found.get("properties"), dict) and found.get("type") == "object" and not free:
        found["additionalProperties"] = False
    if found.get("description", "").startswith("Standard object") or set(found) == {"type"}:
        found.pop("additionalProperties", None)
    return found


@pytest.fixture(scope="module")
def schemas(tools: Tools) -> Schemas:
    """Read once."""
    return Schemas(tools)


def pods(objects: list[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """(name, pod) of whatever makes pods."""
    for one in objects:
        if one["kind"] in ("Deployment", "DaemonSet", "Job"):
            yield one["metadata"]["name"], one["spec"]["template"]


def of_kind(objects: list[dict[str, Any]], kind: str) -> dict[str, dict[str, Any]]:
    """By name."""
    return {one["metadata"]["name"]: one for one in objects if one["kind"] == kind}


@pytest.mark.parametrize("variant", VARIANTS)
def test_lint_is_strict(variant: str, tools: Tools) -> None:
    """No warning either."""
    command = [str(tools.bin / "helm"), "lint", "--strict", str(CHART), "-f", str(VARIANTS[variant])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "0 chart(s) failed" in done.stdout


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_object_fits_its_schema(variant: str, render: Render, schemas: Schemas) -> None:
    """Kubernetes' of the release that `plane` runs, the Prometheus operator's, KEDA's."""
    objects = render(variant)
    assert len(objects) > 20
    assert [error for one in objects for error in schemas.errors(one)] == []


def test_a_misspelt_field_would_be_seen(render: Render, schemas: Schemas) -> None:
    """In an object of Kubernetes' own, and in one of a CRD."""
    objects = render("agents")
    for kind in ("Deployment", "ScaledObject", "ServiceMonitor"):
        one = next(iter(of_kind(objects, kind).values()))
        assert schemas.errors(one) == []
        one["spec"]["replicaz"] = 3
        assert any("replicaz" in error for error in schemas.errors(one)), kind


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_are_confined(variant: str, render: Render) -> None:
    """Of services, pools and the hook alike: no root, nothing written, no token, no capability."""
    for name, pod in pods(render(variant)):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["enableServiceLinks"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in (*spec["containers"], *spec.get("initContainers", ())):
            own = container["securityContext"]
            assert own == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
            assert {"requests", "limits"} == set(container["resources"]), name
            assert "memory" in container["resources"]["limits"]
            assert not any("password" in str(entry.get("value", "")).lower() for entry in container["env"])
            assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in spec["volumes"]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_pods_outlive_the_grace_of_their_service(variant: str, render: Render) -> None:
    """And its pause before the end; every service tells whether it is ready and alive at the port that it has."""
    ports = {name: service["port"] for name, service in services()} | {"worker": 9103}
    for name, pod in pods(render(variant)):
        spec, (main,) = pod["spec"], pod["spec"]["containers"]
        if main["name"] == "topics":
            continue
        environment = {entry["name"]: entry.get("value") for entry in main["env"]}
        pause = main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        assert spec["terminationGracePeriodSeconds"] >= float(environment["TUTTI_GRACE_SECONDS"]) + pause + 10, name
        assert main["args"] == ["run", main["name"]]
        assert main["ports"] == [{"name": "http", "containerPort": ports[main["name"]]}]
        assert environment["TUTTI_HTTP_PORT"] == str(ports[main["name"]])
        assert (main["readinessProbe"]["httpGet"]["path"], main["livenessProbe"]["httpGet"]["path"]) == ("/readyz", "/healthz")


@pytest.mark.parametrize("variant", VARIANTS)
def test_services_take_their_environment(variant: str, render: Render, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every variable is a setting of the service that gets it, with a value that it takes. Secrets are stood in for."""
    for name, pod in pods(render(variant)):
        (main,) = pod["spec"]["containers"]
        kinds: list[type[BaseSettings]] = [ShellSettings, *([] if main["name"] == "topics" else [settings_of(main["name"])])]
        environment = {entry["name"]: str(entry.get("value", "redis://secret")) for entry in main["env"]}
        for variable in environment:
            known = is_setting(variable, *kinds) or not variable.startswith("TUTTI_")
            shared_keys = variable == "TUTTI_INGRESS__KEYS_FILE"
            assert known or shared_keys, (name, variable)
        with monkeypatch.context() as patch:
            for variable, value in environment.items():
                patch.setenv(variable, value.replace("$(NODE_NAME)", "machine-1"))
            for kind in kinds:
                kind()


def test_replicas_and_disruptions_agree(render: Render) -> None:
    """What has one replica may be moved; of what has several at most one is away; an autoscaler is not written over."""
    objects = render("minimal")
    deployments, budgets = of_kind(objects, "Deployment"), of_kind(objects, "PodDisruptionBudget")
    assert set(budgets) == {name for name, one in deployments.items() if one["spec"]["replicas"] > 1}
    for name, one in budgets.items():
        assert one["spec"]["selector"] == deployments[name]["spec"]["selector"]
    for variant in ("full", "keda", "agents", "secrets"):
        scaled = render(variant)
        targets = {o["spec"]["scaleTargetRef"]["name"] for o in scaled if o["kind"] in ("HorizontalPodAutoscaler", "ScaledObject")}
        without = {name for name, one in of_kind(scaled, "Deployment").items() if "replicas" not in one["spec"]}
        assert without == targets, variant
    mixed = of_kind(render("keda", "--set", "pools[0].name=two,pools[0].replicas=2,pools[0].scale.max=1"), "Deployment")
    fixed = mixed["release-tutti-worker-two"]
    assert fixed["spec"]["replicas"] == 2, "a pool that is not scaled has what it was given"


def test_each_pool_is_a_node_of_its_own(render: Render) -> None:
    """A stable name where the endpoint is stable; an Ollama from before the worker until after it; devices as asked for."""
    objects = render("gpu")
    large, hosted = (of_kind(objects, "Deployment")[f"release-tutti-worker-{pool}"]["spec"] for pool in ("large", "hosted"))
    small = of_kind(objects, "DaemonSet")["release-tutti-worker-small"]["spec"]
    (beside,) = large["template"]["spec"]["initContainers"]
    assert beside["restartPolicy"] == "Always"
    assert beside["resources"]["limits"] == {"memory": "64Gi", "nvidia.com/gpu": 1}
    assert small["template"]["spec"]["initContainers"][0]["resources"]["limits"]["amd.com/gpu"] == 1
    assert "initContainers" not in hosted["template"]["spec"]
    assert hosted["strategy"] == {"type": "Recreate"}
    assert [_value(spec, "TUTTI_WORKER__NODE") for spec in (large, small, hosted)] == [
        "$(NODE_NAME)", "$(NODE_NAME)-small", "release-tutti-hosted",
    ]  # fmt: skip
    assert _value(large, "TUTTI_WORKER__SLOTS") == "4"
    assert {"name": "OLLAMA_NUM_PARALLEL", "value": "4"} in beside["env"]
    prices = json.loads(_value(hosted, "TUTTI_WORKER__PRICES"))
    assert prices == {"large-model": {"prompt_per_million": 1.5, "completion_per_million": 6}}


def _value(spec: dict[str, Any], name: str) -> str:
    (main,) = spec["template"]["spec"]["containers"]
    return next(str(entry["value"]) for entry in main["env"] if entry["name"] == name)


def test_nothing_may_pass_but_what_a_service_needs(render: Render) -> None:
    """Every pod is denied by one policy; what each may reach besides is its own stores and model endpoints, on their ports."""
    objects = render("secrets")
    policies = of_kind(objects, "NetworkPolicy")
    whole = policies["release-tutti"]["spec"]
    assert whole["policyTypes"] == ["Ingress", "Egress"]
    for name, pod in pods(objects):
        assert whole["podSelector"]["matchLabels"].items() <= pod["metadata"]["labels"].items(), name

    def out(name: str) -> set[int]:
        return {port["port"] for rule in policies[name]["spec"].get("egress") or () for port in rule["ports"]}

    assert out("release-tutti") == {53, 9093}
    assert {name.removeprefix("release-tutti-"): out(name) for name in policies if name != "release-tutti"} == {
        "ingress": {6379}, "cache": {6379}, "sink": {27017}, "worker-hosted": {8443},
    }  # fmt: skip
    assert [name for name, one in policies.items() if "ingress" in one["spec"] and name != "release-tutti"] == [
        f"release-tutti-{name}" for name in ("cache", "ingress", "sink")
    ]
    for rule in of_kind(render("full"), "NetworkPolicy")["release-tutti-ingress"]["spec"]["egress"]:
        assert rule["to"], "a peer is named, so nothing goes elsewhere"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((), "kafka.servers: say where Kafka is"),
        ((*SERVERS, "--set", "kafka.sasl.mechanism=PLAIN"), "kafka.sasl.secret: name the Secret"),
        ((*SERVERS, "--set", "services.planner.replicas=7"), "services.planner: there are 6 homes"),
        ((*SERVERS, "--set", "services.planner.scale.lag.jobs\\.batch=10"), "services.planner.scale.lag: unread records of jobs.batch"),
        ((*SERVERS, "--set", "services.sink.stores.store=nowhere"), 'services.sink.stores.store: there is no store "nowhere"'),
        ((*SERVERS, "--set", "services.sink.reaches={nobody}"), 'services.sink.reaches: there is no service "nobody"'),
        ((*SERVERS, "--set", "pools[0].name=a", "--set", "pools[1].name=a"), 'pools: two are called "a"'),
        ((*SERVERS, "--set", "pools[0].name=a,pools[0].url=http://b:1,pools[0].replicas=2"), "pools.a: an endpoint (url) has one worker"),
        ((*SERVERS, "--set", "pools[0].name=a,pools[0].replicas=17"), "pools: up to 17 nodes, and 16 mailboxes"),
        ((*SERVERS, "--set", "pools[0].name=a,pools[0].scale.min=0"), "pools.a.scale.min: 0 needs autoscaling.prometheus"),
        ((*SERVERS, "--set", "ingress.hosts[0].host=x,ingress.hosts[0].service=router"), 'ingress.hosts: "router" is no public service'),
        ((*SERVERS, "--set", "services.planner.replica=2"), "additional properties 'replica' not allowed"),
        ((*SERVERS, "--set", "pools[0].name=a,pools[0].kind=Pod"), "'/pools/0/kind': value must be one of"),
    ],
)
def test_wrong_values_are_refused_in_words(values: tuple[str, ...], said: str, tools: Tools) -> None:
    """Before anything is installed."""
    done = subprocess.run(
        [str(tools.bin / "helm"), "template", "release", str(CHART), *values], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert said in done.stderr


def test_the_chart_can_be_packaged(tools: Tools, render: Render, tmp_path: Any) -> None:
    """With the alerts in it, which are a link in this repository."""
    done = subprocess.run(
        [str(tools.bin / "helm"), "package", str(CHART), "-d", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (packed,) = tmp_path.glob("*.tgz")
    shown = subprocess.run(
        [str(tools.bin / "helm"), "template", "r", str(packed), *SERVERS, "--set", "monitoring.enabled=true"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    rules = next(one for one in yaml.safe_load_all(shown.stdout) if one and one["kind"] == "PrometheusRule")
    source = yaml.safe_load((CHART.parents[1] / "infra/alerts/rules.yml").read_text())
    assert rules["spec"] == source
    assert KUBERNETES.split(".")[1] >= "30"
