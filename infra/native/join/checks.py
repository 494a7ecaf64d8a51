"""Before anything is started: Kafka answers, what lies there is a tutti that this version fits, and nobody else has the node's name."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from pydantic import ValidationError

from shared.contracts.base import NodeId
from shared.contracts.credits import CREDITS, Credits
from shared.errors import ConfigurationError, Conflict, LogError, LogUnavailable
from shared.kafka.port import Log, Record, TopicPartition
from shared.processing.provision import check_counts
from shared.tasks import in_time
from shared.topics import Topics

CONNECT_SECONDS = 10.0
LISTEN_SECONDS = 3.0
"""A node that works tells its places every second."""
_MOST_NAMED = 3
T = TypeVar("T")


async def check(log: Log, topics: Topics, servers: str, node: NodeId) -> None:
    """Raises LogUnavailable, ConfigurationError (no cluster of this version, or counted otherwise), Conflict (the name is taken)."""
    try:
        await _check_topics(log, topics, servers)
        if await _works(log, topics, node):
            raise Conflict(
                f"a node {node!r} works in this cluster already; give this one another name (`tutti join --name`), or end that one first"
            )
    except LogError as error:
        raise LogUnavailable(log.trouble or f"Kafka at {servers}: {error.message}") from error


async def _in_time(call: Coroutine[Any, Any, T]) -> T:
    try:
        return await in_time(call, CONNECT_SECONDS)
    except TimeoutError:
        raise LogUnavailable("it does not answer; is it reachable from this machine, by this address?") from None


async def _check_topics(log: Log, topics: Topics, servers: str) -> None:
    admin = await _in_time(log.admin())
    try:
        there = await _in_time(admin.list_topics())
    finally:
        await admin.close()
    needed = [topic.name for topic in topics.all() if "worker" in (*topic.family.written_by, *topic.family.read_by)]
    lacking = [name for name in needed if name not in there]
    if lacking:
        some = ", ".join(lacking[:_MOST_NAMED]) + (f" and {len(lacking) - _MOST_NAMED} more" if len(lacking) > _MOST_NAMED else "")
        raise ConfigurationError(
            f"Kafka at {servers} lacks topics that a worker needs ({some}): it is no cluster of this version of tutti, or has other "
            "settings of topics; ask its administrator for a token, or to run `tutti topics create`"
        )
    try:
        check_counts(topics, there)
    except ConfigurationError as error:
        raise ConfigurationError(f"this cluster counts its topics otherwise ({error.message}); ask its administrator for a token") from None


async def _works(log: Log, topics: Topics, node: NodeId) -> bool:
    """Whether places of this node are told now."""
    consumer = await _in_time(log.consumer(client_id="tutti-join", fetch_max_wait_ms=50))
    try:
        partition = TopicPartition(topics.credits, 0)
        consumer.assign([partition])
        ends = await _in_time(consumer.end_offsets([partition]))
        consumer.seek(partition, ends[partition])
        until = asyncio.get_running_loop().time() + LISTEN_SECONDS
        while (left := until - asyncio.get_running_loop().time()) > 0:
            for records in (await consumer.poll(timeout_seconds=left)).values():
                if any(_is_of(record, node) for record in records):
                    return True
        return False
    finally:
        await consumer.close()


def _is_of(record: Record, node: NodeId) -> bool:
    try:
        said = CREDITS.validate_json(record.value or b"")
    except ValidationError:
        return False
    return isinstance(said, Credits) and said.node == node
