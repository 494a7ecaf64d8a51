"""Programs that come from the system's package manager: found, installed when permitted, or named with the command that installs them."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass

from infra.native.causes import explain
from infra.native.errors import MissingTool

FORBID = "TUTTI_NO_APT"
"""Set to anything: never call apt-get."""
LOCK_SECONDS = 300
"""A fresh server often updates itself just then; apt-get waits so long for its turn."""


@dataclass(frozen=True, slots=True)
class Need:
    """A program, the Debian packages that bring it, and what it is for."""

    program: str
    packages: tuple[str, ...]
    why: str


def require(*needs: Need) -> tuple[str, ...]:
    """Paths of the programs. What is missing is installed at once, together, if this process may; else MissingTool names all of it."""
    check(*needs)
    if missing := _missing(needs):
        _install(missing)
    for need in _missing(needs):
        raise MissingTool(f"`{need.program}` is still not on the PATH after installing {' '.join(need.packages)}")
    return tuple(shutil.which(need.program) or "" for need in needs)


def check(*needs: Need) -> None:
    """Raises MissingTool when something is missing and may not be installed from here. Installs nothing."""
    missing = _missing(needs)
    if missing and not may_install():
        raise MissingTool(f"{_reason(missing)}; install with: {as_root(_command(missing))}")


def may_install() -> bool:
    """Root, apt-get there, and not forbidden by TUTTI_NO_APT."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None and not os.environ.get(FORBID)


def as_root(command: list[str]) -> str:
    """The command as a person types it; a bare Debian has no sudo."""
    text = " ".join(command)
    if os.geteuid() == 0:
        return text
    return f"sudo {text}" if shutil.which("sudo") else f"su -c '{text}'"


def _missing(needs: tuple[Need, ...]) -> list[Need]:
    return [need for need in needs if shutil.which(need.program) is None]


def _reason(missing: list[Need]) -> str:
    named = " and ".join(f"`{need.program}` ({need.why})" for need in missing)
    return f"{named} {'is' if len(missing) == 1 else 'are'} missing"


def _command(missing: list[Need]) -> list[str]:
    packages = dict.fromkeys(package for need in missing for package in need.packages)
    return ["apt-get", "install", "-y", "--no-install-recommends", *packages]


def _install(missing: list[Need]) -> None:
    """The lists first: a fresh machine has none. If that fails its words tell why the installation fails too."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command, said = _command(missing), ""
    for step in (["apt-get", "update"], command):
        words = [*step, "-qq", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}"]
        done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        said += done.stderr
    if done.returncode != 0:
        raise MissingTool(explain(f"{_reason(missing)}, and `{' '.join(command)}` failed", said))
