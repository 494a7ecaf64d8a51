"""The one registry of topics. Creation, schemas, documents and diagrams are derived from it; nothing else spells a topic name.

`Topics` holds the names of one cluster: a prefix keeps several apart on one broker (tests). `FAMILIES` is the list itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, get_args

from shared.contracts.base import CLASSES, RECORD_BYTES, PriorityClass
from shared.contracts.event import Event
from shared.contracts.outcome import Outcome
from shared.partitions import AGENTS, TopicSettings, model_for, partition_of, reply_partition, steps_partition

__all__ = ["AGENTS", "FAMILIES", "Family", "Topic", "TopicSettings", "Topics", "model_for", "partition_of", "steps_partition"]

GROWS = frozenset({"steps", "work", "replies"})
"""Counts that may be raised while everything runs. Homes never may: an id would get another one; of keyed topics a key would move."""
Count = Literal["home", "steps", "work", "replies", "one", "other"]
Cleanup = Literal["delete", "compact", "compact,delete"]

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

TIMESTAMP_TYPE = "LogAppendTime"
"""Of every topic: by its sender's clock a record may be past retention when it arrives, or stay for years (decision 0016)."""

SEEN_SECONDS = 30.0
"""Within this time every service has looked at the topics (every 10 s, `shared.processing.topic_news`)."""

BLOB_DAYS = 14
"""How long a blob lies. What is still needed is written again before: a live job's input at half of it, a memory at a quarter."""

DELAY_TIERS: tuple[tuple[str, float], ...] = (
    ("1s", 1.0), ("5s", 5.0), ("30s", 30.0), ("2m", 120.0), ("10m", 600.0), ("1h", 3_600.0), ("6h", 21_600.0), ("1d", 86_400.0),
)  # fmt: skip
"""(name, seconds), shortest first."""


@dataclass(frozen=True, slots=True)
class Family:
    """Topics of one kind. `{}` in a pattern is filled by class, capability, model or tier."""

    pattern: str
    key: str
    count: Count
    cleanup: Cleanup
    retention_ms: int | None
    written_by: tuple[str, ...]
    read_by: tuple[str, ...]
    messages: tuple[str, ...]
    about: str
    config: tuple[tuple[str, str], ...] = ()


def _members(union: Any) -> tuple[str, ...]:
    return tuple(kind.__name__ for kind in get_args(get_args(union)[0]))


