"""A recount of `job-events` in the plainest way: what the sink's sums must say, whatever has died meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from infra.verify.history import parsed
from shared.contracts import event as events
from shared.contracts.budget import MICROS
from shared.contracts.event import EVENT
from shared.contracts.versions import NEWEST
from shared.epochs import EpochFilter
from shared.kafka.port import Log, TopicPartition
from shared.processing.tail import stretches
from shared.topics import Topics

Counts = dict[tuple[str, ...], int]
_GONE = ("unknown", "unknown")


class HomeCount:
    """Of one home, its facts in order."""

    def __init__(self, count: Counter[tuple[str, ...]]) -> None:
        self._count = count
        self._steps: dict[tuple[str, str], tuple[str, str]] = {}
        self._talks: dict[str, str | None] = {}

    def event(self, event: Any) -> None:
        """A valid one."""
        for fact in events.facts_of(event):
            self._fact(fact)

    def _fact(self, fact: Any) -> None:
        match fact:
            case events.JobAccepted():
                self._talks[fact.job] = fact.request.conversation
            case events.StepAsked():
                self._steps[fact.job, fact.step] = fact.agent, fact.model
            case events.StepAnswered():
                whose = self._whose(fact, fact.answer.model)
                self._count["answers", *whose] += 1
                self._count["tokens", *whose] += fact.usage.prompt_tokens + fact.usage.completion_tokens
            case events.AttemptFailed():
                self._count["wasted", *self._whose(fact, fact.failure.model)] += fact.usage.as_waste().wasted_tokens
            case events.WorkWasted():
                self._count["wasted", *self._whose(fact, None)] += fact.usage.as_waste().wasted_tokens
            case events.JobSettled():
                self._settled(fact)

    def _whose(self, fact: Any, model: str | None) -> tuple[str, str]:
        agent, asked = self._steps.get((fact.job, fact.step), _GONE)
        return agent, model or asked

    def _settled(self, fact: events.JobSettled) -> None:
        result, usage = fact.result, fact.result.usage
        key = result.tenant, result.pattern, result.status.value, fact.key or ""
        self._count["jobs", *key] += 1
        self._count["job tokens", *key] += usage.prompt_tokens + usage.completion_tokens
        self._count["job waste", *key] += usage.wasted_tokens
        self._count["micros", *key] += round(usage.cost * MICROS)
        talk = self._talks.pop(fact.job, None)  # of the life that ends: a second end has none
        if talk is not None:
            self._count["talk", result.tenant, talk] += usage.prompt_tokens + usage.completion_tokens


async def recounted(log: Log, topics: Topics) -> Counts:
    """Of all that Kafka has of history."""
    partitions = [TopicPartition(topics.job_events, home) for home in range(topics.settings.home_partitions)]
    count: Counter[tuple[str, ...]] = Counter()
    homes = {partition.partition: (EpochFilter(), HomeCount(count)) for partition in partitions}
    consumer = await log.consumer(client_id="tutti-recount")
    try:
        ends = await consumer.end_offsets(partitions)
        async for records in stretches(consumer, {partition: (0, ends[partition]) for partition in partitions}):
            for record in records:
                epochs, home = homes[record.partition]
                event = parsed(EVENT, record, NEWEST)
                if isinstance(event, events.PlannerStarted):
                    epochs.started(record.offset)
                elif event is not None and epochs.admits(event.epoch, record.offset):
                    home.event(event)
    finally:
        await consumer.close()
    return nothing_left_out(count)


def counted(totals: Iterable[Mapping[str, Any]]) -> Counts:
    """The same of the sink's sums."""
    count: Counter[tuple[str, ...]] = Counter()
    for row in totals:
        if row["of"] == "steps":
            key: tuple[str, ...] = (row["agent"], row["model"])
            count["answers", *key] += row["answers"]
            count["tokens", *key] += row["prompt_tokens"] + row["completion_tokens"]
            count["wasted", *key] += row["wasted_tokens"]
        elif row["of"] == "talks":
            count["talk", row["tenant"], row["conversation"]] += row["prompt_tokens"] + row["completion_tokens"]
        else:
            key = row["tenant"], row["pattern"], row["status"], row.get("key", "")
            count["jobs", *key] += row["jobs"]
            count["job tokens", *key] += row["prompt_tokens"] + row["completion_tokens"]
            count["job waste", *key] += row["wasted_tokens"]
            count["micros", *key] += row["cost_micros"]
    return nothing_left_out(count)


def nothing_left_out(count: Mapping[tuple[str, ...], int]) -> Counts:
    """But for what is none."""
    return {key: value for key, value in count.items() if value}


def differences(recount: Counts, sums: Counts) -> list[str]:
    """What the sums have else than the recount; none: they are exact."""
    keys = sorted(recount.keys() | sums.keys())
    return [f"{' '.join(key)}: {sums.get(key, 0)} instead of {recount.get(key, 0)}" for key in keys if recount.get(key) != sums.get(key)]
