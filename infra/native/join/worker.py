"""The joined worker: its settings file, its secrets, its process. All of it lies in one folder, which is the owner's alone: `worker.env`
(settings, as systemd reads them, too), `kafka.password` and `kafka.ca.pem` (what they name), `run`, `log` of a worker without `--install`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.native import ports
from infra.native.errors import NativeError
from infra.native.join.invitation import Invitation
from infra.native.node import ModelNode
from infra.native.paths import StackHome
from infra.native.services import ServiceProcess
from services.worker.settings import WorkerSettings
from shared.errors import NotFound
from shared.services import PORTS

HOME = Path("~/.tutti-node")
KEPT = ("TUTTI_WORKER__", "TUTTI_SEALING__", "TUTTI_LOG_LEVEL", "TUTTI_TLS__WORKER__")
"""What this shell says of the worker goes into its settings."""
_SETTINGS, _PASSWORD, _AUTHORITIES = "worker.env", "kafka.password", "kafka.ca.pem"


@dataclass(frozen=True, slots=True)
class Joined:
    """A node in its folder."""

    home: StackHome
    environment: Mapping[str, str]

    @property
    def cluster(self) -> str:
        return self.environment.get("TUTTI_JOINED", "?")

    @property
    def node(self) -> str:
        return self.environment.get("TUTTI_WORKER__NODE", "?")

    @property
    def settings_file(self) -> Path:
        return self.home.root / _SETTINGS

    def process(self) -> ServiceProcess:
        """The worker, kept in the background."""
        return ServiceProcess("worker", self.home, int(self.environment["TUTTI_HTTP_PORT"]), self.environment, kept=True)


def there(home: StackHome) -> Joined | None:
    """The node that this folder holds."""
    try:
        text = (home.root / _SETTINGS).read_text()
    except OSError:
        return None
    return Joined(home, read_environment(text))


def required(home: StackHome) -> Joined:
    """The same. Raises NotFound."""
    if (found := there(home)) is None:
        raise NotFound(f"this machine has joined no cluster (nothing lies in {home.root})")
    return found


def files(home: StackHome, invitation: Invitation, password_file: Path | None) -> dict[str, str]:
    """Write what is secret, or long, into files of its own; returns their settings' names and places. Raises NativeError."""
    home.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    home.root.chmod(0o700)
    found: dict[str, str] = {}
    password = _read(password_file) if password_file else invitation.password.get_secret_value()
    for name, setting, text in (
        (_PASSWORD, "kafka_sasl_password_file", password),
        (_AUTHORITIES, "kafka_ca_file", invitation.authorities),
    ):
        if text:
            write_private(home.root / name, text)
            found[setting] = str(home.root / name)
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeError) as error:
        raise NativeError(f"{path} cannot be read: {getattr(error, 'strerror', None) or 'it is no text'}") from None


def settings_of(invitation: Invitation, of_files: Mapping[str, str], model: ModelNode, node: str) -> dict[str, str]:
    """All that the worker is told, beside what this shell says of it."""
    of_model = model.worker_environment()
    if model.daemon is None:  # somebody's own server: how much it can do is his to say
        of_model = {name: value for name, value in of_model.items() if name in ("TUTTI_WORKER__BACKEND", "TUTTI_WORKER__URL")}
    said = {name: value for name, value in os.environ.items() if name.startswith(KEPT)}
    found = {f"TUTTI_{name.upper()}": value for name, value in {**invitation.kafka(), **of_files}.items()}
    for name, value in invitation.topics.model_dump(mode="json", exclude_defaults=True).items():
        found[f"TUTTI_TOPICS__{name.upper()}"] = value if isinstance(value, str) else json.dumps(value)
    port = PORTS["worker"] if ports.is_free(PORTS["worker"]) else ports.free_ports(1)[0]
    own = {"TUTTI_JOINED": invitation.name, "TUTTI_WORKER__NODE": node, "TUTTI_HTTP_PORT": str(port)}
    return {**of_model, **said, **found, **own}


def node_name(asked: str) -> str:
    """The node's id: as asked for, else as this shell or this machine says. The worker's own rule."""
    return WorkerSettings(node=asked).node_id() if asked else WorkerSettings().node_id()


# The settings file


def write_environment(path: Path, environment: Mapping[str, str]) -> None:
    """As systemd's EnvironmentFile and shells read it. Nobody else may: a key of an endpoint may be in it."""
    lines = [f"{name}={_quoted(value)}" for name, value in sorted(environment.items())]
    write_private(path, "\n".join(["# Written by `tutti join`; `tutti leave` removes it.", *lines, ""]))


def _quoted(value: str) -> str:
    if any(ord(character) < 32 for character in value):
        raise NativeError("a setting of a worker has no line breaks or other control characters")
    return '"' + "".join(f"\\{c}" if c in '\\"`$' else c for c in value) + '"'


def read_environment(text: str) -> dict[str, str]:
    """What `write_environment` wrote."""
    found = {}
    for line in text.split("\n"):
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found[name] = "".join(shlex.split(value.replace("\\$", "$").replace("\\`", "`")))
    return found


def write_private(path: Path, text: str) -> None:
    """Readable by its owner only, from its first byte on; whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    draft.replace(path)


def remove(home: StackHome) -> None:
    """What was written here, and nothing else that may lie in the folder."""
    for name in (_SETTINGS, _PASSWORD, _AUTHORITIES, "lock"):
        (home.root / name).unlink(missing_ok=True)
    for name in ("run", "log", "data"):
        shutil.rmtree(home.root / name, ignore_errors=True)
    try:
        home.root.rmdir()
    except OSError:
        return  # a person's own files lie there
