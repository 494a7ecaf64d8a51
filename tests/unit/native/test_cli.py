"""The commands where nothing runs: they tell so by text and exit code, and change nothing."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.cli.main import main
from infra.native import install
from infra.native.paths import StackHome, locked
from infra.native.ports import free_ports
from shared.services import NAMES


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory of our own, and ports that nobody has."""
    monkeypatch.setenv("TUTTI_HOME", str(tmp_path))
    for name, port in zip(("KAFKA_PORT", "KAFKA_CONTROLLER_PORT", "REDIS_PORT", "MONGO_PORT", "NODE_PORT"), free_ports(5), strict=True):
        monkeypatch.setenv(f"TUTTI_{name}", str(port))
    return tmp_path


def test_status_of_nothing_is_stopped_and_exit_code_3(home: Path) -> None:
    """Every component has a row; scripts can rely on the code."""
    done = CliRunner().invoke(main, ["status", "--json"])
    rows = json.loads(done.stdout)
    assert done.exit_code == 3
    assert [row["component"] for row in rows] == ["kafka", "redis", "redis-cache", "mongodb", "model node", *NAMES]
    assert {row["state"] for row in rows} == {"stopped"}


def test_down_of_nothing_is_fine_and_clean_removes_only_what_the_launcher_made(home: Path) -> None:
    """A person's own file in the directory stays."""
    (home / "mine.txt").write_text("kept")
    StackHome(home).data("kafka").mkdir(parents=True)
    done = CliRunner().invoke(main, ["down", "--clean"])
    assert done.exit_code == 0
    assert not (home / "data").exists()
    assert (home / "mine.txt").read_text() == "kept"


def test_a_second_command_is_refused_while_the_first_works(home: Path) -> None:
    """Not two stacks racing in one directory."""
    with locked(home / "lock"):
        done = CliRunner().invoke(main, ["up"])
    assert done.exit_code == 1
    assert "another command" in done.stderr


def test_logs_of_an_unknown_component_name_the_known_ones(home: Path) -> None:
    """A misspelt name is wrong usage, exit code 2."""
    StackHome(home).log("planner").write_text("first\nsecond\n")
    shown = CliRunner().invoke(main, ["logs", "--lines", "1"])
    assert shown.stdout.split() == ["planner", "second"]
    refused = CliRunner().invoke(main, ["logs", "planer"])
    assert refused.exit_code == 2
    assert "planner" in refused.stderr


def test_a_wrong_setting_is_named_as_its_variable(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 78, and the variable to correct."""
    monkeypatch.setenv("TUTTI_KAFKA_PORT", "none")
    done = CliRunner().invoke(main, ["status"])
    assert done.exit_code == 78
    assert "TUTTI_KAFKA_PORT" in done.stderr


def test_every_taken_port_is_told_before_anything_is_started(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that the last service needs is not found out after minutes of downloads."""
    monkeypatch.setattr(install, "require", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        taken = [server.getsockname()[1] for server in (one, two)]
        for setting, port in zip(("HTTP_PORTS__INGRESS", "KAFKA_CONTROLLER_PORT"), taken, strict=True):
            monkeypatch.setenv(f"TUTTI_{setting}", str(port))
        done = CliRunner().invoke(main, ["up"])
    assert done.exit_code == 1
    assert [f"port {port}, which" in done.stderr for port in taken] == [True, True]  # and others where a stack runs on this machine
    assert "TUTTI_HTTP_PORTS__INGRESS" in done.stderr
    assert not list((home / "run").glob("*.json"))
