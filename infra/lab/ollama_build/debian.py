"""Debian packages unpacked into a directory, without installing them: programs newer than this machine's release, run with their own libc.

apt works on a private state, so the machine's own sources and lists stay as they are. Packages are verified by Debian's archive key.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from infra.native.causes import explain
from infra.native.errors import MissingTool, StartFailed

SUITE = "sid"
"""Of which programs are taken: its newest ones run beside this machine's release."""
_KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"


def unpack(packages: Sequence[str], suite: str, target: Path) -> None:
    """Download `packages` (only these, no dependencies) of Debian's `suite` and unpack them into `target`, which is complete or absent."""
    for program in ("apt-get", "dpkg-deb"):
        if shutil.which(program) is None:
            raise MissingTool(f"`{program}` is missing: {packages[0]} comes from Debian packages; on other systems install it its own way")
    state = target.with_name(target.name + "-apt")
    shutil.rmtree(state, ignore_errors=True)
    configuration = _configure(state, suite)
    downloads = state / "debs"
    downloads.mkdir()
    _apt(configuration, ["update", "-qq"], state)
    _apt(configuration, ["download", "-qq", *packages], downloads)
    draft = state / "unpacked"
    draft.mkdir()
    for package in sorted(downloads.glob("*.deb")):
        _run(["dpkg-deb", "-x", str(package), str(draft)], {}, state)
    draft.rename(target)
    shutil.rmtree(state, ignore_errors=True)


def _configure(state: Path, suite: str) -> Path:
    for directory in ("lists/partial", "cache/archives/partial"):
        (state / directory).mkdir(parents=True)
    (state / "status").touch()
    sources = state / "sources.list"
    sources.write_text(f"deb [signed-by={_KEY}] {mirror()} {suite} main\n")
    configuration = state / "apt.conf"
    configuration.write_text(
        f'Dir::Etc::SourceList "{sources}";\nDir::Etc::SourceParts "-";\nDir::State::Lists "{state}/lists";\n'
        f'Dir::State::Status "{state}/status";\nDir::Cache "{state}/cache";\nDebug::NoLocking "1";\nAPT::Sandbox::User "root";\n'
    )
    return configuration


def mirror() -> str:
    """The Debian mirror that this machine uses already."""
    shown = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Identifier: Packages"], capture_output=True, text=True, check=False
    )
    mirrors = sorted({line.strip() for line in shown.stdout.splitlines() if line.rstrip("/").endswith("/debian")})
    if not mirrors:
        raise MissingTool("this machine's apt names no Debian mirror; install it its own way")
    return mirrors[0]


def _apt(configuration: Path, arguments: Sequence[str], directory: Path) -> None:
    _run(["apt-get", *arguments], {"APT_CONFIG": str(configuration)}, directory)


def _run(command: Sequence[str], environment: dict[str, str], directory: Path) -> None:
    done = subprocess.run(
        command, env={**os.environ, **environment}, cwd=directory, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise StartFailed(explain(f"`{' '.join(command[:3])}` failed", done.stdout + done.stderr))
