"""The one list of services: the command line, the launcher, the compose file, documents and tests derive from it."""

from __future__ import annotations

import re
from typing import NamedTuple

from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.contracts.base import Sentence
from shared.errors import ConfigurationError

_ENTRY = re.compile(r"([a-z_]\w*(?:\.[a-z_]\w*)+):(\d{1,5})", re.ASCII)


class ListedService(NamedTuple):
    """A service that exists. `port`: of its health, metrics and, where it has one, its API. `grouped`: it reads in a consumer group."""

    name: str
    port: int
    grouped: bool = False
    package: str = ""
    """Where it lies, of one from outside."""
    aside: bool = False
    """No job waits for it: clusters of tests and measurements have one only where it is asked for."""

    @property
    def module(self) -> str:
        """`<module>.app` has `build`; `python -m <module>` runs it."""
        return self.package or f"services.{self.name}"


SERVICES = (
    ListedService("planner", 9101, grouped=True),
    ListedService("router", 9102, grouped=True),
    ListedService("worker", 9103),
    ListedService("delay", 9104, grouped=True),
    ListedService("sink", 9105, grouped=True, aside=True),
    ListedService("critic", 9107, grouped=True, aside=True),
    ListedService("cache", 9106, grouped=True, aside=True),
    ListedService("ingress", 8080),
)
"""In the order in which they start: the ingress last, so that it is ready only when there is somebody to answer."""

NAMES = tuple(service.name for service in SERVICES)
PORTS = {service.name: service.port for service in SERVICES}


class AddedServices(BaseSettings):
    """What an operator adds to the list."""

    model_config = SettingsConfigDict(env_prefix="TUTTI_", extra="ignore", frozen=True)

    services: Sentence = ""
    """Each with its port, `shop.counter:9110` for the package `shop.counter`, separated by commas: `tutti run` and `tutti up` know them."""


def listed() -> tuple[ListedService, ...]:
    """All services of this machine: those above, and what TUTTI_SERVICES adds (AddedServices). Raises ConfigurationError."""
    found = {service.name: service for service in SERVICES}
    for text in filter(None, map(str.strip, AddedServices().services.split(","))):
        entry = _ENTRY.fullmatch(text)
        if entry is None:
            raise ConfigurationError(f"TUTTI_SERVICES: {text!r} is no package with a port, as shop.counter:9110")
        name, port = entry[1].rpartition(".")[2], int(entry[2])
        if port > 65_535 or name in found or port in {service.port for service in found.values()}:
            raise ConfigurationError(
                f"TUTTI_SERVICES: {text!r} has a name or a port that another service has, or a port that does not exist"
            )
        found[name] = ListedService(name, port, grouped=True, package=entry[1])
    return tuple(found.values())


def group_of(service: str, prefix: str) -> str:
    """The consumer group of a service (of a worker: of its node, `worker-<node>`) in the cluster whose topics have this prefix."""
    return f"{prefix}tutti-{service}"