_ALL = ("ingress", "planner", "router", "worker", "delay", "critic", "cache", "sink", "CLI")
_SHREDDED = (("segment.ms", "600000"), ("delete.retention.ms", str(30 * DAY_MS)), ("max.compaction.lag.ms", "3600000"))
_KEPT = (("segment.ms", "600000"), ("delete.retention.ms", str(DAY_MS)))
"""Of topics that are read whole: what is superseded goes soon."""
_DECLARED = ("Schedule", "TenantLimits", "Prompt", "Agent", "Profile", "Tool", "ModelCard", "Moved", "ApiKey", "Erased", "Maintenance")
FAMILIES: tuple[Family, ...] = (
    Family(
        "jobs.{class}",
        "public job id",
        "home",
        "delete",
        7 * DAY_MS,
        ("ingress", "any producer", "delay", "planner", "cache"),
        ("planner",),
        ("Job", "HeldJob", "CancelRequested"),
        "What users ask for. A job is at home where murmur2 of its public id says; a record that lies elsewhere is sent on. "
        "On `jobs.batch` also comparisons of answers with their baselines, and lines of batches.",
    ),
    Family(
        "steps.{capability}.{class}",
        "explicit: tenant and home",
        "steps",
        "delete",
        7 * DAY_MS,
        ("planner", "delay"),
        ("router",),
        ("Step",),
        "Attempts that wait for a node.",
    ),
    Family(
        "work.{model}",
        "explicit: the node's mailbox",
        "work",
        "delete",
        DAY_MS,
        ("router", "planner"),
        ("worker",),
        ("Step",),
        "Attempts given to one node.",
    ),
    Family(
        "outcomes",
        "explicit: home",
        "home",
        "delete",
        7 * DAY_MS,
        ("worker", "router", "ingress", "planner", "critic", "cache"),
        ("planner", "worker"),
        _members(Outcome),
        "What came of attempts; cancels; what people decide; tenants' budgets; turns of conversations; batches, and ends of their lines.",
    ),
    Family(
        "job-events",
        "explicit: home",
        "home",
        "delete",
        30 * DAY_MS,
        ("planner",),
        ("planner", "ingress", "sink", "cache"),
        _members(Event),
        "The history of every job: the only truth.",
        (("retention.bytes", "-1"),),
    ),
    Family("critiques", "step id", "other", "delete", DAY_MS, ("planner",), ("critic",), ("Step",), "Texts to be judged without a model."),
    Family(
        "results",
        "job id",
        "other",
        "compact,delete",
        7 * DAY_MS,
        ("planner",),
        ("ingress", "anyone"),
        ("Result",),
        "The one accepted end of each job.",
    ),
    Family(
        "callbacks",
        "job id",
        "other",
        "delete",
        7 * DAY_MS,
        ("delay",),
        ("ingress",),
        ("Delivery",),
        "Ends that a callback could not be told at once, when they are to be tried again.",
    ),
    Family(
        "replies",
        "explicit: chosen by who waits",
        "replies",
        "delete",
        HOUR_MS,
        ("worker", "planner"),
        ("ingress", "cache"),
        ("Chunks", "StreamBroken", "Final"),
        "Chunks, broken streams and finals for callers who wait.",
    ),
    Family(
        "delays.{tier}",
        "target key",
        "other",
        "delete",
        14 * DAY_MS,
        ("planner", "router", "ingress", "delay"),
        ("delay",),
        ("Delayed",),
        "Records that are forwarded later; one fixed delay a tier.",
    ),
    Family(
        "blobs",
        "hash of tenant and digest",
        "other",
        "delete",
        BLOB_DAYS * DAY_MS,
        ("ingress", "planner", "worker"),
        ("worker", "ingress", "planner", "critic", "CLI"),
        ("Input", "Turn", "Memory", "BatchIndex", "BatchRow", "LineRow", "RefusedRow"),
        "Bodies above the inline bound, in chunks of raw bytes; records name them by a BlobRef.",
        (("segment.ms", str(DAY_MS)),),
    ),
    Family(
        "cache.lookups",
        "the step's fingerprint",
        "other",
        "delete",
        HOUR_MS,
        ("planner",),
        ("cache",),
        ("CacheLookup",),
        "Steps that may have an answer already. Partitions of both are one cache's: equal steps meet there.",
    ),
    Family(
        "cache.fills",
        "the step's fingerprint",
        "other",
        "delete",
        HOUR_MS,
        ("planner",),
        ("cache",),
        ("CacheFill", "CacheAbandoned"),
        "Accepted answers that may be served again.",
    ),
    Family(
        "registry",
        "kind/name",
        "one",
        "compact",
        None,
        ("ingress", "planner", "CLI"),
        ("planner", "ingress", "worker", "sink", "cache", "CLI"),
        (*_DECLARED, "Pin", "HomeBeliefs", "Forgotten"),
        "What administrators declare, and homes learn of models; newest entry by key, one without value removes it. Read whole, without a "
        "group. Prompts, agents, profiles, tools, cards have a key a version (`agent/critic@<version>`) and one an alias (`…:latest`).",
        _KEPT,
    ),
    Family(
        "files", "tenant/file", "one", "compact", None, ("ingress",), ("ingress",), ("StoredFile",), "Uploads: bytes lie in `blobs`.", _KEPT
    ),
    Family("data-keys", "tenant/key id", "one", "compact", None, _ALL, _ALL, ("DataKey",), "Keys that seal values, wrapped.", _SHREDDED),
    Family("acts", "kind/name", "one", "delete", 30 * DAY_MS, ("ingress", "cache", "CLI"), ("sink",), ("Act",), "What administrators did."),
    Family(
        "nodes",
        "node id",
        "one",
        "compact",
        None,
        ("worker",),
        ("router", "planner", "ingress", "worker", "sink"),
        ("Node",),
        "The nodes.",
        _KEPT,
    ),
    Family(
        "credits",
        "node id",
        "one",
        "delete",
        10 * 60_000,
        ("worker", "router", "planner"),
        ("router", "planner", "worker", "sink", "ingress", "CLI"),
        ("Credits", "RouterPresence", "PlannerPresence"),
        "Free places of nodes, each offered to one router or planner; presence of these, by which a reader knows that it hears.",
        (("segment.ms", "300000"),),
    ),
    Family(
        "presence",
        "router or planner",
        "one",
        "delete",
        10 * 60_000,
        ("router", "planner"),
        ("worker",),
        ("RouterPresence", "PlannerPresence"),
        "The same presence for workers, whom other nodes' credits would wake.",
        (("segment.ms", "300000"),),
    ),
    Family(
        "controls",
        "explicit: the node's mailbox",
        "work",
        "delete",
        DAY_MS,
        ("planner", "CLI"),
        ("worker",),
        ("StopStep", "BeginStep", "StopClaims", "Drain"),
        "What a node's worker is told.",
    ),
    Family(
        "dead-letters",
        "original key",
        "other",
        "delete",
        30 * DAY_MS,
        ("planner", "router", "worker", "delay", "ingress", "critic", "cache"),
        ("CLI", "sink"),
        ("DeadLetter",),
        "Records that could not be processed, each with its reason.",
    ),
)


