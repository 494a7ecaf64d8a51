"""A batch as an ingress makes it, for the workload: its lines in blobs, its owner told."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from random import Random

from shared.contracts import ids
from shared.contracts.batch import BatchCancelled, BatchIndex, BatchLine, BatchSubmitted, BatchTerms
from shared.contracts.batch_row import BatchRow
from shared.contracts.blob import BlobRef
from shared.contracts.headers import envelope
from shared.contracts.job import HeldJob
from shared.derived import line_id
from shared.kafka.port import Message, TopicPartition
from shared.processing.blobs import key_of
from shared.topics import partition_of
from tests.support.cluster.nodes import ENDLESS, MODEL
from tests.support.cluster.receivers import TENANTS
from tests.support.cluster.world import World


def batched(world: World, random: Random, number: int, later: Callable[[float, Callable[[], object]], object]) -> None:
    """A batch, sometimes told twice, cancelled, or of little time. `later(seconds, what)` does it then."""
    tenant, name, homes = random.choice(TENANTS), f"batch_{number}", world.topics.settings.home_partitions
    lines = random.randint(1, 12)
    prompts = [f"{ENDLESS if random.random() < 0.04 else ''} q{number} {line}" for line in range(lines)]
    rows = [
        BatchRow(
            custom_id=f"c{line}",
            model=MODEL,
            job=HeldJob(
                id=line_id(tenant, name, line, homes),
                tenant=tenant,
                prompt=prompt,
                deadline_seconds=60.0,
                line=BatchLine(batch=name, number=line),
            ),
        ).to_bytes()
        for line, prompt in enumerate(prompts)
    ]
    cut = random.randint(1, lines)
    firsts, parts = (0, cut)[: 1 + (cut < lines)], [part for part in (rows[:cut], rows[cut:]) if part]
    index = BatchIndex(firsts=firsts, blocks=tuple(_kept(world, tenant, b"\n".join(part)) for part in parts))
    terms = BatchTerms(endpoint="/v1/chat/completions", input_file="file-1", created_at=world.clock.wall(), window="24h")
    lies, seconds = _kept(world, tenant, index.to_bytes()), random.choice((600.0, 600.0, 600.0, 4.0))
    asked = BatchSubmitted(tenant=tenant, batch=name, terms=terms, window_seconds=seconds, index=lies, lines=lines)
    for _ in range(random.choice((1, 1, 2))):
        later(random.uniform(0.0, 3.0), partial(_tell, world, asked))
    if random.random() < 0.3:
        later(random.uniform(3.0, 9.0), partial(_tell, world, BatchCancelled(tenant=tenant, batch=name)))


def _tell(world: World, told: BatchSubmitted | BatchCancelled) -> None:
    key, topic = ids.under(told.tenant, told.batch).encode(), world.topics.outcomes
    home = partition_of(key, world.topics.settings.home_partitions)
    world.log.write(TopicPartition(topic, home), [Message(topic, told.to_bytes(), key, home, (("type", told.type.encode()),))])


def _kept(world: World, tenant: str, body: bytes) -> BlobRef:
    """A body of one chunk."""
    digest = ids.digest_of(body)
    key, topic = key_of(tenant, digest), world.topics.blobs
    place = TopicPartition(topic, partition_of(key, world.topics.settings.other_partitions))
    offset = world.log.existing(place).end
    world.log.write(place, [Message(topic, body, key, place.partition, (*envelope("chunk"), ("chunk", b"0")))])
    written = {"first": offset, "last": offset, "chunks": 1, "size": len(body), "written_at": world.clock.wall()}
    return BlobRef(digest=digest, partition=place.partition, **written)
