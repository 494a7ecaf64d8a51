"""What KEDA 2.21 makes of a trigger, after its source (`pkg/scalers/kafka_scaler.go`, `prometheus_scaler.go`).

kafka: the sum over partitions of end - committed offset; where nothing is committed, by `offsetResetPolicy: earliest`, all that is
retained. The end is the high watermark, so marks that transactions leave count. At most the partitions' number of thresholds, unless idle
consumers are allowed. prometheus: one number, else an error. An error is never 0: replicas stay, or become what `fallback` says.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

from infra.native import http
from shared.kafka.port import Admin, Consumer, TopicPartition


class TriggerError(Exception):
    """The number is not known."""


def metadata_fields(source: Path) -> set[str]:
    """Names that a scaler's metadata may have in a trigger."""
    tags = re.findall(r'keda:"([^"]*)"', source.read_text())
    return {name[1] for tag in tags if "triggerMetadata" in tag and (name := re.search(r"name=(\w+)", tag))}


def metadata_choices(source: Path, name: str) -> set[str]:
    """The values that a field may have, where they are listed."""
    found = re.search(rf'keda:"name={name},[^"]*enum=([\w;]+)', source.read_text())
    return set(found[1].split(";")) if found else set()


async def kafka_lag(metadata: dict[str, str], admin: Admin, reader: Consumer) -> tuple[int, bool]:
    """(what is told to the autoscaler, whether it is active). Raises TriggerError."""
    committed = await admin.group_offsets(metadata["consumerGroup"])
    present = await admin.list_topics()
    topic = metadata["topic"]
    if topic not in present:
        raise TriggerError(f"no topic {topic}")
    partitions = [TopicPartition(topic, number) for number in range(present[topic].partitions)]
    ends, begins = await reader.end_offsets(partitions), await reader.beginning_offsets(partitions)
    lag = whole = sum(ends[partition] - committed.get(partition, begins[partition]) for partition in partitions)
    threshold = int(metadata["lagThreshold"])
    if metadata["allowIdleConsumers"] == "false":
        lag = min(lag, len(partitions) * threshold) if lag // threshold > len(partitions) else lag
    return lag, whole > int(metadata.get("activationLagThreshold", "0"))


def prometheus_value(metadata: dict[str, str], url: str) -> float:
    """The query's one number. Raises TriggerError."""
    answer: Any = http.get_json(f"{url}/api/v1/query?query={quote(metadata['query'])}")
    if answer is None:
        raise TriggerError("Prometheus does not answer")
    result = answer["data"]["result"]
    if len(result) > 1:
        raise TriggerError("several elements")
    if not result and metadata.get("ignoreNullValues", "true") == "false":
        raise TriggerError("the target may be lost, the result is empty")
    return float(result[0]["value"][1]) if result else 0.0
