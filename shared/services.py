"""The one list of services: the command line, the launcher, the compose file, documents and tests derive from it."""

from __future__ import annotations

from typing import NamedTuple


class ServiceEntry(NamedTuple):
    """A service that exists. `port`: of its health, metrics and, where it has one, its API. `grouped`: it reads in a consumer group."""

    name: str
    port: int
    grouped: bool = False


SERVICES = (
    ServiceEntry("planner", 9101, grouped=True),
    ServiceEntry("router", 9102, grouped=True),
    ServiceEntry("worker", 9103),
    ServiceEntry("delay", 9104, grouped=True),
    ServiceEntry("ingress", 8080),
)
"""In the order in which they start: the ingress last, so that it is ready only when there is somebody to answer."""

NAMES = tuple(service.name for service in SERVICES)
PORTS = {service.name: service.port for service in SERVICES}


def group_of(service: str, prefix: str) -> str:
    """The consumer group of a service (of a worker: of its node, `worker-<node>`) in the cluster whose topics have this prefix."""
    return f"{prefix}tutti-{service}"
