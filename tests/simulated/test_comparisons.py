"""Comparisons through planners that die: one a job of the share, however often it is sent; the job's own end knows nothing of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from infra.lab.virtual_loop import run
from services.planner.settings import PlannerSettings
from shared.contracts.base import PriorityClass
from shared.contracts.event import JobAccepted
from shared.contracts.result import Result
from shared.contracts.step import Step
from shared.derived import comparison_id
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.port import TopicPartition
from shared.patterns.comparison import Comparison
from tests.support.planner_world import World

JOBS: dict[str, dict[str, Any]] = {
    "acme/voted": {"pattern": "vote", "input": {"answer": "number", "samples": 3, "at_once": 1}, "options": {"seed": 100}},
    "acme/mapped": {"pattern": "map", "prompt": "one?\ntwo?"},
    "acme/single": {},
}
ENDS = 5
"""Results: of three jobs, and of two comparisons."""


def said(step: Step, _: int) -> str:
    """By what is asked, whoever answers. The judge prefers what says good."""
    if step.agent == "judge":
        content = step.messages[-1].content
        return json.dumps({"better": "first" if "good" in content[content.index("text 1") : content.index("text 2")] else "second"})
    if step.agent == "sample":
        return ("Answer: 1, bad", "Answer: 2, good", "Answer: 2, good")[(step.options.seed or 0) - 100]
    return "bad" if step.agent == "baseline" else "good"


def begin(share: float) -> World:
    world = World(homes=2, options=PlannerSettings(compared_share=share, settled_memory_seconds=60.0))
    world.node.answer = said
    return world


def submit(world: World) -> None:
    for name, job in JOBS.items():
        world.produce(json.dumps({"id": name.partition("/")[2], "tenant": "acme", "prompt": "Q?", **job}).encode(), key=name[5:].encode())


def results(world: World) -> dict[str, Result]:
    found = {job: Result.model_validate_json(value) for job, (value,) in world.results().items()}
    return {job: result for job, result in sorted(found.items()) if result.pattern != "compare"}


def comparisons(world: World) -> dict[str, Comparison]:
    """Measured job → its comparison, each published once."""
    found: dict[str, Comparison] = {}
    for job, (value,) in world.results().items():
        result = Result.model_validate_json(value)
        if result.pattern == "compare":
            assert (result.status, result.tenant, result.priority_class) == ("succeeded", "acme", PriorityClass.BATCH), result
            assert result.answer is not None
            made = Comparison.model_validate_json(result.answer.text)
            assert (job, made.job not in found) == (comparison_id(made.job, made.accepted_at, 2), True)
            found[made.job] = made
    return found


def accepted(world: World) -> list[str]:
    return sorted(event.job for home in range(2) for event in world.history(home) if isinstance(event, JobAccepted))


async def undisturbed(share: float) -> tuple[dict[str, Result], int]:
    """What the jobs end with, and how many records planners wrote."""
    async with begin(share) as world:
        written: list[int] = []
        world.log.written_listeners.append(lambda records: written.append(1) if by_planner(world, records) else None)
        world.start("p")
        submit(world)
        await world.until(lambda: world.finished() == (ENDS if share else 3))
        await asyncio.sleep(30)
        await world.check_laws(ENDS if share else 3)
        return results(world), len(written)


def by_planner(world: World, records: Sequence[MemoryRecord]) -> bool:
    topics = (world.topics.job_events, world.topics.results, world.topics.jobs(PriorityClass.BATCH))
    return records[0].topic in topics


async def killed(at: int) -> None:
    """The planner dies with its n-th append, before it hears that it was taken; another one comes."""
    async with begin(1.0) as world:
        written = 0

        def on_written(records: Sequence[MemoryRecord]) -> None:
            nonlocal written
            if by_planner(world, records):
                written += 1
                if written == at:
                    world.kill("p")

        world.log.written_listeners.append(on_written)
        world.start("p")
        submit(world)
        await world.until(lambda: written >= at)
        await asyncio.sleep(1)
        world.start("q")
        await world.until(lambda: world.finished() == ENDS)
        await asyncio.sleep(30)
        await world.check_laws(ENDS)
        assert len(accepted(world)) == len({*accepted(world)}) == ENDS, "each job once, comparisons too"
        found = comparisons(world)
        assert {job: (made.baseline, made.verdict) for job, made in found.items()} == {
            "acme/voted": ("first sample", "better"),
            "acme/mapped": ("single answer", "better"),
        }
        assert found["acme/voted"].cost_ratio == 3.0
        assert not world.values(world.topics.dead_letters), "what is sent again is the same job"


def test_a_job_ends_as_it_does_without_a_comparison() -> None:
    """Same answers, and nothing more in its result; times and the order of events aside."""
    with_it, _ = run(undisturbed(1.0))
    without, _ = run(undisturbed(0.0))
    assert [(r.job, r.answer, r.steps) for r in with_it.values()] == [(r.job, r.answer, r.steps) for r in without.values()]
    assert len(with_it) == len(JOBS)


def test_one_comparison_whatever_append_the_planner_dies_with() -> None:
    _, appends = run(undisturbed(1.0))
    assert appends > 10
    for at in range(1, appends + 1):
        run(killed(at))


def test_what_could_not_be_sent_is_owed_by_the_successor() -> None:
    """Nobody takes records for `jobs.batch`: the results are out, positions are committed, the planner dies, and all the same it comes."""

    async def body() -> None:
        async with begin(1.0) as world:
            world.log.faults.away[world.topics.jobs(PriorityClass.BATCH)] = 1.0
            world.start("p")
            submit(world)
            await world.until(lambda: world.finished() == 3)
            await asyncio.sleep(20)
            world.kill("p")
            world.log.faults.heal()
            world.start("q")
            await world.until(lambda: world.finished() == ENDS)
            await world.check_laws(ENDS)
            assert len(comparisons(world)) == 2

    run(body())


def test_a_successor_that_reads_far_back_compares_nothing_anew() -> None:
    """A job that waits for people holds the watermark before all others; ids of ended jobs are long forgotten when the planner dies."""

    async def body() -> None:
        async with begin(1.0) as world:
            world.start("p")
            step = {"name": "a", "template": "{input}", "review": {"deadline_seconds": 86_400}}
            for home in range(2):
                world.produce(json.dumps({"prompt": "Q?", "pattern": "chain", "chain": [step]}).encode(), home=home)
            await world.until(lambda: len(accepted(world)) == 2)
            submit(world)
            await world.until(lambda: world.finished() == ENDS)
            world.kill("p")
            await asyncio.sleep(600)
            batch = world.topics.jobs(PriorityClass.BATCH)
            world.log.faults.delivery_of |= {TopicPartition(batch, home): (9.0, 9.0) for home in range(2)}
            sent = world.values(batch)
            world.start("q")
            await asyncio.sleep(5)
            for home in range(2):  # rounds in which what has left the window is forgotten
                world.produce(b'{"prompt": "one more"}', home=home)
            await asyncio.sleep(60)
            assert world.values(batch) == sent
            assert len(accepted(world)) == len({*accepted(world)}) == ENDS + 2 + 2
            await world.check_laws(ENDS + 2)

    run(body())


def test_a_zombie_that_sends_it_again_begins_nothing() -> None:
    """A planner that was frozen with the record on its way, and comes back."""

    async def body() -> None:
        async with begin(1.0) as world:
            world.start("p")
            submit(world)
            await world.until(lambda: world.finished() >= 3)
            world.log.freeze("p")
            world.start("q")
            await world.until(lambda: world.finished() == ENDS)
            world.log.thaw("p")
            await asyncio.sleep(30)
            await world.check_laws(ENDS)
            assert len(accepted(world)) == ENDS

    run(body())
