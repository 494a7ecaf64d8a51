"""The pretended worker: no model answers here. Behind routers (`mailbox`) it obeys the worker's part of the credits protocol and says
nothing to homes; without a mailbox it takes every step as it is asked for, as routers and workers do, and tells its home.

It answers `<number> from <digest of the step's input>`: answers differ from run to run, so a result made from another history than the
accepted one is seen.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from hashlib import blake2b
from random import Random
from typing import Any

from services.worker.credits import share
from shared.clock import Clock
from shared.contracts import headers
from shared.contracts.chat import Answer
from shared.contracts.credits import CREDITS, Credits, RouterPresence
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.node import Node
from shared.contracts.outcome import StepClaimed, StepFailed, StepRouted, StepSucceeded
from shared.contracts.step import Step
from shared.contracts.usage import Usage
from shared.errors import LogError
from shared.kafka.port import Consumer, Log, Message, Record, TopicPartition
from shared.placement.parties import Parties
from shared.topics import Topics
from tests.support.routing import node as make_node

Tell = Callable[[Any, int], None]


def digest_of(step: Step) -> str:
    """What an answer says it was made from."""
    return blake2b(repr((step.messages, step.prompt, step.texts)).encode(), digest_size=6).hexdigest()


class PretendedWorker:
    """Each step takes a time drawn between `seconds`; `slots` run at once, without a mailbox all. `tell(outcome, home)`: how homes hear."""

    def __init__(
        self,
        log: Log,
        topics: Topics,
        clock: Clock,
        random: Random,
        *,
        name: str = "node",
        mailbox: int | None = None,
        slots: int = 1,
        seconds: tuple[float, float] = (0.0, 0.05),
        tell: Tell = lambda _outcome, _home: None,
        **registered: Any,
    ) -> None:
        self._log, self._topics, self._clock, self._random, self._tell = log, topics, clock, random, tell
        self.name, self.mailbox, self.slots, self.seconds = name, mailbox, slots, seconds
        self.registration: Node = make_node(name, mailbox=mailbox or 0, slots=slots, **registered)
        self.answer: Callable[[Step, int], str | Answer] = lambda step, number: f"{number} from {digest_of(step)}"
        self.usage: Callable[[Step], Usage] = lambda _: Usage(calls=1, prompt_tokens=1, completion_tokens=1)
        self.steps_seen: list[Step] = []
        self.done: list[Step] = []
        self.runs = 0
        self.silent = 0.0
        """How probable it is, per step read, that it takes the step and never says anything. As the next three."""
        self.fails = 0.0
        self.runs_twice = 0.0
        """A second worker claims and answers the same attempt."""
        self.repeats_outcome = 0.0
        """The same outcome is sent twice."""
        self.records: list[Record] = []
        """Of its mailbox."""
        self.most = 0
        """Most steps taken and not finished at any time: slots, if nobody over-commits."""
        self.closed = False
        """No places are offered."""
        self.tells = False
        """It says of all that it has read that it is claimed. It writes no claims."""
        self._parties = Parties(5.0)
        self._position = self._running = self._sequence = 0
        self._waiting: deque[Step] = deque()
        self._announce = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as group:
            self._group = group
            if self.mailbox is None:
                steps = [TopicPartition(t.name, n) for t in self._topics.all() if t.family.count == "steps" for n in range(t.partitions)]
                everything = await self._opened(stack, reset="earliest")
                work = [self._read(everything, steps, lambda record: self.take(Step.model_validate_json(record.value or b"")))]
            else:
                self._producer = await self._log.producer(client_id=self.name)
                stack.push_async_callback(self._producer.close)
                await self._producer.send(Message(self._topics.nodes, self.registration.to_bytes(), self.name.encode(), 0))
                box, credit = [await self._opened(stack) for _ in range(2)]
                mine, told = TopicPartition(self._topics.work("chat"), self.mailbox), TopicPartition(self._topics.credits, 0)
                work = [self._read(box, [mine], self._given), self._read(credit, [told], self._heard), self._announcing()]
            loops = [group.create_task(loop) for loop in work]
            await stop.wait()
            for task in loops:
                task.cancel()

    async def _opened(self, stack: contextlib.AsyncExitStack, **options: Any) -> Consumer:
        consumer = await self._log.consumer(client_id=self.name, **options)
        stack.push_async_callback(consumer.close)
        return consumer

    async def _read(self, consumer: Consumer, places: list[TopicPartition], take: Callable[[Record], None]) -> None:
        consumer.assign(places)
        while True:
            try:
                batches = await consumer.poll(timeout_seconds=10.0)
            except LogError:
                await self._clock.sleep(0.5)
                continue
            for record in (record for records in batches.values() for record in records):
                take(record)

    # Without routers

    def take(self, step: Step) -> None:
        self.steps_seen.append(step)
        draw = self._random.random
        if draw() < self.silent:
            return
        for number in range(2 if draw() < self.runs_twice else 1):
            self._group.create_task(self._answer(step, f"{self.name}-{number}"))

    async def _answer(self, step: Step, node: str) -> None:
        self.runs += 1
        number = self.runs
        of = {"job": step.job, "step": step.id, "attempt": step.attempt, "node": node}
        claim = f"{node}-{number}"
        self._tell(StepRouted(**of, mailbox=0, offset=number), step.home)
        await self._clock.sleep(self._random.uniform(*self.seconds) / 2)
        self._tell(StepClaimed(**of, claim=claim, mailbox=0, lease_seconds=step.lease_seconds), step.home)
        await self._clock.sleep(self._random.uniform(*self.seconds))
        usage = self.usage(step)
        if self._random.random() < self.fails:
            failure = Failure(kind=FailureKind.MODEL_ERROR, message="pretended", node=node)
            self._tell(StepFailed(**of, claim=claim, failure=failure, usage=usage), step.home)
            return
        said = self.answer(step, number)
        outcome = StepSucceeded(**of, claim=claim, answer=Answer(text=said) if isinstance(said, str) else said, usage=usage)
        self._tell(outcome, step.home)
        if self._random.random() < self.repeats_outcome:
            await self._clock.sleep(self._random.uniform(0, 1))
            self._tell(outcome, step.home)

    # Behind routers

    def _given(self, record: Record) -> None:
        self._position = record.offset + 1
        if headers.find(record.headers, headers.NODE) == self.name.encode():
            self.records.append(record)
            self._waiting.append(Step.model_validate_json(record.value or b""))
            self.most = max(self.most, self._running + len(self._waiting))
            self._begin()

    def _begin(self) -> None:
        while self._waiting and self._running < self.slots:
            self._running += 1
            self._group.create_task(self._work(self._waiting.popleft()))

    async def _work(self, step: Step) -> None:
        await self._clock.sleep(self._random.uniform(*self.seconds))
        self._running -= 1
        self.done.append(step)
        self._begin()
        self._announce.set()

    def _heard(self, record: Record) -> None:
        message = CREDITS.validate_json(record.value or b"")
        if isinstance(message, RouterPresence) and self._parties.on_presence(message, self._clock.monotonic()):
            self._announce.set()

    async def _announcing(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._announce.wait()
            await self._clock.sleep(0.005)
            self._announce.clear()
            with contextlib.suppress(LogError):
                await self._producer.send(Message(self._topics.credits, self._credits().to_bytes(), self.name.encode(), 0))

    def _credits(self) -> Credits:
        self._sequence += 1
        free = 0 if self.closed else max(0, self.slots - self._running - len(self._waiting))
        return Credits(
            node=self.name,
            boot=self.registration.boot,
            sequence=self._sequence,
            mailbox=self.registration.mailbox,
            offers=share(free, self._parties.backlogs(self._clock.monotonic()), self._sequence),
            read={"chat": self._position, "embed": 0},
            told={"chat": (0, self._position)} if self.tells else {},
            running=self._running,
        )
