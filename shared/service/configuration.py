"""Settings of the shell itself, and a readable message for every wrong setting of any service."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from random import Random
from typing import Annotated

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings

from shared.contracts.base import Label
from shared.contracts.bounds import in_words
from shared.errors import ConfigurationError
from shared.services import listed
from shared.settings import ClusterSettings
from shared.tls import Files

Port = Annotated[int, Field(ge=0, le=65_535)]


class ShellSettings(ClusterSettings):
    """Where the HTTP servers listen, besides what every process shares."""

    http_port: Port | None = None
    """Port of a process that runs one service; 0 lets the system choose (the log line `listening` tells it)."""
    http_ports: dict[Label, Port] = Field(default_factory=dict, max_length=100)
    """Port of each service where a process runs several, for example TUTTI_HTTP_PORTS__INGRESS=8081."""
    tls: dict[Label, Files] = Field(default_factory=dict, max_length=100)
    """Services that speak TLS only: TUTTI_TLS__INGRESS__CERT_FILE and TUTTI_TLS__INGRESS__KEY_FILE. Health and metrics go the same way."""


def ports_of(settings: ShellSettings, names: Sequence[str]) -> dict[str, int]:
    """The port of each service. Raises ConfigurationError when one port is set for several services. `worker-x` beside `worker` is another
    node of the same one: what they measure is told at its port, and theirs the system chooses.
    """
    if settings.http_port is not None:
        if any(not name.startswith(f"{names[0]}-") for name in names[1:]):
            raise ConfigurationError("TUTTI_HTTP_PORT is for one service in a process; use TUTTI_HTTP_PORTS__<SERVICE> for several")
        return {name: settings.http_port if name == names[0] else 0 for name in names}
    ports = {service.name: service.port for service in listed()}
    return {name: settings.http_ports.get(name, ports.get(name, 0)) for name in names}


def listen(service: str, host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigurationError when the port is taken or the address is not this machine's."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        hint = f"TUTTI_HTTP_PORT, TUTTI_HTTP_PORTS__{service.upper()} and TUTTI_HOST choose another"
        raise ConfigurationError(f"{service} cannot listen on {host}:{port} ({error.strerror}); {hint}") from error


def instance_name(random: Random, process_id: int) -> str:
    """host-pid-random: unique among all processes of a cluster, and an allowed client id."""
    host = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname().split(".")[0])[:40].strip("-") or "host"
    return f"{host}-{process_id}-{random.getrandbits(24):06x}"


def problems(error: ValidationError) -> list[str] | None:
    """One line for each wrong setting, named as its environment variable; values are left out, they may be secrets.

    None when the error is not about settings.
    """
    prefix = next((str(kind.model_config.get("env_prefix", "")) for kind in _settings() if kind.__name__ == error.title), None)
    if prefix is None:
        return None
    return [f"{prefix}{'__'.join(str(part) for part in item['loc'])}".upper() + f": {in_words(item['msg'])}" for item in error.errors()]


def _settings(kind: type[BaseSettings] = BaseSettings) -> Iterator[type[BaseSettings]]:
    for child in kind.__subclasses__():
        yield child
        yield from _settings(child)
