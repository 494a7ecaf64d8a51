"""ollama-herd as a peer, where somebody has installed it (into an environment of its own): its router, and an agent beside each server.

On free ports, its files in a folder that ends with it; its telemetry is off, and its mDNS name is nobody else's. As it is installed it
answers with another model, where one is loaded that it takes for a like one; `strict` asks for the model that was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from infra.native.http import get_json
from infra.native.paths import StackHome
from infra.native.ports import free_ports
from infra.native.processes import Daemon

START_SECONDS = 60.0


@contextmanager
def herd(programs: Path, servers: Mapping[str, str], home: StackHome, *, strict: bool) -> Iterator[str]:
    """Its address. `programs`: the folder with `herd` and `herd-node`; `servers`: node to address. Raises StartFailed."""
    [port] = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    with ExitStack() as stack:

        def start(name: str, command: tuple[str, ...], ready: Callable[[], bool]) -> None:
            own = str(home.directory(name))
            environment = {
                "HOME": own,
                "FLEET_DATA_DIR": own,
                "FLEET_NODE_DATA_DIR": own,
                "FLEET_VRAM_FALLBACK": str(not strict),
                "FLEET_NODE_TELEMETRY": "false",
                "FLEET_MDNS_SERVICE_TYPE": "_tutti-bench._tcp.local.",
            }
            daemon = Daemon(name, command, home.pid_file(name), home.log(name), environment, dies_with_parent=True)
            daemon.start()
            stack.callback(daemon.stop)
            daemon.await_ready(ready, START_SECONDS, "it does not answer, or its router does not list it")

        start("herd", (str(programs / "herd"), "--host", "127.0.0.1", "--port", str(port)), lambda: _online(url) is not None)
        for count, (node, server) in enumerate(servers.items(), 1):
            command = (str(programs / "herd-node"), "--node-id", node, "--ollama-host", server, "--router-url", url)
            start(f"herd-{node}", command, lambda count=count: _online(url) == count)  # type: ignore[misc]
        yield url


def _online(url: str) -> int | None:
    told = get_json(f"{url}/fleet/status")
    return None if told is None else int(told["fleet"]["nodes_online"])
