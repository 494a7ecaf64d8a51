"""What the page shows on the in-memory log under virtual time: the same by every sink, right after any death, from the planners' watermark.

job-events ──► sink's page (killed; two at once; begun in the middle; Kafka's topic made anew) ──► live jobs, ends = recount
"""

from __future__ import annotations

from collections import Counter

import pytest

from infra.lab import virtual_loop
from services.sink.app import UsageSink
from services.sink.page.looking import Picture
from shared.contracts import event as events
from shared.kafka.port import TopicPartition
from tests.simulated.test_sink import HOMES, SinkWorld, sinks
from tests.support.sink_history import valid_events


def alive(world: SinkWorld) -> dict[str, int]:
    """Job → offset of its acceptance, of what has not ended."""
    found: dict[str, int] = {}
    for history in world.histories:
        for offset, event in valid_events(history.messages):
            if isinstance(event, events.JobAccepted):
                found[event.job] = offset
            elif isinstance(event, events.JobSettled):
                found.pop(event.job, None)
    return found


def ends(world: SinkWorld) -> Counter[str]:
    return Counter(
        event.result.status.value
        for history in world.histories
        for _, event in valid_events(history.messages)
        if event.type == "job_settled"
    )


async def shown(world: SinkWorld, sink: UsageSink) -> Picture:
    """What it shows, once it has caught up."""
    picture = sink.watching.seen()
    await world.until(picture.tail.caught_up, 20.0)
    return picture


@pytest.mark.parametrize("seed", range(4))
def test_every_sink_shows_the_whole_after_any_death(seed: int) -> None:
    """Also what lies at homes that another sink has; and what comes while it is looked at."""

    async def scene() -> None:
        async with sinks(seed) as world:
            world.grow(150)
            first, sink = world.start()
            await shown(world, sink)
            world.kill(first)
            world.grow(100)
            started = [world.start()[1] for _ in range(2)]
            pictures = [await shown(world, sink) for sink in started]
            world.grow(100)
            await world.clock.sleep(5.0)
            for picture in pictures:
                assert {job.id for job in picture.jobs.live()} == set(alive(world))
                totals = Counter({status: picture.jobs.totals[status] for status in ("succeeded", "failed", "cancelled", "expired")})
                assert totals == ends(world)
            assert pictures[0].jobs.counts == pictures[1].jobs.counts

    virtual_loop.run(scene())


@pytest.mark.parametrize("seed", range(4))
def test_reading_begins_at_the_watermark_and_misses_no_live_job(seed: int) -> None:
    """However short the lookback is."""

    async def scene() -> None:
        async with sinks(seed) as world:
            world.settings = world.settings.model_copy(update={"page_lookback": 5})
            world.grow(300)
            living = alive(world)
            for home, history in enumerate(world.histories):
                mine = {event.job for _, event in valid_events(history.messages) if isinstance(event, events.JobAccepted)}
                watermark = min((offset for job, offset in living.items() if job in mine), default=len(history.messages))
                world.log.group("tutti-planner").offsets[TopicPartition(world.topics.job_events, home)] = watermark
            _, sink = world.start()
            picture = await shown(world, sink)
            assert {job.id for job in picture.jobs.live()} == set(living)
            assert len(world.histories) == HOMES

    virtual_loop.run(scene())


def test_a_topic_made_anew_is_read_anew() -> None:
    """Who looked at the old one is told to look again."""

    async def scene() -> None:
        async with sinks(9) as world:
            world.grow(50)
            _, sink = world.start()
            picture = await shown(world, sink)
            sink.watching._begin_anew(world.topics.job_events)
            await world.clock.sleep(5.0)
            assert sink.watching.picture is None
            again = await shown(world, sink)
            assert again.boot != picture.boot
            assert {job.id for job in again.jobs.live()} == set(alive(world))

    virtual_loop.run(scene())
