"""Waiters, the outbox, ids and headers: each reply to its asker, each failure to its caller, nothing unbounded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random

import pytest

from infra.lab import virtual_loop
from services.ingress.http.exchange import call_headers
from services.ingress.problems import ClientGone
from services.ingress.replies.register import Guest
from services.ingress.replies.waiters import Caller, Follow, Waiters
from services.ingress.submit import is_generated, new_job_id
from shared.clock import LoopClock
from shared.contracts.base import PriorityClass
from shared.contracts.blob import BlobRef
from shared.contracts.chat import Answer
from shared.contracts.reply import Chunk, Chunks, Final
from shared.contracts.result import Result, Status
from shared.errors import InvalidInput, LogUnavailable, Overloaded, RecordTooLarge
from shared.kafka.port import Appended, Message, TopicPartition
from shared.processing.lane import Sent, may_be_written
from shared.processing.outbox import FORGOTTEN_SECONDS, Outbox
from shared.topics import Topics
from tests.support.ingress_world import inline


def result(text: str = "hi", job: str = "j") -> Result:
    return Result(job=job, status=Status.SUCCEEDED, answer=Answer(text=text), accepted_at=0, finished_at=0)


def caller(*, stream: bool = False, until: float = 100.0) -> Caller:
    return Caller("j", 0, until, inline, stream=stream)


def chunk(correlation: bytes, text: str, offset: int = 0, job: str = "j") -> Chunks:
    return Chunks(chunks=(Chunk(job=job, step="s", attempt=1, sequence=offset, offset=offset, text=text, correlation=correlation),))


async def test_a_final_reaches_its_caller_and_only_him() -> None:
    """By correlation; a second final changes nothing; an unknown one is counted."""
    waiters = Waiters("epoch", follows=10)
    first, second = caller(), caller()
    one, two = waiters.add(first), waiters.add(second)
    assert one != two
    waiters.on_final(Final(correlation=one, result=result("mine")))
    waiters.on_final(Final(correlation=one, result=result("again")))
    assert (await first.answered()).answer == Answer(text="mine")
    assert not second.ended
    waiters.remove(one)
    waiters.on_final(Final(correlation=one, result=result()))
    waiters.on_final(Final(correlation=b"other-life.1", result=result()))
    assert waiters.unknown == 2


@pytest.mark.parametrize("end", [Caller.expire, Caller.dismiss, lambda caller: caller.fail(ClientGone())], ids=["late", "leaving", "gone"])
async def test_an_answer_that_cannot_be_fetched_keeps_nobody(end: Callable[[Caller], None]) -> None:
    """Who waits for an answer by reference is told of all that others are told of, and nothing of it goes on without him."""
    begun, cancelled = asyncio.Event(), asyncio.Event()

    async def never(_guest: Guest, _result: Result) -> Result:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    waiting = Caller("j", 0, 100.0, never)
    answered = asyncio.create_task(waiting.answered())
    ref = BlobRef(digest="0" * 32, partition=0, first=0, last=0, chunks=1, size=1, written_at=0)
    waiting.on_final(result().model_copy(update={"answer": Answer(blob=ref)}))
    await begun.wait()
    end(waiting)
    async with asyncio.timeout(1):
        await asyncio.wait([answered])
    assert isinstance(answered.exception(), type(waiting.error))
    waiting.close()
    await cancelled.wait()
    waiting.on_final(result("late"))
    assert waiting.result is None


async def test_an_earlier_life_of_the_instance_has_other_correlations() -> None:
    """The epoch is part of the correlation."""
    before, after = Waiters("a", follows=1), Waiters("b", follows=1)
    assert before.add(caller()) != after.add(caller())
    assert not after.is_ours(before.add(caller()))


async def test_whatever_comes_first_ends_the_wait() -> None:
    """A disconnect after the result does not take it back, a result after a disconnect does not either."""
    answered, gone = caller(), caller()
    answered.on_final(result())
    answered.fail(ClientGone())
    assert (await answered.answered()).job == "j"
    gone.fail(ClientGone())
    gone.on_final(result())
    with pytest.raises(ClientGone):
        await gone.answered()


async def test_a_caller_is_woken_when_something_is_new() -> None:
    """Text, the final, and for streams the acknowledgement."""
    waiting = caller(stream=True)
    for news in (waiting.on_acknowledged, lambda: waiting.on_chunk(chunk(b"", "a").chunks[0]), lambda: waiting.on_final(result("ab"))):
        sleeping = asyncio.create_task(waiting.changed())
        await LoopClock().sleep(0)
        assert not sleeping.done()
        news()
        await asyncio.wait_for(sleeping, 1)
    assert waiting.take().text == "ab"


async def test_the_sweep_drops_old_follows() -> None:
    """By the time that is passed in. Callers whose time is up are the register's."""
    waiters = Waiters("e", follows=10)
    waiters.follow(Follow("j", 5.0, lambda _job: None))
    waiters.sweep(4.9, 15.0)
    assert waiters.following("j") is not None
    waiters.sweep(5.0, 15.0)
    assert waiters.following("j") is None


