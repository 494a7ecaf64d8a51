"""`python -m infra.lab.rpc_group`: one model over several llama.cpp servers, on this machine: a head, and RPC servers that hold its layers.

It prints the settings of the worker that makes one node of them, and keeps them running until it is told to stop. A head whose member has
died is started again once that is back: it holds connections to what is no more, and ends at the next call. On machines of one's own
systemd does the same (infra/runbooks/partitioned.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click

from infra.cli.exits import Program
from infra.lab.ollama_build import tiny_model
from infra.lab.ollama_build.ollama import rpc_directory
from infra.native.errors import MissingTool
from infra.native.node import await_answer
from infra.native.ports import free_ports, is_free
from infra.native.processes import Daemon
from infra.native.settings import NativeSettings
from infra.native.waiting import wait_until

MEMBERS = 2
LOOK_SECONDS = 0.5
AWAY_SECONDS = 15.0
"""A member that has ended is started again after this: a worker, which looks each 5 s, has said so by then."""
START_SECONDS = 20.0
_QUIET = {"GGML_NO_BACKTRACE": "1"}
"""A head that loses a member aborts; without a debugger's account of it."""


class RpcGroup:
    """Processes below `directory`. `model`: a GGUF file, its absolute path."""

    def __init__(self, cache: Path, directory: Path, model: Path, members: int = MEMBERS, *, dies_with_parent: bool = True) -> None:
        programs = rpc_directory(cache)
        if not (programs / "ggml-rpc-server").exists():
            raise MissingTool("llama.cpp's RPC server is missing: `make ollama` fetches it")
        self._port, *ports = free_ports(1 + members)
        self.url, self.addresses = f"http://127.0.0.1:{self._port}", tuple(f"127.0.0.1:{port}" for port in ports)

        def daemon(name: str, command: Sequence[str]) -> Daemon:
            files = directory / f"{name}.json", directory / f"{name}.log"
            return Daemon(name, command, *files, _QUIET, dies_with_parent=dies_with_parent)

        server, head = str(programs / "ggml-rpc-server"), str(programs / "llama-server")
        self.members = [daemon(f"member-{n}", [server, "--port", str(port)]) for n, port in enumerate(ports)]
        own = ["--port", str(self._port), "--rpc", ",".join(self.addresses), "--model", str(model), "--alias", model.stem]
        small = ["--gpu-layers", "99", "--ctx-size", "512", "--threads", "1", "--parallel", "1", "--fit", "off", "--no-webui"]
        self.head = daemon("head", [head, *own, *small])

    @property
    def environment(self) -> dict[str, str]:
        """Of the worker whose node the group is; its memory is the members' sum, which here is this machine's."""
        return {
            "TUTTI_WORKER__BACKEND": "openai",
            "TUTTI_WORKER__URL": self.url,
            "TUTTI_WORKER__MEMBERS": ",".join(self.addresses),
            "TUTTI_WORKER__VRAM_BYTES": str(len(self.addresses) * 2**30),
        }

    def start(self) -> None:
        """Return when the model is split and answers. Raises StartFailed."""
        for number in range(len(self.members)):
            self.start_member(number)
        self.head.start()
        await_answer(self.head, f"{self.url}/health")

    def start_member(self, number: int) -> None:
        """Raises StartFailed."""
        member, port = self.members[number], int(self.addresses[number].rpartition(":")[2])
        member.start()
        member.await_ready(lambda: not is_free(port), START_SECONDS, "does not listen")

    def keep(self) -> None:
        """One look: members that ended are started again, and then the head, which has lost its part of the model."""
        ended = [number for number, member in enumerate(self.members) if member.pid() is None]
        for number in ended:
            self.start_member(number)
        if ended:
            self.head.kill()
        if self.head.pid() is None:
            self.head.start()
            await_answer(self.head, f"{self.url}/health")

    def stop(self) -> None:
        """All of them."""
        for process in (self.head, *self.members):
            process.stop(5.0)


@click.command(cls=Program)
@click.option("--model", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="A GGUF file; else a tiny random model.")
@click.option("--members", type=click.IntRange(1, 16), default=MEMBERS, show_default=True)
def main(model: Path | None, members: int) -> None:
    """Start a group on this machine and keep it."""
    directory = TemporaryDirectory(prefix="tutti-rpc-")
    home = Path(directory.name)
    if model is None:
        model = home / "tiny.gguf"
        tiny_model.write(model, 0)
    group = RpcGroup(NativeSettings().cache_directory, home, model.resolve(), members)
    try:
        group.start()
        beside = {"TUTTI_HTTP_PORT": str(free_ports(1)[0]), "TUTTI_WORKER__NODE": "group"}  # another worker runs here, of `tutti up`
        click.echo("\n".join(f"export {name}={value}" for name, value in (group.environment | beside).items()))
        click.echo("# then: tutti run worker; pids of members: " + " ".join(str(member.pid()) for member in group.members), err=True)
        while not wait_until(lambda: False, LOOK_SECONDS):
            if any(member.pid() is None for member in group.members):
                click.echo(f"# a member has ended; it is started again in {AWAY_SECONDS:g} s", err=True)
                wait_until(lambda: False, AWAY_SECONDS)
            group.keep()
    except KeyboardInterrupt:
        pass
    finally:
        group.stop()
        directory.cleanup()


if __name__ == "__main__":
    main()
