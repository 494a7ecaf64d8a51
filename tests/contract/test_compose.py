"""docker-compose.yml, .env and the Dockerfile say what the code says: services, ports, settings, bounds, no root, pinned images.

Needs no Docker; `make compose-check` runs it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared import __version__
from shared.agents.built_in import AGENTS
from shared.services import PORTS
from shared.settings import ClusterSettings
from tests.support.chart import VALUES, is_setting, settings_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docker-compose.yml").read_text()
FILE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = FILE["services"]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
LOCAL = (ROOT / "infra" / "lab" / "compose" / "local.yml").read_text()
AGENT_WORKERS = {f"worker-{agent.capability}": agent.capability for agent in AGENTS.values() if agent.capability != "chat"}
OURS = {name: of for name, of in SERVICES.items() if str(of["image"]).startswith("tutti-cluster")}
"""Containers of the image that is built here."""
OTHERS = {"kafka", "redis", "redis-cache", "mongodb", "ollama", "ollama-gpu", "pull", "prometheus", "grafana"}
PROFILES = {
    **{worker: ["agents"] for worker in AGENT_WORKERS},
    "ollama": ["cpu"],
    "ollama-gpu": ["gpu"],
    "pull": ["cpu", "gpu"],
    "simulator": ["simulator"],
    "prometheus": ["observability"],
    "grafana": ["observability"],
}


def _environment() -> Iterator[tuple[str, str, Any]]:
    """(service of compose, variable, value) of everything that a service of tutti is told."""
    for name, of in OURS.items():
        for variable, value in of.get("environment", {}).items():
            yield name, variable, value


def test_every_service_of_the_cluster_is_there() -> None:
    """Beside what they stand on, the container that makes the topics, a simulator; a worker for each agent besides the one for all."""
    assert set(SERVICES) == {*PORTS, *AGENT_WORKERS, *OTHERS, "topics", "simulator"}
    assert set(OURS) == {*PORTS, *AGENT_WORKERS, "topics", "simulator"}


def test_profiles() -> None:
    """What runs without being asked for is what answers; `.env` asks for an Ollama."""
    assert {name: of["profiles"] for name, of in SERVICES.items() if "profiles" in of} == PROFILES
    assert re.findall(r"^COMPOSE_PROFILES=(.*)\n", (ROOT / ".env").read_text(), re.MULTILINE) == ["cpu"]


@pytest.mark.parametrize("name", [*PORTS, *AGENT_WORKERS])
def test_a_service_listens_on_its_own_port(name: str) -> None:
    """The one of the table in the README; the image's probe takes it from the same variable."""
    kind = name.partition("-")[0]
    assert SERVICES[name]["command"] == ["run", kind]
    assert SERVICES[name]["environment"]["TUTTI_HTTP_PORT"] == PORTS[kind]
    assert "healthcheck" not in SERVICES[name]
    assert "127.0.0.1/$TUTTI_HTTP_PORT" in DOCKERFILE


@pytest.mark.parametrize("name", OURS)
def test_a_service_may_end_its_work_and_nothing_more(name: str) -> None:
    """The grace period covers the service's own; no root, no capabilities, no writable files."""
    service = SERVICES[name]
    assert int(service["stop_grace_period"].removesuffix("s")) > ClusterSettings().grace_seconds
    assert service["read_only"]
    writable = [volume for volume in service.get("volumes", []) if not volume.endswith(":ro")]
    assert writable == (["models:/models"] if name == "topics" else [])


def test_every_variable_is_a_setting() -> None:
    """Of the service that is told it; a misspelt one would be passed over in silence."""
    seen = 0
    for name, variable, _ in _environment():
        kind = name.partition("-")[0]
        own = [settings_of(of) for of in PORTS] if variable == "TUTTI_INGRESS__KEYS_FILE" or kind not in PORTS else [settings_of(kind)]
        assert is_setting(variable, *own), (name, variable)
        seen += 1
    assert seen > 30


@pytest.mark.parametrize("agent", AGENT_WORKERS)
def test_a_pool_serves_its_agent_alone(agent: str) -> None:
    """As a node of its own; where its model is, is a value."""
    told = SERVICES[agent]["environment"]
    assert told["TUTTI_WORKER__AGENTS"] == AGENT_WORKERS[agent]
    assert told["TUTTI_WORKER__NODE"] == f"compose-{AGENT_WORKERS[agent]}"
    assert told["TUTTI_WORKER__URL"] == f"${{{AGENT_WORKERS[agent].upper()}_URL:-http://ollama:11434}}"


def test_values_are_documented_with_their_defaults() -> None:
    """`.env` names each, and nothing else."""
    asked = {
        name: default.removeprefix("-") for name, default in re.findall(r"(?<!\$)\$\{(\w+):(-[^}]*|\+)[^}]*\}", TEXT) if default != "+"
    }
    asked["KEYS_FILE"] = ""  # the empty file where there is none
    written = dict(re.findall(r"^# ([A-Z_]+)=(.*)\n", (ROOT / ".env").read_text(), re.MULTILINE))
    assert written == asked
    assert re.findall(r"\$\{\w+\}", TEXT) == []


def test_nothing_listens_beyond_this_machine() -> None:
    """A door without keys is not opened to the network by default."""
    published = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert len(published) == 6
    assert all(port.startswith("127.0.0.1:") for port in published)


