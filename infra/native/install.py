"""Programs and libraries that come from the system's package manager: found, or named with the command that installs them.

Nothing is installed by itself: only `provide` and `attempt` call apt-get, for make targets that say so.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

from infra.native.causes import explain
from infra.native.errors import MissingTool
from infra.native.settings import NativeSettings

LOCK_SECONDS = 300
"""A fresh server often updates itself just then; apt-get waits so long for its turn."""


@dataclass(frozen=True, slots=True)
class Need:
    """A program, the Debian packages that bring it, and what it is for. With `library` the name is a shared library's."""

    name: str
    packages: tuple[str, ...]
    why: str
    library: bool = False

    def missing(self) -> bool:
        """Whether this machine lacks it now."""
        return not _loads(self.name) if self.library else shutil.which(self.name) is None


def require(*needs: Need) -> None:
    """Raises MissingTool, which names all that is missing, and the command."""
    if lacking := missing(*needs):
        raise MissingTool(told(lacking))


def provide(*needs: Need) -> None:
    """Install what is missing, together, if this process may. Raises MissingTool."""
    attempt(*needs)
    require(*needs)


def attempt(*needs: Need) -> None:
    """The same, where a later step tells what is still missing. Installs as root, with apt-get there, not forbidden by TUTTI_NO_APT. Raises
    MissingTool if apt-get fails.
    """
    lacking = missing(*needs)
    if lacking and os.geteuid() == 0 and shutil.which("apt-get") is not None and not NativeSettings().no_apt:
        _install(lacking)


def missing(*needs: Need) -> list[Need]:
    """Those that this machine lacks."""
    return [need for need in needs if need.missing()]


def told(lacking: list[Need]) -> str:
    """What is missing, what for, and the command that installs it."""
    return f"{_reason(lacking)}; install with: {as_root(_command(lacking))}"


def packages(needs: Iterable[Need]) -> list[str]:
    """The Debian packages that bring them, each once."""
    return list(dict.fromkeys(package for need in needs for package in need.packages))


def as_root(command: list[str]) -> str:
    """The command as a person types it; a bare Debian has no sudo."""
    text = " ".join(command)
    if os.geteuid() == 0:
        return text
    return f"sudo {text}" if shutil.which("sudo") else f"su -c '{text}'"


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _reason(lacking: list[Need]) -> str:
    named = " and ".join(f"`{need.name}` ({need.why})" for need in lacking)
    return f"{named} {'is' if len(lacking) == 1 else 'are'} missing"


def _command(lacking: list[Need]) -> list[str]:
    return ["apt-get", "install", "-y", "--no-install-recommends", *packages(lacking)]


def _install(lacking: list[Need]) -> None:
    """The lists first: a fresh machine has none. If that fails its words tell why the installation fails too."""
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    command, said = _command(lacking), ""
    for step in (["apt-get", "update"], command):
        words = [*step, "-qq", "-o", f"DPkg::Lock::Timeout={LOCK_SECONDS}"]
        done = subprocess.run(words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        said += done.stderr
    if done.returncode != 0:
        raise MissingTool(explain(f"{_reason(lacking)}, and `{' '.join(command)}` failed", said))
