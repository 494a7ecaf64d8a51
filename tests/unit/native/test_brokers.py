"""Several brokers as one Kafka: what each is configured with; and one alone, as before."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.native.brokers import Brokers
from infra.native.kafka import Kafka
from infra.native.paths import StackHome


def configured(broker: Kafka, home: Path) -> dict[str, str]:
    """Its properties; it counts as formatted."""
    marked = home / "data" / "kafka" / "logs" / "meta.properties"
    marked.parent.mkdir(parents=True)
    marked.touch()
    broker._configure("java", Path("jars"))
    text = broker._properties.read_text()
    assert "@" not in "".join(line for line in text.splitlines() if "voters" not in line and not line.startswith("#"))
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))


def test_three_know_one_another_and_keep_three_copies(tmp_path: Path) -> None:
    """Each is a voter, has a port and a number of its own, and all belong to one cluster; two must have what is acknowledged."""
    several = Brokers.beside(tmp_path, tmp_path, 3)
    found = {name: configured(broker, tmp_path / name) for name, broker in several.one.items()}
    voters = {properties["controller.quorum.voters"] for properties in found.values()}
    assert voters == {",".join(f"{name}@127.0.0.1:{broker.controller_port}" for name, broker in several.one.items())}
    assert [properties["node.id"] for properties in found.values()] == ["1", "2", "3"]
    assert len({broker.cluster_id for broker in several.one.values()}) == 1
    ports = [port for broker in several.one.values() for port in (broker.port, broker.controller_port)]
    assert len(set(ports)) == 6
    assert several.servers.count(",") == 2
    for properties in found.values():
        assert "controller.quorum.bootstrap.servers" not in properties
        assert (properties["offsets.topic.replication.factor"], properties["min.insync.replicas"]) == ("3", "2")
        assert properties["transaction.state.log.min.isr"] == "2"


@pytest.mark.parametrize("name", ["offsets.topic.replication.factor", "min.insync.replicas", "default.replication.factor"])
def test_one_alone_keeps_one_copy(tmp_path: Path, name: str) -> None:
    properties = configured(Kafka(StackHome(tmp_path), tmp_path), tmp_path)
    assert properties[name] == "1"
    assert properties["controller.quorum.bootstrap.servers"] == "127.0.0.1:19093"
    assert "controller.quorum.voters" not in properties
