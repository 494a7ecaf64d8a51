"""What the sink stores in: a `mongod` on the PATH, else SecantusDB (extra `dev`), a stand-in that speaks MongoDB's protocol.

Whichever it is is said wherever it is shown. What runs on the stand-in is not thereby tested on MongoDB itself.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass, field
from pathlib import Path

from pymongo import MongoClient
from pymongo.errors import PyMongoError

from infra.native import ports
from infra.native.errors import MissingTool
from infra.native.paths import StackHome
from infra.native.processes import Daemon

START_SECONDS = 30.0
STOP_SECONDS = 20.0
STAND_IN = "SecantusDB, a stand-in for MongoDB"


@dataclass(slots=True)
class MongoServer:
    """A server that keeps its data."""

    home: StackHome
    port: int = 17017
    dies_with_parent: bool = False
    daemon: Daemon = field(init=False)

    def __post_init__(self) -> None:
        self.daemon = Daemon(
            "mongodb", (), self.home.pid_file("mongodb"), self.home.log("mongodb"), dies_with_parent=self.dies_with_parent, port=self.port
        )

    @property
    def url(self) -> str:
        """For pymongo."""
        return f"mongodb://127.0.0.1:{self.port}/?directConnection=true"

    @property
    def about(self) -> str:
        """Which one it is."""
        return "MongoDB" if shutil.which("mongod") else STAND_IN

    def start(self) -> None:
        """Bring it up; returns when it answers. Does nothing when it runs. Raises MissingTool, PortTaken or StartFailed."""
        if not self.daemon.running():
            command = self._command()
            ports.require_free(self.port, "MongoDB", "TUTTI_MONGO_PORT")
            self.daemon.command = command
            self.daemon.start()
        self.daemon.await_ready(self.healthy, START_SECONDS)

    def _command(self) -> list[str]:
        data = self.home.data("mongodb")
        data.mkdir(parents=True, exist_ok=True)
        mongod = shutil.which("mongod")
        if mongod is not None:
            return [mongod, "--bind_ip", "127.0.0.1", "--port", str(self.port), "--dbpath", str(data), "--wiredTigerCacheSizeGB", "0.25"]
        stand_in = Path(sys.executable).with_name("secantusd-py")
        if not stand_in.exists():
            raise MissingTool("no mongod on the PATH, and no stand-in: install the extra with `pip install 'tutti-cluster[dev]'`")
        return [str(stand_in), "--host", "127.0.0.1", "--port", str(self.port), "--storage-path", str(data), "--log-level", "WARNING"]

    def healthy(self) -> bool:
        """Whether it answers a ping."""
        client: MongoClient[dict[str, object]] = MongoClient(
            self.url, serverSelectionTimeoutMS=1_000, connectTimeoutMS=1_000, socketTimeoutMS=1_000
        )
        try:
            return bool(client.admin.command("ping"))
        except PyMongoError:
            return False
        finally:
            client.close()

    def stop(self) -> None:
        """Shut down in order; data stays."""
        self.daemon.stop(STOP_SECONDS)
