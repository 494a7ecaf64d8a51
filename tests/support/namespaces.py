"""Two machines on a network of their own, which reaches nobody else: a pair of network namespaces. Needs root and `ip`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NETWORK = "10.213.77"
A, B, EVERYBODY = f"{NETWORK}.1", f"{NETWORK}.2", f"{NETWORK}.255"
ROOT = Path(__file__).parents[2]


class Machines:
    """`a` and `b`, joined by a cable."""

    def __init__(self, names: dict[str, str]) -> None:
        self._names = names

    def start(self, machine: str, *words: str) -> subprocess.Popen[str]:
        """Python there."""
        command = ["ip", "netns", "exec", self._names[machine], sys.executable, *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)})

    def run(self, machine: str, *words: str) -> str:
        """What it printed. Fails with what it said of its failure."""
        one = self.start(machine, *words)
        out, err = one.communicate(timeout=60)
        assert one.returncode == 0, err
        return out


@contextmanager
def machines() -> Iterator[Machines]:
    """Skips the test where it may not be made."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and `ip`")
    names = {side: f"tutti-{os.getpid()}-{side}" for side in "ab"}
    try:
        for side in "ab":
            if (refused := _ip("netns", "add", names[side])) is not None:
                pytest.skip(f"no network namespace may be made here: {refused}")
        cable = ["link", "add", "va", "netns", names["a"], "type", "veth", "peer", "name", "vb", "netns", names["b"]]
        if (refused := _ip(*cable)) is not None:
            pytest.skip(f"no pair of network interfaces may be made here: {refused}")
        for side, address in (("a", A), ("b", B)):
            for words in (f"addr add {address}/24 brd {EVERYBODY} dev v{side}", f"link set v{side} up", "link set lo up"):
                assert _ip("-n", names[side], *words.split()) is None
            assert _ip("-n", names[side], "route", "add", "224.0.0.0/4", "dev", f"v{side}") is None
        yield Machines(names)
    finally:
        for name in names.values():
            _ip("netns", "del", name)


def _ip(*words: str) -> str | None:
    """Why not; None: done."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    return None if done.returncode == 0 else done.stderr.strip() or "it does not say why"
