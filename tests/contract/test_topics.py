"""The topic registry and the contracts agree: every name is a class, every class has its place."""

from __future__ import annotations

import json
from typing import Any

from infra.schemas.messages import contracts, messages, schema
from shared.services import PORTS
from shared.topics import FAMILIES

OUTSIDE = {"any producer", "anyone", "CLI"}


def test_every_message_of_the_registry_is_a_contract() -> None:
    """`Family.messages` spells class names."""
    named = {name for family in FAMILIES for name in family.messages}
    assert named <= set(contracts())


def test_every_contract_is_a_message_or_a_part_of_one() -> None:
    """A class that no topic carries, directly, inside another or as the base of one, is dead or forgotten in the registry."""
    parts = {name for kind in messages().values() for name in schema(kind).get("$defs", {})}
    parts |= {base.__name__ for kind in messages().values() for base in kind.__mro__}
    assert set(contracts()) - set(messages()) <= parts


def test_every_message_says_its_type_where_a_topic_carries_several() -> None:
    """A reader of a topic with several messages tells them apart by `type`; jobs topics use the header, the registry its keys; bodies of
    blobs are known by who names them.
    """
    for family in FAMILIES:
        if len(family.messages) < 2 or family.pattern.startswith(("jobs.", "registry", "blobs")):
            continue
        types = [_type_of(schema(contracts()[name])) for name in family.messages]
        assert None not in types, family.pattern
        assert len(set(types)) == len(types), family.pattern


def _type_of(body: dict[str, Any]) -> str | None:
    constant = body["properties"].get("type", {}).get("const")
    return None if constant is None else json.dumps(constant)


def test_every_topic_has_a_writer_and_a_reader_that_exist() -> None:
    """Readers and writers are services of this tree, or the outside world."""
    for family in FAMILIES:
        assert family.written_by, family.pattern
        assert family.read_by, family.pattern
        assert {*family.written_by, *family.read_by} <= set(PORTS) | OUTSIDE, family.pattern


def test_every_service_reads_and_writes_something() -> None:
    """A service talks through Kafka only, so the registry shows all it does."""
    for service in PORTS:
        assert any(service in family.read_by for family in FAMILIES), service
        assert any(service in family.written_by for family in FAMILIES) or service == "sink", service  # it only keeps


def test_ports_are_distinct() -> None:
    """All services run side by side on one machine."""
    assert len(set(PORTS.values())) == len(PORTS)
