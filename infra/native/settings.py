"""What a person may change about the native stack: environment variables with prefix `TUTTI_`.

For example `TUTTI_KAFKA_PORT=29092 tutti up`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from infra.native.paths import StackHome
from shared.contracts.base import Label
from shared.settings import KafkaSettings


class NativeSettings(KafkaSettings):
    """Ports and directories of the components on this machine."""

    home: Path = Path(".tutti")
    """Data, logs and pid files."""
    cache: Path = Path("~/.cache/tutti")
    """Downloads and builds; shared by all checkouts."""
    kafka_servers: str = ""
    """A broker that runs elsewhere: then none is started here."""
    kafka_port: int = Field(default=19092, ge=1, le=65_535)
    """Of the broker that is started here."""
    kafka_controller_port: int = Field(default=19093, ge=1, le=65_535)
    """Of its own controller."""
    redis_port: int = Field(default=16379, ge=1, le=65_535)
    """Of the Redis that keeps status and limits."""
    redis_cache_port: int = Field(default=16380, ge=1, le=65_535)
    """Of the Redis that the cache may evict from."""
    cache_store: str = Field(default="", validation_alias="TUTTI_CACHE__STORE")
    """An evicting Redis that runs elsewhere: then none is started here."""
    mongo_port: int = Field(default=17017, ge=1, le=65_535)
    """Of MongoDB, or its stand-in."""
    sink_store: str = Field(default="", validation_alias="TUTTI_SINK__STORE")
    """A MongoDB that runs elsewhere: then none is started here."""
    ingress_url: str = Field(default="", validation_alias="TUTTI_SINK__INGRESS_URL")
    """Where browsers find the ingress, if not on this machine."""
    node_port: int = Field(default=11435, ge=1, le=65_535)
    """Of a model node that is started here: Ollama, the embedded node or the simulator."""

    announce: Label = ""
    """The cluster's name, to announce it on this network (multicast DNS); not announced when empty."""
    kafka_open_host: Label = ""
    """An address of this machine at which others may use Kafka, too. Nobody is asked who he is there: for a network of your own only."""
    kafka_open_port: int = Field(default=19_094, ge=1, le=65_535)
    """Of the listener for other machines."""
    mdns_interfaces: Label = ""
    """Addresses of the interfaces for announcing and finding clusters, comma-separated; all when empty."""

    http_ports: dict[str, int] = Field(default_factory=dict)
    """Port of each service, for example TUTTI_HTTP_PORTS__INGRESS=8081; the registry's otherwise."""
    node: Literal["auto", "running", "ollama", "embedded", "simulator"] = "auto"
    """Which model node; `auto` takes the first that is there (node.py)."""
    no_apt: Label = ""
    """Set to anything: apt-get is never called, neither by `make packages` nor for Python's venv module."""

    @property
    def stack_home(self) -> StackHome:
        """The data directory, absolute."""
        return StackHome(self.home.expanduser().resolve())

    @property
    def cache_directory(self) -> Path:
        """The cache directory, absolute."""
        return self.cache.expanduser().resolve()
