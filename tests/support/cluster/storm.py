"""Phase 1: the faults of a mix strike at random times, each as a Poisson process. `heal` ends them: phase 2."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any

from infra.lab.simulators.ollama.parameters import Failures
from shared.contracts import headers
from shared.kafka.memory.memory_partition import MemoryRecord
from shared.kafka.memory.memory_process import Absence
from shared.kafka.port import Message, TopicPartition
from tests.support.cluster.processes import State
from tests.support.cluster.world import Instance, World
from tests.support.odd_records import FAMILIES, KINDS

GROUPS = ("tutti-planner", "tutti-router", "tutti-delay")
LINK_SECONDS = 0.001
"""A batch always takes so long: what goes round in circles takes time."""
SEND_SECONDS = 20.0
"""As long as a real producer tries."""
_ABSENCES: tuple[Absence, ...] = ("waits", "fails")
_DEEPEST_STEP = 400
"""A kill or pause falls up to so many steps of the process after it was drawn: between any two awaits."""
_LONGEST_WAIT_FOR_A_STEP = 1.0
_SLOW_SECONDS = 3.0
_HEAD_START_SECONDS = 1.0


class Storm:
    """Everything that is done to the cluster. Actions that last (a pause, a node away) are ended by `heal`."""

    def __init__(self, world: World, random: Random) -> None:
        self._world, self._random, self._mix = world, random, world.mix
        self._tasks: set[asyncio.Task[Any]] = set()
        self._errors: list[BaseException] = []
        self._copied: set[tuple[TopicPartition, int]] = set()
        self.log: list[str] = []
        """What was done, for a failure's report."""
        self.sends_hang = False
        """Whether a send may fail so long after the faults are over."""

    def begin(self) -> None:
        """Turn the faults on."""
        mix, faults, topics = self._mix, self._world.log.faults, self._world.topics
        faults.lost, faults.unacknowledged, faults.offset_unknown = mix.lost, mix.unacknowledged, mix.offset_unknown
        faults.posthumous, faults.duplicated = mix.posthumous, mix.duplicated
        doubled = [topics.outcomes, topics.controls, *topics.all_steps(), *map(topics.work, topics.settings.capabilities)]
        doubled += [topic.name for topic in topics.all() if topic.family.pattern.startswith("delays.")]
        faults.duplicable = frozenset(doubled)
        faults.send_seconds, faults.ack_seconds = (LINK_SECONDS, LINK_SECONDS + mix.send_seconds), (0.0, mix.ack_seconds)
        faults.delivery_seconds, faults.call_seconds = (0.0, mix.delivery_seconds), (0.0, mix.call_seconds)
        faults.lost_cancellations = mix.lost_cancellations
        for node in self._world.nodes.values():
            node.fail(mix.failures(), mix.retry_after_seconds)
        if mix.doubly_routed:
            self._world.log.written_listeners.append(self._on_written)
        actions: Sequence[tuple[float, Callable[[], Awaitable[None]]]] = (
            (mix.kill, self._kill),
            (mix.pause, self._pause),
            (mix.slow, self._slow),
            (mix.stop, self._stop),
            (mix.succeed, self._succeed),
            (mix.lose_node, self._lose_node),
            (mix.owner, self._owner),
            (mix.rebalance, self._rebalance),
            (mix.away, self._away),
            (mix.refuse, self._refuse),
            (mix.stall, self._stall),
            (mix.odd, self._odd),
        )
        for rate, action in actions:
            if rate > 0:
                self._later(self._again_and_again(rate, action))

    async def heal(self) -> None:
        """End every fault: all that was paused wakes, all that is down comes back."""
        world = self._world
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        world.log.faults.heal()
        world.log.faults.send_seconds = (LINK_SECONDS, LINK_SECONDS)
        if self._on_written in world.log.written_listeners:
            world.log.written_listeners.remove(self._on_written)
        world.log.come_back()
        for node in world.nodes.values():
            node.fail(Failures())
            node.find()
            node.owner_is_there = False
        world.receivers.fails = 0.0
        for instance in [*world.instances.values()]:
            instance.process.disarm()
            world.wake(instance)
            if instance.stop.is_set():
                world.kill(instance.name)  # what was asked to end ends after whoever would have started it anew
        for instance in world.earlier:
            instance.process.disarm()
            world.wake(instance)
        for name in world.names:
            if name not in world.instances:
                world.start(name)
        self._note("healed")
        for error in self._errors:
            raise error

    def _note(self, what: str) -> None:
        self.log.append(f"{self._world.clock.monotonic():9.3f} {what}")

    def _later(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)

    async def _again_and_again(self, rate: float, action: Callable[[], Awaitable[None]]) -> None:
        await asyncio.sleep(_HEAD_START_SECONDS)
        while True:
            await asyncio.sleep(self._random.expovariate(rate))
            self._later(action())

    def _any(self) -> Instance | None:
        """An instance that runs; planners twice as often as others, because most rules are theirs."""
        running = [i for i in self._world.instances.values() if i.process.state is State.RUNNING]
        if self._mix.only:
            running = [i for i in running if i.name.split("-")[0] in self._mix.only]
        running += [i for i in running if i.name.startswith("planner")]
        return self._random.choice(running) if running else None

    async def _at_any_step(self, instance: Instance, action: Callable[[], None]) -> None:
        """Do it between two steps of the process, or after a while when it does nothing."""
        done = asyncio.Event()

        def act() -> None:
            if not done.is_set():
                done.set()
                action()

        instance.process.trap(int(self._random.random() ** 2 * _DEEPEST_STEP), act)
        try:
            await asyncio.wait_for(done.wait(), _LONGEST_WAIT_FOR_A_STEP)
        except TimeoutError:
            act()

    async def _kill(self) -> None:
        instance = self._any()
        if instance is None:
            return

        def kill() -> None:
            if self._world.instances.get(instance.name) is instance:
                self._world.kill(instance.name)
                self._note(f"killed {instance.process.name} after {instance.process.steps} steps")

        await self._at_any_step(instance, kill)
        await asyncio.sleep(self._random.uniform(*self._mix.down_seconds))
        if instance.name not in self._world.instances:
            self._world.start(instance.name)
            self._note(f"started {self._world.instances[instance.name].process.name}")

    async def _pause(self) -> None:
        instance = self._any()
        if instance is None:
            return

        def pause() -> None:
            if self._world.instances.get(instance.name) is instance:
                self._world.pause(instance.name)
                self._note(f"paused {instance.process.name} after {instance.process.steps} steps")

        await self._at_any_step(instance, pause)
        await asyncio.sleep(self._random.uniform(*self._mix.pause_seconds))
        self._world.wake(instance)
        self._note(f"woke {instance.process.name}")

    async def _slow(self) -> None:
        instance = self._any()
        if instance is None:
            return
        self._note(f"slow: {instance.process.name}")
        until = self._world.clock.monotonic() + _SLOW_SECONDS
        while self._world.clock.monotonic() < until and self._world.instances.get(instance.name) is instance:
            self._world.pause(instance.name)
            await asyncio.sleep(0.2)
            self._world.wake(instance)
            await asyncio.sleep(0.01)

    async def _stop(self) -> None:
        instance = self._any()
        if instance is None:
            return
        self._note(f"asked {instance.process.name} to end")
        await self._world.stop(instance.name)
        if instance.name not in self._world.instances:
            self._world.start(instance.name)

    async def _succeed(self) -> None:
        """A rolling update, a twin, or a machine that slept and wakes beside its successor."""
        running = [i for i in self._world.instances.values() if i.name in self._world.workers and i.process.state is State.RUNNING]
        if not running:
            return
        earlier = self._random.choice(running)
        how = self._random.choice(("told to end", "left running", "paused"))
        if how == "told to end":
            earlier.stop.set()
        elif how == "paused":
            self._world.pause(earlier.name)
        self._world.succeed(earlier.name)
        self._note(f"succeeded {earlier.process.name}, which was {how}")
        if how == "paused":
            await asyncio.sleep(self._random.uniform(*self._mix.pause_seconds))
            self._world.wake(earlier)
            self._note(f"woke {earlier.process.name}")

    async def _lose_node(self) -> None:
        node = self._world.nodes[self._random.choice(self._world.workers)]
        self._note(f"lost {node.name}'s model server")
        await node.lose()
        await asyncio.sleep(self._random.uniform(*self._mix.down_seconds))
        node.find()

    async def _owner(self) -> None:
        node = self._world.nodes[self._random.choice(self._world.workers)]
        node.owner_is_there = True
        self._note(f"the owner of {node.name}'s machine comes")
        await asyncio.sleep(self._random.uniform(*self._mix.away_seconds))
        node.owner_is_there = False
        self._note(f"the owner of {node.name}'s machine goes")

    async def _rebalance(self) -> None:
        group = self._random.choice(GROUPS)
        self._world.log.group(group).evict_any(self._random)
        self._note(f"evicted a member of {group}")

    async def _away(self) -> None:
        absence = self._random.choice(_ABSENCES)
        self._world.log.go_away(absence)
        self._note(f"the brokers are away ({absence})")
        await asyncio.sleep(self._random.uniform(*self._mix.away_seconds))
        self._world.log.come_back()
        self._note("the brokers are back")

    async def _refuse(self) -> None:
        topic = self._random.choice(self._world.topics.all()).name
        seconds = self._random.choice((0.0, SEND_SECONDS))
        self.sends_hang |= seconds > 0
        self._world.log.faults.away[topic] = seconds
        self._note(f"sends to {topic} fail after {seconds:g} s")
        await asyncio.sleep(self._random.uniform(*self._mix.away_seconds))
        self._world.log.faults.away.pop(topic, None)
        self._note(f"sends to {topic} succeed again")

    async def _stall(self) -> None:
        away = self._world.log.faults.away
        self.sends_hang = True
        away |= {topic.name: SEND_SECONDS for topic in self._world.topics.all()}
        self._note(f"all sends fail after {SEND_SECONDS:g} s")
        await asyncio.sleep(self._random.uniform(*self._mix.away_seconds))
        away.clear()
        self._note("sends succeed again")

    async def _odd(self) -> None:
        world = self._world
        topic = self._random.choice([t for t in world.topics.all() if t.name.split(".")[0] in FAMILIES])
        kind, where = self._random.choice(list(KINDS)), TopicPartition(topic.name, self._random.randrange(topic.partitions))
        before = world.log.existing(where).end
        KINDS[kind](world.log, where)
        world.history.look_for_unreadable(where, before)
        self._note(f"odd on {where.topic}/{where.partition}/{before}: {kind}")

    def _on_written(self, records: Sequence[MemoryRecord]) -> None:
        """A copy of a step in a mailbox for another node."""
        world = self._world
        where = TopicPartition(records[0].topic, records[0].partition)
        if where.topic != world.topics.work("chat"):
            return
        for record in records:
            if (where, record.offset) in self._copied or self._random.random() >= self._mix.doubly_routed:
                continue
            self._later(self._copy(record))

    async def _copy(self, record: MemoryRecord) -> None:
        await asyncio.sleep(self._random.uniform(0.0, 1.0))
        others = [(name, i.service.reader.number) for name, i in self._world.instances.items() if name.startswith("worker")]
        others = [(name, number) for name, number in others if number not in (None, record.partition)]
        if not others:
            return
        node, mailbox = self._random.choice(others)
        head = tuple((name, value) for name, value in record.headers if name != headers.NODE)
        where = TopicPartition(record.topic, mailbox)
        copy = Message(record.topic, record.value, record.key, mailbox, (*head, (headers.NODE, node.encode())))
        self._copied.add((where, self._world.log.existing(where).end))
        self._world.log.write(where, [copy])
        self._note(f"copied {record.topic}/{record.partition}/{record.offset} to {node}")
