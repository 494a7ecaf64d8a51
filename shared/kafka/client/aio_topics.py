"""Topics as the cluster has them, with their ids: Metadata version 12, which aiokafka 0.14 does not speak.

A topic that is deleted and made anew keeps its name and begins at offset 0. Only the id tells the two apart.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from collections.abc import Collection
from io import BytesIO
from typing import Any

from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError, NoError, for_code
from aiokafka.protocol.abstract import AbstractType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import Boolean, CompactArray, CompactString, Int16, Int32, Schema, TaggedFields

from shared.kafka.port import TopicInfo

_UUID_BYTES = 16
_NO_ID = bytes(_UUID_BYTES)


class _Uuid(AbstractType[bytes]):
    """Sixteen bytes as they are."""

    @classmethod
    def encode(cls, value: bytes) -> bytes:
        return value

    @classmethod
    def decode(cls, data: BytesIO) -> bytes:
        return data.read(_UUID_BYTES)


_PARTITION = Schema(
    ("error_code", Int16),
    ("partition", Int32),
    ("leader", Int32),
    ("leader_epoch", Int32),
    ("replicas", CompactArray(Int32)),
    ("isr", CompactArray(Int32)),
    ("offline_replicas", CompactArray(Int32)),
    ("tags", TaggedFields),
)


class _Response(Response):
    API_KEY = 3
    API_VERSION = 12
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "brokers",
            CompactArray(
                ("node_id", Int32),
                ("host", CompactString("utf-8")),
                ("port", Int32),
                ("rack", CompactString("utf-8")),
                ("tags", TaggedFields),
            ),
        ),
        ("cluster_id", CompactString("utf-8")),
        ("controller_id", Int32),
        (
            "topics",
            CompactArray(
                ("error_code", Int16),
                ("topic", CompactString("utf-8")),
                ("topic_id", _Uuid),
                ("is_internal", Boolean),
                ("partitions", CompactArray(_PARTITION)),
                ("authorized_operations", Int32),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _Struct(RequestStruct):
    API_KEY = 3
    API_VERSION = 12
    FLEXIBLE_VERSION = True
    RESPONSE_TYPE = _Response
    SCHEMA = Schema(
        ("topics", CompactArray(("topic_id", _Uuid), ("topic", CompactString("utf-8")), ("tags", TaggedFields))),
        ("allow_auto_topic_creation", Boolean),
        ("include_topic_authorized_operations", Boolean),
        ("tags", TaggedFields),
    )


class _Request(Request[_Struct]):
    API_KEY = 3

    def __init__(self, names: Collection[str] | None) -> None:
        self._names = names

    def build(self, request_struct_class: type[_Struct]) -> _Struct:
        topics: list[tuple[bytes, str, dict[int, bytes]]] | None
        topics = None if self._names is None else [(_NO_ID, name, {}) for name in self._names]
        return request_struct_class(topics, False, False, {})


async def topics_there(client: AIOKafkaClient, names: Collection[str] | None = None) -> dict[str, TopicInfo]:
    """Those of `names` (None: all that are not Kafka's own) that exist. Raises what aiokafka raises; a broker older than 2.8 is refused."""
    answer = await ask_any(client, _Request(names))
    found = {}
    for code, name, topic_id, is_internal, partitions, *_ in answer.topics:
        if for_code(code) is NoError and (names is not None or not is_internal):
            found[name] = TopicInfo(name, len(partitions), urlsafe_b64encode(topic_id).decode().rstrip("="))
    return found


async def ask_any(client: AIOKafkaClient, request: Request[Any]) -> Any:
    """The answer of the first broker that gives one: one that is lost stays among those that the client knows for a while. Raises what
    aiokafka raises.
    """
    last: Exception = NodeNotReadyError("no broker is known")
    first = client.get_random_node()
    for node in sorted((broker.nodeId for broker in client.cluster.brokers()), key=lambda node: (node != first, node)):
        try:
            return await client.send(node, request, group=ConnectionGroup.COORDINATION)
        except (NodeNotReadyError, KafkaConnectionError) as error:
            last = error
    raise last
