"""The chart on a real API server: it is installed, upgraded, rolled back and removed as the README says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from infra.lab.kubernetes.plane import ControlPlane
from infra.native.errors import StartFailed
from infra.native.waiting import wait_until
from shared import __version__
from tests.helm.conftest import Render
from tests.support.chart import CHART, VARIANTS

pytestmark = pytest.mark.timeout(300)
WAIT = ("--wait", "--timeout", "120s")
SETTLES_SECONDS = 60.0
"""Helm waits for new pods, of as many as may not be missing; old ones may still be there, and the last new one not yet."""


@pytest.fixture
def namespace(plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[str]:
    """One of the test's own."""
    name = request.node.name.replace("_", "-").split("[")[0][:60].strip("-")
    plane.kubectl("create", "namespace", name)
    yield name
    plane.kubectl("delete", "namespace", name, "--wait=false")


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_api_server_takes_every_variant(variant: str, plane: ControlPlane, render: Render) -> None:
    """By its own rules and those of KEDA's and the Prometheus operator's definitions; unknown fields are refused."""
    objects = render(variant)
    for one in objects:
        one["metadata"]["namespace"] = "default"
    plane.apply({"apiVersion": "v1", "kind": "List", "items": objects}, "--dry-run=server")


def images(plane: ControlPlane, namespace: str) -> dict[str, str]:
    """Service → its main container's image, of the pods that run."""
    pods = [pod for pod in plane.get("pods", "-n", namespace) if "deletionTimestamp" not in pod["metadata"]]
    return {pod["metadata"]["labels"]["app.kubernetes.io/component"]: pod["spec"]["containers"][0]["image"] for pod in pods}


def all_ready(plane: ControlPlane, namespace: str) -> bool:
    found = plane.get("deployments", "-n", namespace)
    return all(one["status"].get("readyReplicas") == one["spec"]["replicas"] for one in found)


def helm(plane: ControlPlane, verb: str, namespace: str, *arguments: str) -> str:
    """With what every release here has."""
    return plane.helm(verb, "tutti", str(CHART), "-n", namespace, "--set", "kafka.servers=kafka:9092", *WAIT, *arguments)


def specs(plane: ControlPlane, namespace: str) -> dict[str, Any]:
    """What there is, without what the cluster adds."""
    kinds = "deployments,services,networkpolicies,poddisruptionbudgets,serviceaccounts"
    return {
        f"{one['kind']}/{one['metadata']['name']}": one.get("spec")
        for one in plane.get(kinds, "-n", namespace, "-l", "app.kubernetes.io/name=tutti")
    }


def test_install_upgrade_and_roll_back(plane: ControlPlane, namespace: str) -> None:
    """The topics come first; then workers alone, then all; back is the same order; what is removed leaves nothing."""
    said = helm(plane, "install", namespace)
    assert said.count("kubectl -n") + said.count("curl -s") == 2
    first = specs(plane, namespace)
    assert set(images(plane, namespace).values()) == {f"tutti-cluster:{__version__}"}

    def moved() -> set[str]:
        return {name for name, image in images(plane, namespace).items() if image == "tutti-cluster:v2"}

    helm(plane, "upgrade", namespace, "--set", "poolDefaults.image.tag=v2")
    assert wait_until(lambda: moved() == {"worker"}, SETTLES_SECONDS), "nothing else has moved"
    helm(plane, "upgrade", namespace, "--set", "image.tag=v2")
    assert wait_until(lambda: set(images(plane, namespace).values()) == {"tutti-cluster:v2"}, SETTLES_SECONDS)
    assert wait_until(lambda: all_ready(plane, namespace), SETTLES_SECONDS)

    plane.helm("rollback", "tutti", "2", "-n", namespace, *WAIT)
    assert wait_until(lambda: moved() == {"worker"}, SETTLES_SECONDS)
    plane.helm("rollback", "tutti", "1", "-n", namespace, *WAIT)
    assert specs(plane, namespace) == first
    history = json.loads(plane.helm("history", "tutti", "-n", namespace, "-o", "json"))
    assert [revision["status"] for revision in history] == [*["superseded"] * 4, "deployed"]

    plane.helm("uninstall", "tutti", "-n", namespace, "--wait")
    assert specs(plane, namespace) == {}
    assert plane.get("jobs", "-n", namespace) == []


def test_a_release_that_cannot_make_its_topics_starts_nothing(plane: ControlPlane, namespace: str) -> None:
    """The hook comes before everything else: here its pod has no place to run."""
    with pytest.raises(StartFailed, match=r"pre-install|timed out|context deadline"):
        plane.helm(
            *("install", "tutti", str(CHART), "-n", namespace, "--set", "kafka.servers=kafka:9092", "--timeout", "5s"),
            *("--set", "pods.nodeSelector.nowhere=here"),
        )
    assert plane.get("deployments", "-n", namespace) == []
    assert [job["metadata"]["name"] for job in plane.get("jobs", "-n", namespace)] == ["tutti-topics"]


def test_pools_land_where_they_may(plane: ControlPlane, namespace: str) -> None:
    """A DaemonSet on machines with its label alone; a pool that asks for devices takes them from the machine."""
    helm(plane, "install", namespace, "-f", str(VARIANTS["daemonset"]))
    (daemons,) = plane.get("daemonsets", "-n", namespace)
    assert daemons["status"]["desiredNumberScheduled"] == 0
    plane.kubectl("label", "node", "kwok-0", "tutti/models=yes")
    try:
        plane.kubectl("wait", "--for=jsonpath={.status.numberReady}=1", "daemonset", "--all", "-n", namespace, "--timeout=60s")
    finally:
        plane.kubectl("label", "node", "kwok-0", "tutti/models-")
    helm(plane, "upgrade", namespace, "--set", "pools[0].name=large,pools[0].ollama.gpus=8")
    (large,) = plane.get("pods", "-n", namespace, "-l", "tutti/pool=large")
    assert large["spec"]["nodeName"] == "kwok-0"
    assert large["spec"]["initContainers"][0]["resources"]["requests"]["nvidia.com/gpu"] == "8"


def test_an_autoscaler_is_not_written_over(plane: ControlPlane, namespace: str) -> None:
    """What KEDA or a person has set stays through an upgrade."""
    helm(plane, "install", namespace, "-f", str(VARIANTS["keda"]), "--set", "services.planner.scale.min=1")
    assert {one["metadata"]["name"] for one in plane.get("scaledobjects", "-n", namespace)} > {"tutti-planner", "tutti-worker-any"}
    plane.kubectl("scale", "deployment/tutti-planner", "--replicas=4", "-n", namespace)
    helm(plane, "upgrade", namespace, "-f", str(VARIANTS["keda"]), "--set", "settings.log_level=debug")
    (planner,) = plane.get("deployment", "tutti-planner", "-n", namespace)
    assert planner["spec"]["replicas"] == 4
