"""Which missing components are failures, and what a missing program tells its user."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.native import fetch, install
from infra.native.errors import MissingTool, NativeError
from infra.native.install import Need
from infra.native.paths import locked, writing
from infra.native.settings import NativeSettings
from infra.native.stack import Stack
from tests.support.native import required


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"CI": "true"}, True),
        ({"CI": "true", "TUTTI_REQUIRE_REAL": "redis"}, False),
        ({"TUTTI_REQUIRE_REAL": "redis, kafka"}, True),
        ({"CI": ""}, False),
    ],
)
def test_a_missing_component_fails_where_it_is_required(environment: dict[str, str], expected: bool) -> None:
    """A skip on a laptop, a failure in CI, unless an explicit list says otherwise."""
    assert required("kafka", environment) is expected


def test_all_that_is_missing_is_named_with_one_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without permission nothing is installed, nor where it is only required; the message can be pasted into a shell. What is there is not
    asked for.
    """
    monkeypatch.setenv("TUTTI_NO_APT", "1")
    needs = (
        Need("sh", ("dash",), "is there"),
        Need("no-such", ("one", "two"), "for this"),
        Need("none-such", ("two", "three"), "for that"),
    )
    with pytest.raises(MissingTool):
        install.provide(*needs)
    monkeypatch.delenv("TUTTI_NO_APT")
    with pytest.raises(MissingTool) as raised:
        install.require(*needs)
    assert raised.value.message.startswith("`no-such` (for this) and `none-such` (for that) are missing; install with: ")
    assert raised.value.message.rstrip("'").endswith("apt-get install -y --no-install-recommends one two three")


@pytest.mark.parametrize(("sudo", "expected"), [("/usr/bin/sudo", "sudo apt-get install x"), (None, "su -c 'apt-get install x'")])
def test_a_user_gets_the_command_that_this_machine_has(monkeypatch: pytest.MonkeyPatch, sudo: str | None, expected: str) -> None:
    """A bare Debian has no sudo."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(shutil, "which", lambda _: sudo)
    assert install.as_root(["apt-get", "install", "x"]) == expected


def test_a_lock_keeps_a_second_command_out(tmp_path: Path) -> None:
    """Two `tutti up` in one directory do not race: the second is told."""
    with locked(tmp_path / "lock"), pytest.raises(NativeError), locked(tmp_path / "lock", wait=False):
        pass


def test_a_full_disk_is_an_error_of_ours_and_a_defect_is_not(tmp_path: Path) -> None:
    """One line instead of a traceback, but only for what a person can mend."""
    with pytest.raises(NativeError, match=r"No space left on device \(x\); data lies under TUTTI_HOME"), writing():
        raise OSError(errno.ENOSPC, "No space left on device", "x")
    with pytest.raises(FileNotFoundError), writing():
        (tmp_path / "none").read_text()


def test_a_library_is_a_need_like_a_program() -> None:
    """What the loader finds is not missing; a wheel may need a library that a bare machine lacks."""
    there, absent = Need("libc.so.6", ("libc6",), "everything", library=True), Need("libnone.so.0", ("none",), "nothing", library=True)
    assert install.missing(there, absent) == [absent]


@pytest.fixture
def lacking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Something is missing, and root may call an apt-get that fails; the folder of that."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("TUTTI_NO_APT", raising=False)
    monkeypatch.setitem(fetch.NEEDS, "up", lambda _: (Need("no-such", ("one",), "for this"),))
    (tmp_path / "apt-get").write_text("#!/bin/sh\necho E: no network >&2\nexit 100\n")
    (tmp_path / "apt-get").chmod(0o755)
    return tmp_path


def test_packages_fail_as_a_target_and_are_told_once_as_a_step(monkeypatch: pytest.MonkeyPatch, lacking: Path) -> None:
    """Why apt-get failed is told in both; what only an administrator can install is left to the next step to tell."""
    alone, step = ["--packages"], ["--packages", "--before", "up"]
    failed = [CliRunner().invoke(fetch.main, words) for words in (alone, step)]
    assert [ended.exit_code for ended in failed] == [1, 0]
    assert all("`no-such` (for this) is missing, and `apt-get install" in ended.stderr for ended in failed)
    monkeypatch.setenv("TUTTI_NO_APT", "1")
    forbidden = [CliRunner().invoke(fetch.main, words) for words in (alone, step)]
    assert [ended.exit_code for ended in forbidden] == [1, 0]
    assert "install with: apt-get install -y --no-install-recommends one" in forbidden[0].stderr
    assert forbidden[1].output == ""


@pytest.mark.parametrize(
    ("chosen", "ollama", "expected"),
    [
        ({}, False, ["java", "mvn", "libgomp.so.1"]),
        ({"kafka_servers": "kafka:9092"}, False, ["libgomp.so.1"]),
        ({}, True, ["java", "mvn"]),
        ({"kafka_servers": "kafka:9092"}, True, []),
        ({"kafka_servers": "kafka:9092", "node": "embedded"}, True, ["libgomp.so.1"]),
        ({"node": "simulator"}, False, ["java", "mvn"]),
    ],
)
def test_nothing_is_needed_for_what_is_there(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, chosen: dict[str, str], ollama: bool, expected: list[str]
) -> None:
    """A Kafka that is named and an Ollama on the PATH: neither Java nor libgomp. Benches start a Kafka of their own all the same."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("OLLAMA_HOST", "127.0.0.1:9")
    if ollama:
        (tmp_path / "ollama").touch(0o755)
    settings = NativeSettings(home=tmp_path / "home", cache=tmp_path / "cache").model_copy(update=chosen)
    assert [need.name for need in Stack(settings, print).needs()] == expected
    assert [need.name for need in fetch.NEEDS["up"](settings)] == expected
    assert [need.name for need in fetch.NEEDS["kafka"](settings)] == ["java", "mvn"]
