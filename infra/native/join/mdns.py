"""Clusters on this network, by multicast DNS: one that announces itself, and those that are there.

What is announced is no secret: where Kafka is, how its topics are named and counted. Who may come in, Kafka decides: a cluster that asks
for credentials says so, and is joined with a token. Anybody may announce anything: whoever joins is told what he has found.

    python -m infra.native.join.mdns '{"name": …, "servers": …}'     announces until SIGTERM
"""

from __future__ import annotations

import importlib
import ipaddress
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from infra.native.errors import MissingTool
from infra.native.join.invitation import Invitation
from shared.partitions import TopicSettings

KIND = "_tutti._tcp.local."
FIND_SECONDS = 3.0
_VALUE_BYTES = 200
"""Of one value in a record: 255 with its name."""
_MOST_FOUND = 64


def _zeroconf() -> Any:
    try:
        return importlib.import_module("zeroconf")
    except ImportError:
        raise MissingTool(
            "finding clusters on a network needs zeroconf: pip install 'tutti-cluster[mdns]'; or join with a token (`tutti join-token`)"
        ) from None


def available() -> None:
    """Raises MissingTool."""
    _zeroconf()


def _open(interfaces: Sequence[str]) -> Any:
    zeroconf = _zeroconf()
    chosen = list(interfaces) or zeroconf.InterfaceChoice.All
    return zeroconf.Zeroconf(interfaces=chosen, ip_version=zeroconf.IPVersion.V4Only)


def record_of(cluster: Invitation) -> dict[str, str]:
    """What its record says. Raises ValueError of a cluster whose servers do not fit into one."""
    said = {"v": "1", "servers": cluster.servers, "protocol": cluster.protocol}
    said["topics"] = cluster.topics.model_dump_json(exclude_defaults=True)
    if any(len(value.encode()) > _VALUE_BYTES for value in said.values()):
        raise ValueError(f"each part of what is announced has at most {_VALUE_BYTES} bytes; this cluster is joined with tokens")
    return said


def read_record(name: str, said: dict[str, str]) -> Invitation | None:
    """None of what is no announcement of ours: anybody may send anything."""
    try:
        topics = TopicSettings.model_validate_json(said.get("topics", "{}"))
        found = Invitation(name=name, servers=said["servers"], protocol=said.get("protocol", "PLAINTEXT"), topics=topics)
    except (KeyError, ValidationError):
        return None
    return found if said.get("v") == "1" else None


def find(seconds: float = FIND_SECONDS, interfaces: Sequence[str] = ()) -> list[Invitation]:
    """The clusters that announce themselves, by name; waits so long for all. `interfaces`: addresses of those to ask on; all if none."""
    zeroconf = _zeroconf()
    found: dict[str, None] = {}

    def heard(zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        if len(found) < _MOST_FOUND:
            found[name] = None

    asking = _open(interfaces)
    try:
        browser = zeroconf.ServiceBrowser(asking, KIND, handlers=[heard])
        threading.Event().wait(seconds)
        browser.cancel()
        known = [_asked(asking, name) for name in sorted(found)]
    finally:
        asking.close()
    return [cluster for cluster in known if cluster is not None]


def _asked(asking: Any, name: str) -> Invitation | None:
    info = asking.get_service_info(KIND, name, timeout=1_000)
    if info is None:
        return None
    said = {_text(key): _text(value or b"") for key, value in info.properties.items()}
    return read_record(name.removesuffix(f".{KIND}")[:100], said)


def _text(value: bytes) -> str:
    return value[:255].decode("utf-8", "replace")


class Announcement:
    """A cluster, announced from `begin` to `end`."""

    def __init__(self, cluster: Invitation, interfaces: Sequence[str] = ()) -> None:
        self._cluster, self._interfaces = cluster, interfaces
        self._open: Any = None

    def begin(self) -> None:
        """Raises MissingTool, ValueError, OSError."""
        zeroconf, said = _zeroconf(), record_of(self._cluster)
        host, _, port = self._cluster.servers.split(",", maxsplit=1)[0].rpartition(":")
        self._open = _open(self._interfaces)
        info = zeroconf.ServiceInfo(
            KIND,
            f"{self._cluster.name}.{KIND}",
            addresses=[_packed(host)],
            port=int(port),
            properties=said,
            server=f"{socket.gethostname().split('.')[0] or 'tutti'}.local.",
        )
        self._open.register_service(info, allow_name_change=True)

    def end(self) -> None:
        """It says that it is gone."""
        if self._open is not None:
            self._open.unregister_all_services()
            self._open.close()


def _packed(host: str) -> bytes:
    """Of a name as it is here: whoever joins uses `servers` anyway."""
    try:
        return ipaddress.ip_address(host).packed
    except ValueError:
        return socket.inet_aton(socket.gethostbyname(host))


def main(spec: str, interfaces: str = "") -> int:
    """Announce until told to stop."""
    told = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: told.set())
    announcement = Announcement(Invitation.model_validate_json(spec), [part for part in interfaces.split(",") if part])
    announcement.begin()
    print("announced", flush=True)  # noqa: T201
    told.wait()
    announcement.end()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
