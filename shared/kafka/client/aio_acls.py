"""Access control lists: what a principal may do. CreateAcls version 1, which aiokafka 0.14 does not speak; it repeats without harm."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NoError, for_code
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Array, Int8, Int16, Int32, Schema, String

from shared.errors import ConfigurationError
from shared.kafka.client.aio_topics import ask_any

_ALLOW = 3
CLUSTER = "kafka-cluster"
"""The name of the one resource of its kind."""


class AclResource(IntEnum):
    """Kafka's numbers."""

    TOPIC = 2
    GROUP = 3
    CLUSTER = 4


class AclOperation(IntEnum):
    """Kafka's numbers. Who may read or write may describe."""

    READ = 3
    WRITE = 4
    CREATE = 5
    ALTER = 7
    DESCRIBE = 8
    DESCRIBE_CONFIGS = 10


class AclMatch(IntEnum):
    """Kafka's numbers: the resource of this name, or all whose names begin so."""

    LITERAL = 3
    PREFIXED = 4


class Acl(NamedTuple):
    """`principal` may do `operation` from anywhere."""

    principal: str
    operation: AclOperation
    resource: AclResource
    name: str
    pattern: AclMatch = AclMatch.LITERAL


class _Response(Response):
    API_KEY = 30
    API_VERSION = 1
    SCHEMA = Schema(("throttle_time_ms", Int32), ("results", Array(("error_code", Int16), ("error_message", String("utf-8")))))


class _Struct(RequestStruct):
    API_KEY = 30
    API_VERSION = 1
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        (
            "creations",
            Array(
                ("resource_type", Int8),
                ("resource_name", String("utf-8")),
                ("resource_pattern_type", Int8),
                ("principal", String("utf-8")),
                ("host", String("utf-8")),
                ("operation", Int8),
                ("permission_type", Int8),
            ),
        )
    )


class _Request(Request[_Struct]):
    API_KEY = 30

    def __init__(self, acls: Sequence[Acl]) -> None:
        self._acls = acls

    def build(self, request_struct_class: type[_Struct]) -> _Struct:
        return request_struct_class(
            [(acl.resource, acl.name, acl.pattern, acl.principal, "*", acl.operation, _ALLOW) for acl in self._acls],
        )


async def create_acls(client: AIOKafkaClient, acls: Sequence[Acl]) -> None:
    """Add them to those that are there. Raises ConfigurationError where the cluster keeps none or we may not, and what aiokafka raises."""
    answer = await ask_any(client, _Request(acls))
    for code, message in answer.results:
        if for_code(code) is not NoError:
            raise ConfigurationError(f"Kafka made no ACLs: {message or for_code(code).__name__}")
