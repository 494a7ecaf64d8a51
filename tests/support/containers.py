"""The stores and Kafka of docker-compose.yml, each in a container by testcontainers, for the fixtures of tests/support/native.py.

Asked for by TUTTI_TEST_CONTAINERS, which names compose files, separated by colons: `docker-compose.yml`; a later one's images go before.
What a container runs is what compose would run: image, command, settings, user, memory.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from tests.support.chart import with_defaults

_VALUE = re.compile(r"\$\{(\w+):-([^}]*)\}")


def asked() -> bool:
    """Whether fixtures are to use containers."""
    return bool(os.environ.get("TUTTI_TEST_CONTAINERS"))


def definition(service: str, **values: str) -> dict[str, Any]:
    """Of compose's `service`, with these values where it asks for them."""
    merged: dict[str, Any] = {}
    for file in os.environ["TUTTI_TEST_CONTAINERS"].split(":"):
        text = _VALUE.sub(lambda found: values.get(found[1], found[2]), Path(file).read_text())
        merged = with_defaults(merged, yaml.load(text, _Loader).get("services", {}).get(service, {}))  # noqa: S506  (a SafeLoader)
    return merged


class _Loader(yaml.SafeLoader):
    """Passes over compose's own tags, as `!override`."""


def _nothing(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> None:
    """Of a tag that is not YAML's."""


_Loader.add_multi_constructor("!", _nothing)


@contextmanager
def running(service: str, port: int, host_port: int, **values: str) -> Iterator[None]:
    """Its `port` is `host_port` of 127.0.0.1. It may not answer yet."""
    os.environ.setdefault("TESTCONTAINERS_RYUK_DISABLED", "true")  # one more image; containers end here, whatever happened
    from docker.types.services import Mount
    from testcontainers.core.container import DockerContainer

    of = definition(service, **values)
    one = DockerContainer(of["image"]).with_envs(**_texts(of.get("environment", {})))
    one.ports = {str(port): ("127.0.0.1", host_port)}  # type: ignore[dict-item]  # its own way would open it to the network
    volumes = [Mount(volume.split(":")[1], None, type="volume") for volume in of.get("volumes", ())]  # gone with it
    if "command" in of:
        one = one.with_command(of["command"])
    bounds = {"mem_limit": of["mem_limit"], "user": of.get("user"), "read_only": of.get("read_only", False)}
    one = one.with_kwargs(hostname=service, mounts=volumes, **bounds)
    for folder in of.get("tmpfs", ()):
        one = one.with_tmpfs_mount(folder)
    with one:
        yield


def _texts(environment: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) for name, value in environment.items()}
