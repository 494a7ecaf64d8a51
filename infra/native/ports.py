"""Is a port free, and if not, who has it."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from random import Random

from infra.native.errors import PortTaken

_LISTEN = "0A"
"""State of a listening socket in the kernel's table."""
own_range = range(20_000, 32_000)
"""Where free ports are looked for. Test processes beside each other take a part each: a port is found some time before it is taken."""


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` now."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_ports(count: int, random: Random | None = None) -> list[int]:
    """`count` different ports that are free at this moment, below the range from which the system takes ports for outgoing connections."""
    start = (random or Random()).randrange(len(own_range))
    found: list[int] = []
    for step in range(len(own_range)):
        port = own_range[(start + step) % len(own_range)]
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise PortTaken(f"there are no {count} free ports between {own_range.start} and {own_range.stop}")


def require_free(port: int, component: str, setting: str) -> None:
    """Raises PortTaken naming the process that listens there and the setting that moves the component elsewhere."""
    if reason := taken(port, component, setting):
        raise PortTaken(reason)


def taken(port: int, component: str, setting: str) -> str | None:
    """Who listens there, and what to do; None when the port is free."""
    if is_free(port):
        return None
    holder = owner(port) or "another process"
    return f"port {port}, which {component} needs, is taken by {holder}; stop that, or set {setting} to a free port"


def owner(port: int) -> str | None:
    """`name (pid n)` of the process that listens on `port`; None when it cannot be told (not Linux, or another user's process)."""
    inodes = {inode for inode, listening in _sockets() if listening == port}
    for process in Path("/proc").glob("[0-9]*"):
        if inodes & set(_inodes(process)):
            return f"{_name(process)} (pid {process.name})"
    return None


def _sockets() -> Iterable[tuple[str, int]]:
    """(inode, port) of every listening TCP socket."""
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTEN:
                yield fields[9], int(fields[1].rsplit(":", 1)[1], 16)


def _inodes(process: Path) -> Iterable[str]:
    try:
        for descriptor in (process / "fd").iterdir():
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                yield target[8:-1]
    except OSError:  # it ended, or is not ours to look into
        return


def _name(process: Path) -> str:
    try:
        words = (process / "cmdline").read_bytes().decode(errors="replace").split("\0")
    except OSError:
        return "a process"
    return " ".join(Path(word).name if n == 0 else word for n, word in enumerate(words[:3])).strip() or "a process"
