"""Debian packages unpacked into a directory, without installing them: programs newer than this machine's release, run with their own libc.

apt works on a private state, so the machine's own sources and lists stay as they are. Packages are verified by Debian's archive key.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from infra.lab.golang import run
from infra.native.errors import MissingTool

SUITE = "sid"
"""Of which programs are taken: its newest ones run beside this machine's release."""
FETCH_SECONDS = 900.0
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
    for arguments, directory in ((["update", "-qq"], state), (["download", "-qq", *packages], downloads)):
        run(["apt-get", *arguments], {"APT_CONFIG": str(configuration)}, FETCH_SECONDS, directory)
    draft = state / "unpacked"
    draft.mkdir()
    for package in sorted(downloads.glob("*.deb")):
        run(["dpkg-deb", "-x", str(package), str(draft)], {}, FETCH_SECONDS, state)
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