@pytest.mark.parametrize("name", SERVICES)
def test_everything_is_bounded(name: str) -> None:
    """Memory, processes, processors, logs, rights, of every container."""
    service = SERVICES[name]
    assert service["mem_limit"]
    assert service["pids_limit"]
    assert "cpus" in service
    assert "max-size" in service["logging"]["options"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_every_image_is_pinned_and_nobody_is_root() -> None:
    """By a tag that is a version; those of others by a user here, or by their own."""
    for name, service in SERVICES.items():
        assert re.fullmatch(r"[a-z/-]+:v?\d+(\.\d+)+", service["image"]), name
        assert name in OURS or name == "kafka" or not str(service["user"]).startswith("0"), name  # Kafka's own image has a user
    assert {of["image"] for of in OURS.values()} == {f"tutti-cluster:{__version__}"}
    ollama = VALUES["poolDefaults"]["ollama"]["image"]
    assert SERVICES["ollama"]["image"] == f"{ollama['repository']}:{ollama['tag']}", "as in the Helm chart"


def test_every_image_has_a_local_one() -> None:
    """But Grafana's, which cannot be had; what is built here is built on local ones."""
    local = yaml.load(LOCAL.replace("!override ", ""), yaml.SafeLoader)["services"]
    assert {name for name, of in local.items() if str(of.get("image", "")).startswith("tutti-local/")} == OTHERS - {"grafana"}
    assert set(local) == {*OTHERS, "topics", "worker"}
    folder = ROOT / "infra" / "lab" / "compose" / "images"
    assert {of["image"] for of in local.values() if "image" in of} <= {f"tutti-local/{path.stem}" for path in folder.glob("*.Dockerfile")}
    assert set(re.findall(r"^ARG (\w+)", DOCKERFILE, re.MULTILINE)) == set(local["topics"]["build"]["args"])


def test_what_must_survive_is_on_a_volume() -> None:
    """Kafka's log, Redis's file, the sink's store, models, series."""
    assert set(FILE["volumes"]) == {"kafka", "redis", "mongodb", "models", "prometheus"}
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", []) if volume[0] not in "./"}
    assert used == set(FILE["volumes"])


def test_files_that_containers_read_are_there() -> None:
    """A path that does not exist would become an empty folder."""
    mounted = [volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", []) if volume.startswith("./")]
    assert len(mounted) >= 5
    assert [path for path in mounted if not (ROOT / path).exists()] == []


def test_prometheus_scrapes_every_service() -> None:
    """By name and port; the names are services of compose, or what all workers are called."""
    config = yaml.safe_load((ROOT / "infra" / "compose" / "prometheus.yml").read_text())
    [job] = config["scrape_configs"]
    assert job["job_name"] == "tutti", "as the alerts say"
    scraped = {name.removesuffix("s") if name == "workers" else name: at["port"] for at in job["dns_sd_configs"] for name in at["names"]}
    assert scraped == PORTS
    assert all(SERVICES[name]["networks"]["default"]["aliases"] == ["workers"] for name in ("worker", *AGENT_WORKERS))


def test_the_image_runs_as_a_number_that_is_not_root_on_the_tested_python() -> None:
    """Kubernetes can check a number only; the lock file is resolved for the oldest Python."""
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["10001:10001"]
    assert "ARG PYTHON=python:3.11-slim" in DOCKERFILE
    assert "--require-hashes -r requirements-image.lock" in DOCKERFILE


def test_the_image_has_what_services_may_need() -> None:
    """Its extras, in the versions that tests run on."""
    pins = re.compile(r"^([a-z0-9_.-]+)==(\S+)", re.MULTILINE)
    tested, shipped = (dict(pins.findall((ROOT / f"requirements-{name}.lock").read_text())) for name in ("dev", "image"))
    assert shipped.items() <= tested.items()
    assert {"mcp", "pyjwt", "opentelemetry-sdk", "cryptography"} <= shipped.keys()


def test_the_image_names_every_port() -> None:
    """For whoever asks the image."""
    [exposed] = re.findall(r"^EXPOSE (.*)$", DOCKERFILE, re.MULTILINE)
    ranges = [word.partition("-")[::2] for word in exposed.split()]
    assert {port for first, last in ranges for port in range(int(first), int(last or first) + 1)} == set(PORTS.values())


def test_the_broker_is_the_native_one() -> None:
    """Version and settings: what is tested natively is what runs in containers."""
    from infra.native.kafka import VERSION

    kafka = SERVICES["kafka"]
    assert kafka["image"] == f"apache/kafka:{VERSION}"
    text = (ROOT / "infra" / "native" / "broker" / "server.properties").read_text()
    alone = re.sub("@(NUMBER|COPIES|IN_SYNC)@", "1", text)
    native = dict(re.findall(r"^([a-z.]+)=([^@\n]*)\n", alone, re.MULTILINE))
    own = ("node.id", "process.roles", "controller.listener.names")
    told = {name.removeprefix("KAFKA_").replace("_", ".").lower(): str(value) for name, value in kafka["environment"].items()}
    assert {name: told.get(name) for name in native} == native
    assert set(own) <= set(native)
    assert "metadata.max.idle.interval.ms" in native