def test_follows_are_bounded_and_tell_of_news() -> None:
    """The oldest gives way; text grows by chunks and is completed by the final."""
    waiters = Waiters("e", follows=2)
    told: list[str] = []
    follows = [Follow(f"j{number}", 100.0, told.append) for number in range(3)]
    correlations = [waiters.follow(follow) for follow in follows]
    assert waiters.following("j0") is None
    waiters.on_chunks(chunk(correlations[2], "hel", job="j2"))
    assert follows[2].text == "hel"
    waiters.on_final(Final(correlation=correlations[2], result=result("hello", "j2")))
    assert follows[2].text == "hello"
    assert told == ["j2", "j2"]


def test_the_text_of_follows_is_bounded_together() -> None:
    """The oldest gives way with what it kept; what has ended or is over is counted no longer."""
    waiters = Waiters("e", follows=10, followed_characters=25)
    follows = [Follow(f"j{number}", 10.0 + number, lambda _job: None) for number in range(4)]
    correlations = [waiters.follow(follow) for follow in follows]
    for number, correlation in enumerate(correlations[:3]):
        waiters.on_chunks(chunk(correlation, "x" * 10, job=f"j{number}"))
    assert [waiters.following(f"j{number}") is not None for number in range(4)] == [False, True, True, True]
    waiters.sweep(11.0, 15.0)
    waiters.on_final(Final(correlation=correlations[3], result=result("y" * 15, "j3")))
    assert [waiters.following(f"j{number}") is not None for number in (2, 3)] == [True, True]
    waiters.on_chunks(chunk(correlations[2], "x", 10, job="j2"))
    assert [waiters.following(f"j{number}") is not None for number in (2, 3)] == [False, True]


class Writer:
    """Acknowledges, refuses or hangs, as told."""

    def __init__(self, outcome: Exception | None = None, *, hangs: bool = False) -> None:
        self.outcome = outcome
        self.hangs = hangs
        self.batches: list[list[Message]] = []

    async def send_many(self, messages: Sequence[Message]) -> list[Appended | Exception]:
        self.batches.append(list(messages))
        if self.hangs:
            await asyncio.Event().wait()
        await LoopClock().sleep(0.001)
        return [self.outcome or Appended(message.topic, 0, 0) for message in messages]

    async def send(self, message: Message) -> Appended:
        raise NotImplementedError

    async def append(self, partition: TopicPartition, messages: Sequence[Message]) -> int:
        raise NotImplementedError

    async def close(self) -> None:
        return None


def outbox(capacity: int = 100) -> Outbox:
    return Outbox(LoopClock(), "ingress", Topics(), patience_seconds=5.0, records=capacity)


def test_what_accumulates_goes_out_in_one_batch() -> None:
    """Concurrent requests share record batches."""

    async def main() -> None:
        box, writer = outbox(), Writer()
        task = asyncio.create_task(box.run(writer))
        await asyncio.gather(*(box.send(Message("outcomes", b"%d" % number)) for number in range(50)))
        assert [len(batch) for batch in writer.batches] == [50]
        task.cancel()

    virtual_loop.run(main())


@pytest.mark.parametrize(("error", "maybe_written"), [(LogUnavailable(), True), (RecordTooLarge(), False)])
def test_a_refused_record_fails_its_caller_at_once(error: Exception, maybe_written: bool) -> None:
    """With the error, and whether the record may lie in the log nevertheless."""

    async def main() -> None:
        box = outbox()
        heard: list[tuple[Sent, bool]] = []
        box.offer(Message("outcomes", b"x"), lambda result: heard.append((result, may_be_written(result))))
        task = asyncio.create_task(box.run(Writer(error)))
        await LoopClock().sleep(0.1)
        assert heard == [(error, maybe_written)]
        assert box.failing
        task.cancel()

    virtual_loop.run(main())


