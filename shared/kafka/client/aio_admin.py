"""Administration through aiokafka."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, RecordsToDelete
from aiokafka.admin import NewTopic as TheirNewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.structs import TopicPartition as TheirTopicPartition

from shared.errors import ConfigurationError, LogError
from shared.kafka.client.aio_acls import Acl, create_acls
from shared.kafka.client.aio_closing import stop_admin
from shared.kafka.client.aio_errors import FOREIGN, in_our_words
from shared.kafka.client.aio_offsets import check_offsets
from shared.kafka.client.aio_topics import topics_there
from shared.kafka.port import NewTopic, TopicInfo, TopicPartition
from shared.kafka.settings import CALL_SECONDS, UNTOLD_SESSION_SECONDS, milliseconds

_REFUSED = (
    kafka.InvalidPartitionsError,
    kafka.InvalidReplicationFactorError,
    kafka.InvalidConfigurationError,
    kafka.InvalidTopicError,
    kafka.PolicyViolationError,
)
_SHORTEST_SESSION = "group.min.session.timeout.ms"


class AioAdmin:
    """Implements `port.Admin`."""

    def __init__(self, client: AIOKafkaAdminClient) -> None:
        self._client = client
        self._closed = False
        self._coordinators: dict[str, int] = {}
        """Of groups, until one of them refuses."""

    async def create_topics(self, topics: Sequence[NewTopic]) -> list[str]:
        """Raises ConfigurationError when the cluster refuses a topic, for example too few brokers for its replication."""
        if not topics:
            return []
        wanted = [TheirNewTopic(t.name, t.partitions, t.replication, topic_configs=dict(t.config)) for t in topics]
        with in_our_words():
            response: Any = await self._client.create_topics(wanted, timeout_ms=milliseconds(CALL_SECONDS))
        created = []
        for name, code, *rest in response.topic_errors:
            error = kafka.for_code(code)
            if error is kafka.NoError:
                created.append(name)
            elif error in _REFUSED:
                raise ConfigurationError(f"topic {name} was refused: {rest[0] if rest and rest[0] else error.__name__}")
            elif error is not kafka.TopicAlreadyExistsError:
                raise LogError(f"topic {name} was not created: {error.__name__}")
        return created

    async def add_partitions(self, counts: Mapping[str, int]) -> None:
        """Raises ConfigurationError when the cluster refuses one."""
        if not counts:
            return
        wanted = {topic: NewPartitions(count) for topic, count in counts.items()}
        with in_our_words():
            response: Any = await self._client.create_partitions(wanted, timeout_ms=milliseconds(CALL_SECONDS))
        for name, code, *rest in response.topic_errors:
            error = kafka.for_code(code)
            if error is not kafka.NoError:
                kind = ConfigurationError if error in _REFUSED else LogError
                raise kind(f"topic {name} did not grow: {rest[0] if rest and rest[0] else error.__name__}")

    async def list_topics(self) -> dict[str, TopicInfo]:
        with in_our_words():
            return await topics_there(self._client._client)  # noqa: SLF001

    async def topic_configs(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        if not names:
            return {}
        with in_our_words():
            answers: Any = await self._client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
        found = [resource for answer in answers for resource in answer.resources]
        # (error, message, kind, name, entries), an entry: (name, value, ...)
        return {name: {key: value for key, value, *_ in entries} for error, _, _, name, entries in found if not error}

    async def shortest_session_seconds(self) -> float:
        """The shortest session timeout that every broker allows to members of groups; Kafka's default where one of them does not say."""
        brokers = [broker.nodeId for broker in self._client._client.cluster.brokers()]  # noqa: SLF001
        wanted = [ConfigResource(ConfigResourceType.BROKER, str(broker), {_SHORTEST_SESSION: ""}) for broker in brokers]
        try:
            async with asyncio.timeout(CALL_SECONDS):
                answers: Any = await self._client.describe_configs(wanted)
        except (*FOREIGN, TimeoutError):
            return UNTOLD_SESSION_SECONDS
        told = [int(value) for answer in answers for _, _, _, _, entries in answer.resources for _, value, *_ in entries if value]
        return max(told) / 1000 if len(told) == len(brokers) else UNTOLD_SESSION_SECONDS

    async def create_acls(self, acls: Sequence[Acl]) -> None:
        """Raises ConfigurationError where the cluster keeps none, or we may not make them. Of real clusters only."""
        with in_our_words():
            await create_acls(self._client._client, acls)  # noqa: SLF001

    async def delete_topics(self, names: Sequence[str]) -> None:
        """Unknown names are passed over."""
        if names:
            with in_our_words():
                await self._client.delete_topics(list(names), timeout_ms=milliseconds(CALL_SECONDS))

    async def delete_records(self, before: Mapping[TopicPartition, int]) -> None:
        if before:
            wanted = {TheirTopicPartition(*tp): RecordsToDelete(offset) for tp, offset in before.items()}
            with in_our_words():
                await self._client.delete_records(wanted, timeout_ms=milliseconds(CALL_SECONDS))

    async def group_offsets(self, group: str) -> dict[TopicPartition, int]:
        with in_our_words():
            known = self._coordinators.pop(group, None)
            coordinator = await self._client.find_coordinator(group) if known is None else known
            # Not the client's own call: it overlooks the error of a coordinator that has not read the group yet.
            response: Any = await self._client._send_request(OffsetFetchRequest(group, None), coordinator)  # noqa: SLF001
            check_offsets(response)
            self._coordinators[group] = coordinator
        parts = ((topic, part) for topic, parts in response.topics for part in parts)
        return {TopicPartition(topic, number): offset for topic, (number, offset, *_) in parts if offset >= 0}

    async def cluster_id(self) -> str:
        with in_our_words():
            return str((await self._client.describe_cluster())["cluster_id"])

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await stop_admin(self._client)
