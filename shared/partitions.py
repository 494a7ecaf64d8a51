"""Partitions: how many the topics have, as the settings say, and which of them a record goes to. Pure. Read it by `shared.topics`."""

from __future__ import annotations

from typing import Annotated
from zlib import crc32

from pydantic import BaseModel, Field, StringConstraints

from shared.contracts.base import TOPIC, Capability
from shared.contracts.chat import TOOLS
from shared.murmur import place

AGENTS = ("research", "reasoning", "creative", "code", "critic")
"""What an agent may be; any chat model can be asked to."""
Partitions = Annotated[int, Field(ge=1, le=10_000)]
ReplyTopics = Annotated[str, StringConstraints(pattern=rf"^{TOPIC}\*?$", max_length=250)]


class TopicSettings(BaseModel):
    """Partition counts and replication; the same for every process of a cluster."""

    prefix: str = Field(default="", pattern=r"^[A-Za-z0-9_-]{0,40}\.?$", max_length=41)
    """Before the name of each topic: several clusters on one Kafka."""
    home_partitions: Partitions = 6
    """Of jobs, outcomes, events: so many planners can share the work. Never changed once there are jobs."""
    steps_partitions: Partitions = 2
    """Of `chat` and `embed`: upper bound of routers that share one and a class. Every fetch of a router pays for each (decision 0034)."""
    agent_steps_partitions: Partitions = 1
    """Of every other capability (decision 0037). Both may grow."""
    work_partitions: Partitions = 16
    """Mailboxes, one a node: as many as nodes there may ever be at once; may grow."""
    replies_partitions: Partitions = 16
    """Ingresses beyond them share one, and read what is for the others."""
    other_partitions: Partitions = 6
    """Of every other topic."""
    replication: int = Field(default=1, ge=1, le=100)
    """Copies of each record, 3 where nothing may be lost."""
    min_insync_replicas: int = Field(default=1, ge=1, le=100)
    """Copies that must be written before a record is acknowledged: 2 of 3."""
    capabilities: tuple[Capability, ...] = Field(default=("chat", "embed", *AGENTS, TOOLS), min_length=1, max_length=100)
    """What steps may ask of nodes: three topics each."""
    reply_topics: tuple[ReplyTopics, ...] = Field(default=("replies", "replies.*"), max_length=100)
    """Topics that a reply may go to; a trailing `*` matches any ending."""


def model_for(capability: str) -> str:
    """The kind of model that serves it, as mailboxes have it: an embedder or one that chats. Mailboxes are a node's own, so agents have
    none (decision 0037), nor have tools, whose nodes read what others get as chats.
    """
    return "embed" if capability == "embed" else "chat"


def steps_partition(tenant: str, home: int, partitions: int) -> int:
    """(hash(tenant) + home) mod n: by home and not by step, so that what a round of one home asks for is one batch (decision 0004)."""
    return (crc32(tenant.encode()) + home) % partitions


def partition_of(key: bytes, partitions: int) -> int:
    """Our partitioner for keyed records: Kafka's own, so that it does not matter who writes a record."""
    return place(key, partitions)


def reply_partition(instance: str, partitions: int) -> int:
    """Where an instance that waits for replies has them."""
    return crc32(instance.encode()) % partitions