def test_a_refusal_is_forgotten_where_nobody_sends() -> None:
    """An ingress that is not ready for it is led nobody, so nobody sends: it would never be ready again. What waits keeps it up."""

    async def main() -> None:
        box, clock = outbox(), LoopClock()
        task = asyncio.create_task(box.run(Writer(LogUnavailable())))
        box.offer(Message("outcomes", b"x"))
        seen = []
        for seconds in (FORGOTTEN_SECONDS - 0.5, 1.0):
            await clock.sleep(seconds)
            seen.append(box.failing)
        box.offer(Message("outcomes", b"until it is there"), again=True)
        await clock.sleep(FORGOTTEN_SECONDS + 5.0)
        assert [*seen, box.failing] == [True, False, True]
        task.cancel()

    virtual_loop.run(main())


def test_silence_of_kafka_ends_at_the_patience() -> None:
    """What was not handed over is dropped; what was has an unknown fate; a patient record stays; each is told once."""

    async def main() -> None:
        box = outbox()
        heard: list[tuple[str, bool]] = []
        task = asyncio.create_task(box.run(Writer(hangs=True)))
        box.offer(Message("outcomes", b"in flight"), lambda result: heard.append(("in flight", may_be_written(result))))
        await LoopClock().sleep(1.0)
        box.offer(Message("outcomes", b"waiting"), lambda result: heard.append(("waiting", may_be_written(result))))
        box.offer(Message("outcomes", b"patient"), lambda result: heard.append(("patient", may_be_written(result))), again=True)
        await LoopClock().sleep(3.9)
        box.expire()
        assert heard == []
        await LoopClock().sleep(0.1)
        box.expire()
        assert heard == [("in flight", True)]
        await LoopClock().sleep(1_000.0)
        box.expire()
        box.expire()
        assert heard == [("in flight", True), ("waiting", False)]
        assert len(box) == 1
        task.cancel()

    virtual_loop.run(main())


async def test_the_outbox_is_bounded() -> None:
    """The caller beyond the bound is told to come again."""
    box = outbox(capacity=2)
    for _ in range(2):
        box.offer(Message("outcomes", b"x"))
    with pytest.raises(Overloaded):
        box.offer(Message("outcomes", b"x"))


def test_ids_are_ulids_that_sort_by_time() -> None:
    """26 characters of Crockford's base 32; the millisecond decides the order."""
    random = Random(1)
    identifiers = [new_job_id(1_700_000_000 + second / 1000, random) for second in range(200)]
    assert identifiers == sorted(identifiers)
    assert len(set(identifiers)) == 200
    assert all(is_generated(identifier) for identifier in identifiers)
    assert not is_generated("j_mine")
    assert new_job_id(0.0, Random(1)).startswith("j_0000000000")


def test_instances_spread_over_reply_partitions() -> None:
    """By hash of the instance; always a partition that exists."""
    assert {Topics().reply_partition(f"host-{number}") for number in range(200)} == set(range(16))


def scope(**headers: str) -> dict[str, object]:
    return {"headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]}


def test_call_headers() -> None:
    """What tutti understands; a malformed traceparent is ignored, as the specification demands."""
    trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    found = call_headers(
        scope(x_tutti_class="batch", x_tutti_tenant="team-1", x_tutti_deadline_seconds="2.5", x_tutti_detach="true", traceparent=trace)
    )
    assert found[:5] == (PriorityClass.BATCH, "team-1", 2.5, True, trace)
    assert set(found[5:]) == {None}
    assert call_headers(scope(traceparent="junk", content_length="12"))[:6] == (None, None, None, False, None, 12)
    assert call_headers(scope(authorization="Bearer  k1", idempotency_key="once"))[7:9] == ("once", "k1")
    assert call_headers(scope(x_api_key="k2", authorization="Basic x")).api_key == "k2"


@pytest.mark.parametrize(
    "headers",
    [
        {"x_tutti_class": "vip"},
        {"x_tutti_tenant": "a b"},
        {"x_tutti_deadline_seconds": "-1"},
        {"x_tutti_deadline_seconds": "nan"},
        {"idempotency_key": "a b"},
    ],
)
def test_bad_headers_are_refused_by_name(headers: dict[str, str]) -> None:
    """400 with the header's name."""
    with pytest.raises(InvalidInput) as caught:
        call_headers(scope(**headers))
    assert caught.value.param == next(iter(headers)).replace("_", "-")
