"""A planner for tests of the ingress: takes jobs from `jobs.*` of any log and answers them by a script, with events, chunks and finals.

It keeps the real planner's wire forms (headers, keys, partitions, epochs), its memory of repeated ids, and none of its durability.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from shared.clock import Clock
from shared.contracts import event as events
from shared.contracts import ids
from shared.contracts.base import CLASSES, PriorityClass
from shared.contracts.bounds import parse_job
from shared.contracts.chat import Answer
from shared.contracts.conversation import ConversationChanged, ConversationDropped
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.headers import HELD_JOB, REQUEST_DIGEST, Envelope, correlation_headers, envelope, find
from shared.contracts.job import HeldJob, Job, ReplyTo
from shared.contracts.limits import Limits
from shared.contracts.outcome import OUTCOME, CancelRequested
from shared.contracts.reply import Chunk, Chunks, Final
from shared.contracts.result import Result, Status
from shared.contracts.review import Deliberation, ReviewDecided, ReviewGiven, ReviewOpened
from shared.contracts.usage import Usage
from shared.kafka.port import Log, Message, Producer, TopicPartition
from shared.topics import Topics

USAGE = Usage(calls=1, prompt_tokens=3, completion_tokens=5)
STEP = "5" * 32


@dataclass(frozen=True, slots=True)
class Script:
    """What becomes of a job. `chunks`: text pieces sent before the end; `hold`: no end until `Planner.release`."""

    text: str = "hello back"
    failure: Failure | None = None
    status: Status = Status.SUCCEEDED
    chunks: tuple[str, ...] = ()
    hold: bool = False
    waits: bool = False
    """Its step is asked for, and not claimed until `Planner.claim`."""
    silent: bool = False
    """No event, no reply."""
    answer: Answer | None = None
    simulated: bool = False


@dataclass(slots=True)
class Seen:
    """A job as the planner got it."""

    id: str
    """Inside the cluster."""
    job: Job
    home: int
    priority_class: PriorityClass
    headers: dict[str, bytes]
    reply: ReplyTo | None
    script: Script
    digest: str = "d"
    ended: Result | None = None
    followers: list[ReplyTo] = field(default_factory=list)


@dataclass(slots=True)
class Planner:
    """`jobs` and `cancels` are what arrived, by job id."""

    log: Log
    topics: Topics
    clock: Clock
    script: Callable[[Job], Script] = lambda _job: Script()
    jobs: dict[str, Seen] = field(default_factory=dict)
    cancels: dict[str, int] = field(default_factory=dict)
    """Job id → partition of `outcomes` that the cancel came on."""
    submissions: int = 0
    """Job records read, repeated ones too."""
    epochs: dict[int, int] = field(default_factory=dict)
    producer: Producer = field(init=False)
    reviews: dict[tuple[str, str], Deliberation] = field(default_factory=dict)
    given: list[ReviewGiven] = field(default_factory=list)
    conversations: dict[tuple[str, str], ConversationChanged] = field(default_factory=dict)
    deaf: bool = False
    """Nothing that people say becomes a fact."""
    busy: asyncio.Event | None = None
    """Nothing is read until it is set."""

    async def open(self) -> None:
        """Take all homes."""
        self.producer = await self.log.producer(client_id="fake-planner")
        for number in range(self.topics.settings.home_partitions):
            await self.begin(number)

    async def run(self) -> None:
        """Answer until cancelled."""
        consumer = await self.log.consumer(client_id="fake-planner", reset="earliest")
        inputs = [*self.topics.all_jobs(), self.topics.outcomes]
        consumer.assign([TopicPartition(topic, number) for topic in inputs for number in range(self.topics.settings.home_partitions)])
        try:
            while True:
                batches = await consumer.poll(timeout_seconds=0.2)
                if self.busy is not None:
                    await self.busy.wait()
                out: list[Message] = []
                for partition, records in batches.items():
                    for record in records:
                        out.extend(self._on_record(partition, record))
                if out:
                    await self.send(out)
        finally:
            await consumer.close()
            await self.producer.close()

    async def begin(self, number: int) -> None:
        """Take a home partition."""
        started = events.PlannerStarted(nonce="n", planner="fake")
        partition = TopicPartition(self.topics.job_events, number)
        self.epochs[number] = await self.producer.append(partition, [self.event(number, started)])

    async def send(self, messages: list[Message]) -> int:
        """Returns where the last of them lies."""
        offset = -1
        for result in await self.producer.send_many(messages):
            if isinstance(result, Exception):
                raise result
            offset = result.offset
        return offset

    def event(self, home: int, event: Any) -> Message:
        """What a home writes of it."""
        key = event.job.encode() if hasattr(event, "job") else None
        return Message(self.topics.job_events, event.to_bytes(), key, home, envelope(event.type))

    def _of(self, seen: Seen) -> dict[str, Any]:
        """What every event of a job says."""
        return {"epoch": self.epochs[seen.home], "job": seen.id, "at": self.clock.wall()}

    def _on_record(self, partition: TopicPartition, record: Any) -> list[Message]:
        if partition.topic == self.topics.outcomes:
            kind = find(record.headers, "type")
            if kind == b"review_given":
                return self._decided(ReviewGiven.model_validate_json(record.value))
            if kind in (b"conversation_set", b"conversation_dropped"):
                return self._talked(OUTCOME.validate_json(record.value), partition.partition)
            cancel = CancelRequested.model_validate_json(record.value)
            self.cancels[cancel.job] = partition.partition
            return self._cancelled(cancel.job) if cancel.job in self.jobs else []
        kind = find(record.headers, "type")
        assert kind in (b"job", HELD_JOB.encode())
        job = parse_job(record.value, Job if kind == b"job" else HeldJob)
        assert job.id is not None
        assert record.key == job.id.encode()
        priority_class = next(c for c in CLASSES if self.topics.jobs(c) == partition.topic)
        reply = Envelope(record.headers).reply_address()
        digest = (find(record.headers, REQUEST_DIGEST) or b"d").decode()
        self.submissions += 1
        identifier = ids.qualified(job.tenant, job.id)
        if (before := self.jobs.get(identifier)) is not None:
            return self._again(before, reply, digest)
        seen = Seen(identifier, job, partition.partition, priority_class, dict(record.headers), reply, self.script(job), digest)
        self.jobs[identifier] = seen
        return [] if seen.script.silent else [*self._accept(seen, record), *(() if seen.script.hold else self.end(identifier))]

    def _again(self, seen: Seen, reply: ReplyTo | None, digest: str) -> list[Message]:
        """The id is known: another body is told, the same one gets the same result, or joins."""
        if reply is None:
            return []
        if digest != seen.digest:
            failure = Failure(kind=FailureKind.CONFLICT, message="this id is already used with another body")
            refused = {"status": Status.FAILED, "failure": failure, "answer": None}
            return [self._final(reply, self.result(seen).model_copy(update=refused))]
        if seen.ended is None:
            if not reply.reads_events:
                seen.followers.append(reply)
            return [self.event(seen.home, events.CallerJoined(**self._of(seen)))]
        return [self._final(reply, seen.ended)]

    @staticmethod
    def _final(reply: ReplyTo, result: Result) -> Message:
        value = Final(correlation=reply.correlation, result=result).to_bytes()
        return Message(reply.topic, value, result.job.encode(), reply.partition, (*envelope("final"), *correlation_headers(reply)))

    def _accept(self, seen: Seen, record: Any) -> list[Message]:
        job, now = seen.job, self.clock.wall()
        base = self._of(seen)
        accepted = events.JobAccepted(
            **base,
            request=job,
            priority_class=seen.priority_class,
            home=seen.home,
            source=f"{record.topic}/{record.partition}/{record.offset}",
            source_offset=record.offset,
            pattern_version=1,
            limits=Limits(),
            deadline_at=job.deadline_at or now + 60,
            digest=seen.digest,
        )
        asked = events.StepAsked(**base, step=STEP, path="0", agent="chat", model=job.model)
        messages = [self.event(seen.home, events.joined(accepted, asked)), *([] if seen.script.waits else self._claimed(seen))]
        return [*messages, *self.chunks(seen.id, seen.script.chunks)]

    def _claimed(self, seen: Seen) -> list[Message]:
        claimed = events.StepClaimedBy(**self._of(seen), step=STEP, attempt=1, claim="c", node="node-1", mailbox=0, lease_seconds=20)
        return [self.event(seen.home, claimed)]

    async def claim(self, identifier: str) -> None:
        """A node takes the step of a job that waits."""
        await self.send(self._claimed(self.jobs[identifier]))

    def chunks(self, identifier: str, texts: tuple[str, ...], *, attempt: int = 1, sequence: int = 0, offset: int = 0) -> list[Message]:
        """Chunk records of a job that asked for a stream."""
        seen = self.jobs[identifier]
        if seen.reply is None or not seen.job.stream:
            return []
        messages = []
        for number, text in enumerate(texts, sequence):
            chunk = Chunk(
                job=identifier,
                step=STEP,
                attempt=attempt,
                sequence=number,
                offset=offset,
                text=text,
                model="tiny:1",
                simulated=seen.script.simulated,
                correlation=seen.reply.correlation,
            )
            offset += len(text)
            messages.append(Message(seen.reply.topic, Chunks(chunks=(chunk,)).to_bytes(), None, seen.reply.partition, envelope("chunks")))
        return messages

    def result(self, seen: Seen) -> Result:
        script, now = seen.script, self.clock.wall()
        answer = script.answer or Answer(text=script.text, model="tiny:1", node="node-1", simulated=script.simulated)
        succeeded = script.status is Status.SUCCEEDED
        return Result(
            job=seen.id,
            tenant=seen.job.tenant,
            pattern=seen.job.pattern,
            status=script.status,
            answer=answer if succeeded else None,
            failure=script.failure,
            usage=USAGE,
            priority_class=seen.priority_class,
            steps=1,
            attempts=1,
            accepted_at=now,
            finished_at=now,
            callback=seen.job.callback,
        )

    def end(self, identifier: str) -> list[Message]:
        """The step's answer, the settle event and the finals that are owed."""
        seen = self.jobs[identifier]
        base = self._of(seen)
        result = seen.ended = self.result(seen)
        settled: Any = events.JobSettled(**base, result=result, digest=seen.digest)
        if result.answer is not None:
            answered = events.StepAnswered(**base, step=STEP, attempt=1, node="node-1", answer=result.answer, usage=USAGE)
            settled = events.joined(answered, settled)
        messages = [self.event(seen.home, settled)]
        owed = [reply for reply in (seen.reply, *seen.followers) if reply is not None and not reply.reads_events]
        return messages + [self._final(reply, result) for reply in owed]

    async def ask(self, identifier: str, artefact: str, step: str = STEP, **terms: Any) -> ReviewOpened:
        """Open a review of a job that is held."""
        seen = self.jobs[identifier]
        opened = ReviewOpened(
            **self._of(seen),
            step=step,
            path="0.0",
            artefact=artefact,
            question="good?",
            tenant=seen.job.tenant,
            digest=ids.digest_of(artefact.encode()),
            due_at=self.clock.wall() + 60,
            **terms,
        )
        self.reviews[identifier, step] = Deliberation.of(opened)
        await self.send([self.event(seen.home, opened)])
        return opened

    def _decided(self, given: ReviewGiven) -> list[Message]:
        self.given.append(given)
        review = self.reviews[given.job, given.step]
        if review.refusal(given) is not None or self.deaf:
            return []
        seen, over = self.jobs[given.job], review.decides(given)
        event = ReviewDecided(**self._of(seen), step=given.step, verdict=given.verdict, text=given.text, by=given.by, over=over)
        review.fold(event)
        return [self.event(seen.home, event)]

    def _talked(self, told: Any, home: int) -> list[Message]:
        """As an owner of conversations without turns."""
        if self.deaf:
            return []
        key = told.tenant, told.conversation
        known = self.conversations.get(key) or ConversationChanged(epoch=0, tenant=key[0], conversation=key[1], at=self.clock.wall())
        if isinstance(told, ConversationDropped):
            return self.converse(known.changed_to(gone=True, memory=None, newest=None), home)
        if (known.memory.digest if known.memory else None) != told.based_on:
            return []
        return self.converse(known.changed_to(memory=told.memory, memory_size=told.memory_size), home)

    def converse(self, changed: ConversationChanged, home: int) -> list[Message]:
        """The event of it."""
        self.conversations[changed.tenant, changed.conversation] = changed
        event = changed.changed_to(epoch=self.epochs[home])
        key = f"#conversation/{changed.tenant}/{changed.conversation}".encode()
        return [Message(self.topics.job_events, event.to_bytes(), key, home, envelope(event.type))]

    def _cancelled(self, identifier: str) -> list[Message]:
        seen = self.jobs[identifier]
        seen.script = Script(status=Status.CANCELLED)
        return self.end(identifier)

    async def release(self, identifier: str) -> None:
        """End a job that was held."""
        await self.send(self.end(identifier))


@asynccontextmanager
async def planning(log: Log, topics: Topics, clock: Clock, script: Callable[[Job], Script] | None = None) -> AsyncIterator[Planner]:
    """A planner at work."""
    planner = Planner(log, topics, clock) if script is None else Planner(log, topics, clock, script)
    await planner.open()
    task = asyncio.create_task(planner.run())
    try:
        yield planner
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
