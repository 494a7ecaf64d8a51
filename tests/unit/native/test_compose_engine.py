"""`make compose-check` says what it cannot test, and why; containers of tests are told what compose tells them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.lab import make
from infra.lab.compose.engine import Engine
from infra.native.errors import StartFailed
from tests.support import containers

ROOT = Path(__file__).parents[3]


def test_without_an_engine_it_is_said_what_is_not_tested(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With an exit code of its own, and how to get one; nothing is installed where that is forbidden."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TUTTI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUTTI_NO_APT", "1")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    ended = CliRunner().invoke(make.main, ["compose"])
    assert ended.exit_code == make.EXIT_MISSING
    assert "NOT TESTED: docker-compose.yml in containers: `dockerd`" in (said := ended.stderr)
    assert "apt-get install -y --no-install-recommends docker.io iptables" in said
    assert not (tmp_path / "cache").exists()


def test_without_root_it_is_said_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is looked for."""
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    ended = CliRunner().invoke(make.main, ["compose"])
    assert ended.exit_code == make.EXIT_MISSING
    assert "which takes root" in ended.stderr


def test_a_command_that_fails_says_its_end(tmp_path: Path) -> None:
    """Both of what it printed and what it complained of."""
    engine = Engine(tmp_path)
    with pytest.raises(StartFailed, match=r"failed \(3\):\nfirst\n\nsecond"):
        engine.run(["sh", "-c", "echo first; echo second >&2; exit 3"], {})
    with pytest.raises(StartFailed, match="took longer than 0 s"):
        engine.run(["sleep", "5"], {}, 0.1)


def test_containers_of_tests_are_composes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Image of the last file that names one, all else of the first; values where they are asked for, defaults elsewhere."""
    files = [ROOT / "docker-compose.yml", ROOT / "infra" / "lab" / "compose" / "local.yml"]
    monkeypatch.setenv("TUTTI_TEST_CONTAINERS", ":".join(map(str, files)))
    kafka = containers.definition("kafka", KAFKA_PORT="5000")
    assert kafka["image"] == "tutti-local/kafka"
    assert kafka["environment"]["KAFKA_ADVERTISED_LISTENERS"] == "INSIDE://kafka:9092,OUTSIDE://127.0.0.1:5000"
    assert containers.definition("redis")["user"] == "999:999"
    monkeypatch.setenv("TUTTI_TEST_CONTAINERS", str(files[0]))
    assert containers.definition("kafka")["image"].startswith("apache/kafka:")
    assert containers.definition("kafka")["environment"]["KAFKA_ADVERTISED_LISTENERS"].endswith(":19092")
