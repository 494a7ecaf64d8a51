"""What is built from Go modules: without a Go that is new enough it is said what is missing and how to get it."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from infra.lab import golang, make
from infra.native.errors import MissingTool, StartFailed


def test_helm_check_without_go_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With an exit code of its own, before anything is downloaded."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("TUTTI_CACHE", str(tmp_path / "cache"))
    ended = CliRunner().invoke(make.main, ["kubernetes"])
    assert ended.exit_code == make.EXIT_MISSING
    assert "Go is missing" in (said := ended.stderr)
    assert "install it from go.dev" in said
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["kubernetes.lock"]


def test_an_old_go_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Debian's own is too old."""
    go = tmp_path / "go"
    go.write_text("#!/bin/sh\necho go version go1.19.8 linux/amd64\n")
    go.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(MissingTool, match=r"too old \(go version go1\.19\.8 linux/amd64\): building Helm needs Go 1\.26"):
        golang.find_go("Helm")


def test_a_command_that_fails_is_explained(tmp_path: Path) -> None:
    """By the end of what it said, or by how long it took."""
    with pytest.raises(StartFailed, match="no such module"):
        golang.run(["sh", "-c", "echo no such module >&2; exit 1"], {}, 10.0, tmp_path)
    with pytest.raises(StartFailed, match="took longer than 0 s"):
        golang.run(["sleep", "5"], {}, 0.1)
