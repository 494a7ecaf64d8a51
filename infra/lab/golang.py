"""Programs built from Go modules: a Go that is new enough, and what it is told to do."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from infra.native.causes import explain
from infra.native.errors import MissingTool, StartFailed

MINIMUM = (1, 26)


def find_go(what: str) -> str:
    """A Go of at least version 1.26, to build `what`. Raises MissingTool; Debian 12's own is too old."""
    wanted = ".".join(str(part) for part in MINIMUM)
    go = shutil.which("go")
    if go is None:
        raise MissingTool(f"Go is missing: building {what} needs Go {wanted} or later; install it from go.dev and put `go` on the PATH")
    shown = subprocess.run([go, "version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"go(\d+)\.(\d+)", shown)
    if found is None or (int(found.group(1)), int(found.group(2))) < MINIMUM:
        raise MissingTool(f"{go} is too old ({shown.strip()}): building {what} needs Go {wanted} or later, from go.dev")
    return go


def module(go: str, name: str) -> Path:
    """Where the files of `path@version` lie, downloaded if need be. Read-only. Raises StartFailed."""
    return Path(json.loads(run([go, "mod", "download", "-json", name], {"GOFLAGS": "-mod=mod"}, 300.0, Path("/")))["Dir"])


def run(command: list[str], environment: Mapping[str, str], seconds: float, directory: Path | None = None) -> str:
    """What the command printed. Raises StartFailed with the end of what it said, also when it takes longer than `seconds`."""
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **environment},
            cwd=directory,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise StartFailed(f"`{' '.join(command[:2])}` took longer than {seconds:.0f} s") from None
    if done.returncode != 0:
        raise StartFailed(explain(f"`{' '.join(command[:2])}` failed", done.stdout + done.stderr))
    return done.stdout
