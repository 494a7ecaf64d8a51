"""One simulated run: phase 1 with faults, phase 2 without; everything must converge, and every law must hold."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from random import Random

from shared.kafka.port import TopicPartition
from tests.support.cluster import processes
from tests.support.cluster.faults import FaultMix, as_text, drawn
from tests.support.cluster.laws import (
    batches,
    boots,
    bounds,
    budgets,
    callbacks,
    callers,
    delays,
    limits,
    passing,
    patience,
    policies,
    retention,
    schedules,
    service_ends,
    stops,
    streams,
    told,
    verified,
)
from tests.support.cluster.laws.offsets import Offsets
from tests.support.cluster.storm import SEND_SECONDS, Storm
from tests.support.cluster.violation import Violation
from tests.support.cluster.workload import Workload
from tests.support.cluster.world import World

CONVERGE_SECONDS = 240.0
QUIET_SECONDS = 12.0
"""After the last result: what is still on its way arrives, what should have been stopped has been."""
AGAIN_SECONDS = 4.0
"""What was being sent when the faults ended fails once more, and is sent again."""
Law = Callable[[World], Iterator[Violation]]
AT_THE_END: tuple[Law, ...] = (
    streams.check,
    boots.check,
    patience.check,
    told.check,
    limits.check,
    budgets.check,
    schedules.check,
    delays.check,
    stops.check,
    passing.check,
    bounds.check,
    retention.check,
    service_ends.check,
    callers.check,
    policies.check,
)
_SHOWN = 60


@dataclass(slots=True)
class Report:
    """What a run came to."""

    seed: int
    mix: FaultMix
    violations: list[Violation]
    history: list[str] = field(default_factory=list)
    """Of the first violated job: what was written about it, in order of time."""
    storm: list[str] = field(default_factory=list)
    jobs: int = 0
    doubly_run: int = 0
    """Successes of an attempt beyond its first."""
    sealed: int = 0
    """Records that were written sealed."""
    virtual_seconds: float = 0.0
    fingerprint: str = ""
    """Of everything that was written, where and when."""
    ended: list[str] = field(default_factory=list)
    """Services that ended by themselves, and why."""

    def text(self, rerun: str) -> str:
        """What a failing test prints."""
        lines = [f"seed {self.seed} broke {len(self.violations)} laws; options: {as_text(self.mix)}", f"run it again: {rerun}"]
        lines += [str(violation) for violation in self.violations[:10]]
        lines += ["what was done:", *self.storm[-40:]] if self.storm else []
        lines += ["the job's history (valid events are marked +):", *self.history[-_SHOWN:]] if self.history else []
        return "\n".join(lines)


def simulate(
    seed: int,
    mix: FaultMix | None = None,
    kinds: dict[str, float] | None = None,
    laws: tuple[Law, ...] = (),
    *,
    patience: float = CONVERGE_SECONDS,
    aside: tuple[str, ...] = (),
    sealed: Path | None = None,
) -> Report:
    """Run one seed; without a mix the seed draws its own. `laws`: checked at the end besides those that always hold. `patience`: seconds
    from the last fault in which everything must have ended. `aside`: instances besides. `sealed`: a file of cluster keys; then all seal.
    """
    chosen = mix if mix is not None else drawn(Random(seed))
    report: Report = processes.run(_simulate(seed, chosen, kinds, laws, patience=patience, aside=aside, sealed=sealed))
    return report


async def _simulate(
    seed: int,
    mix: FaultMix,
    kinds: dict[str, float] | None,
    laws: tuple[Law, ...],
    *,
    patience: float,
    aside: tuple[str, ...],
    sealed: Path | None,
) -> Report:
    async with World(seed, mix, aside, sealed) as world:
        world.cached.fails, world.cached.slow, world.cached.forgets = mix.store, mix.store, mix.store
        Offsets(world)
        watching = asyncio.create_task(bounds.watch(world))
        storm = Storm(world, Random(seed + 2))
        load = Workload(world, Random(seed + 3), mix.jobs, mix.arrive_seconds or mix.seconds, kinds)
        world.start_all()
        await asyncio.sleep(1.0)
        storm.begin()
        ends = asyncio.get_running_loop().time() + mix.seconds
        await load.run()
        await asyncio.sleep(max(0.0, ends - asyncio.get_running_loop().time()))
        await storm.heal()
        sent = world.clock.monotonic() + (SEND_SECONDS + AGAIN_SECONDS if storm.sends_hang else 0.0)
        world.cached.fails = world.cached.slow = world.cached.forgets = 0.0
        await load.finish()
        converged = await world.until(lambda: _ended(world), patience)
        await asyncio.sleep(max(QUIET_SECONDS, sent - world.clock.monotonic()))
        violations = list(world.history.violations)
        if converged and not violations:
            await world.until(lambda: not any(service_ends.unready(world)), patience)
        if not converged and not violations:
            violations += _unfinished(world, patience)
        watching.cancel()
        violations += await verified.check(world)
        for law in (*AT_THE_END, *laws):
            violations += law(world)
        report = Report(seed, mix, violations, jobs=len(world.history.jobs()), virtual_seconds=world.clock.monotonic())
        report.ended = list(world.ended)
        report.sealed = 0 if world.eyes is None else world.eyes.seen
        report.fingerprint = _fingerprint(world)
        report.doubly_run = world.history.doubly_run()
        if violations:
            report.storm = storm.log
            job = next((v.job for v in violations if v.job is not None), None)
            report.history = story(world, job) if job is not None else []
        return report


def _fingerprint(world: World) -> str:
    digest = blake2b(digest_size=8)
    for topic in world.topics.all():
        for number in range(topic.partitions):
            for record in world.log.existing(TopicPartition(topic.name, number)).records:
                digest.update(repr((topic.name, number, record.visible_at, getattr(record, "value", None))).encode())
    return digest.hexdigest()


def _ended(world: World) -> bool:
    history = world.history
    if history.violations:
        return True
    if history.result_count < len(history.results):
        return False
    awaited = (*history.jobs(), *history.accepted, *schedules.awaited(world))
    told = not (world.mix.receivers and callbacks.untold(world))
    return all(job in history.results for job in awaited) and told and not history.unrefused() and not batches.unfinished(world)


def _unfinished(world: World, patience: float) -> Iterator[Violation]:
    for job in (*world.history.jobs(), *schedules.awaited(world)):
        if job not in world.history.results:
            yield Violation("converges", f"job {job} has not ended {patience:g} s after the last fault", job)
    for place in sorted(world.history.unrefused()):
        yield Violation("converges", f"the record {place} is nothing, and no dead letter says so {patience:g} s after the last fault")


def story(world: World, job: str) -> list[str]:
    """Everything that was written about one job."""
    valid = {(w.where, w.offset) for w in world.history.all_valid()}
    lines = []
    for written in world.history.of_job(job):
        mark = "+" if (written.where, written.offset) in valid else " "
        value = written.value
        facts = {
            name: found
            for name in ("epoch", "step", "attempt", "claim", "node", "status", "failure", "retry_after_seconds", "reason", "counted")
            if (found := getattr(value, name, None)) is not None
        }
        shown = ", ".join(f"{name}={getattr(found, 'kind', found)}" for name, found in facts.items())
        kind = getattr(value, "type", type(value).__name__.lower())
        lines.append(f"{written.at:9.3f} {mark} {written.where.topic}/{written.where.partition}/{written.offset} {kind} {shown}")
    return lines
