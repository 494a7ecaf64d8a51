"""Programs that come from the system's package manager: found, installed when permitted, or named with the command that installs them."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from infra.native.errors import MissingTool

FORBID = "TUTTI_NO_APT"
"""Set to anything: never call apt-get."""


def require(program: str, packages: Sequence[str], why: str) -> str:
    """Path of `program`. Installs Debian `packages` first if it is missing and this process may; else raises MissingTool."""
    if found := shutil.which(program):
        return found
    install(packages, f"`{program}` is missing ({why})")
    if found := shutil.which(program):
        return found
    raise MissingTool(f"`{program}` is still not on the PATH after installing {' '.join(packages)}")


def install(packages: Sequence[str], reason: str) -> None:
    """apt-get install when root and permitted; else MissingTool with `reason` and the command to type."""
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if not may_install():
        raise MissingTool(f"{reason}; install it with: sudo {' '.join(command)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "update", "-qq"], [*command, "-qq"]):
        done = subprocess.run(step, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        if done.returncode != 0 and step[1] == "install":
            raise MissingTool(f"{reason}, and `{' '.join(step)}` failed:\n{done.stderr.strip()[-1000:]}")


def may_install() -> bool:
    """Root, apt-get there, and not forbidden by TUTTI_NO_APT."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None and not os.environ.get(FORBID)