@dataclass(frozen=True, slots=True)
class Topic:
    """A concrete topic."""

    name: str
    partitions: int
    family: Family


class Topics:
    """Names and partition counts of one cluster's topics: as the settings have them, and as somebody has seen them (`seen`)."""

    def __init__(self, settings: TopicSettings | None = None) -> None:
        self.settings = settings or TopicSettings()
        self.missing: frozenset[str] = frozenset()
        """Topics that did not exist at the last look."""
        self.mailboxes = self.settings.work_partitions
        """Partitions that `controls` and every `work.*` have."""
        self.reply_partitions = self.settings.replies_partitions
        self._grown_at = 0.0
        prefix = self.settings.prefix
        self._jobs = {c: f"{prefix}jobs.{c}" for c in CLASSES}
        self.outcomes, self.job_events, self.results = prefix + "outcomes", prefix + "job-events", prefix + "results"
        self.callbacks, self.critiques, self.files = prefix + "callbacks", prefix + "critiques", prefix + "files"
        self.replies, self.blobs, self.registry = prefix + "replies", prefix + "blobs", prefix + "registry"
        self.nodes, self.credits, self.presence = prefix + "nodes", prefix + "credits", prefix + "presence"
        self.controls, self.dead_letters, self.acts = prefix + "controls", prefix + "dead-letters", prefix + "acts"
        self.lookups, self.fills, self.data_keys = prefix + "cache.lookups", prefix + "cache.fills", prefix + "data-keys"
        made = ((family, name, capability) for family in FAMILIES for name, capability in self._names(family.pattern))
        self._all = tuple(Topic(prefix + name, self._count(family, capability), family) for family, name, capability in made)

    def jobs(self, priority_class: PriorityClass) -> str:
        return self._jobs[priority_class]

    def steps(self, capability: str, priority_class: PriorityClass) -> str:
        return f"{self.settings.prefix}steps.{capability}.{priority_class}"

    def work(self, capability: str) -> str:
        """The mailboxes' topic: that of the model which serves the capability."""
        return f"{self.settings.prefix}work.{model_for(capability)}"

    def delay(self, tier: str) -> str:
        return f"{self.settings.prefix}delays.{tier}"

    def all_jobs(self) -> tuple[str, ...]:
        return tuple(self.jobs(c) for c in CLASSES)

    def all_steps(self) -> tuple[str, ...]:
        return tuple(self.steps(capability, c) for capability in self.settings.capabilities for c in CLASSES)

    def class_of(self, topic: str) -> PriorityClass:
        """The class that a `jobs.*` or `steps.*` topic's name ends with."""
        return PriorityClass(topic.rsplit(".", 1)[1])

    def may_reply_to(self, topic: str) -> bool:
        """Whether a caller may name `topic` as its reply topic: never an internal one."""
        names = (self.settings.prefix + allowed for allowed in self.settings.reply_topics)
        return any(topic == name or (name.endswith("*") and topic.startswith(name[:-1])) for name in names)

    def reply_partition(self, instance: str) -> int:
        """Where this instance reads `replies`. Sharing one is allowed: correlations tell whose a reply is."""
        return reply_partition(instance, self.reply_partitions)

    def steps_partitions(self, capability: str) -> int:
        """Of each of its topics."""
        return self.settings.steps_partitions if capability in ("chat", "embed") else self.settings.agent_steps_partitions

    def partitions(self, count: Literal["home", "work", "replies", "one", "other"]) -> int:
        return 1 if count == "one" else int(getattr(self.settings, f"{count}_partitions"))

    def all(self) -> tuple[Topic, ...]:
        """Every topic of the cluster, in the registry's order."""
        return self._all

    def _count(self, family: Family, capability: str) -> int:
        return self.steps_partitions(capability) if family.count == "steps" else self.partitions(family.count)

    def seen(self, there: Mapping[str, int], now: float) -> None:
        """The cluster was looked at: topic → its partitions. `now`: monotonic seconds."""
        self.missing = frozenset(topic.name for topic in self.all() if topic.name not in there)
        mailboxes = self._least(there, "work")
        if mailboxes != self.mailboxes:
            self.mailboxes, self._grown_at = mailboxes, now
        self.reply_partitions = self._least(there, "replies")

    def mailboxes_to_take(self, now: float) -> int:
        """So many may be taken now. Of those that were added not before everybody has seen them: who has not refuses their claims."""
        return self.mailboxes if now - self._grown_at >= SEEN_SECONDS else min(self.mailboxes, self.settings.work_partitions)

    def _least(self, there: Mapping[str, int], count: Literal["work", "replies"]) -> int:
        """A topic that is missing will be made anew with what others have, or stays missing."""
        found = [there[topic.name] for topic in self.all() if topic.family.count == count and topic.name in there]
        return max(self.partitions(count), min(found, default=0))

    def _names(self, pattern: str) -> Iterator[tuple[str, str]]:
        """Each with the capability in it, if there is one."""
        capabilities = self.settings.capabilities
        known: dict[str, Iterable[str]] = {"capability": capabilities, "model": dict.fromkeys(map(model_for, capabilities))}
        known |= {"class": [c.value for c in CLASSES], "tier": [name for name, _ in DELAY_TIERS]}
        fields = [field for field in known if f"{{{field}}}" in pattern]
        for chosen in product(*(known[field] for field in fields)):
            filled = dict(zip(fields, chosen, strict=True))
            yield pattern.format(**filled), filled.get("capability", "")

    def config(self, topic: Topic) -> dict[str, str]:
        """Kafka's configuration of a topic."""
        family = topic.family
        config = {
            "cleanup.policy": family.cleanup,
            "max.message.bytes": str(max(RECORD_BYTES, 1_048_576) + 16_384),
            "min.insync.replicas": str(self.settings.min_insync_replicas),
            "message.timestamp.type": TIMESTAMP_TYPE,
        }
        if family.retention_ms is not None:
            config["retention.ms"] = str(family.retention_ms)
        config.update(family.config)
        return config
