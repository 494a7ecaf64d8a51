"""Broken streams in the book: what the caller has seen becomes history with the next attempt, and is the beginning of the answer."""

from __future__ import annotations

from typing import Any

import pytest

from services.planner.draft import AskPosition
from services.planner.job.open_step import Phase
from services.planner.round import Round
from services.planner.state.policy import Policy
from shared.contracts.event import AttemptFailed, StepAnswered, StepRetried
from shared.contracts.failure import FailureKind
from shared.contracts.job import ReplyTo
from shared.contracts.outcome import StreamPosition
from shared.contracts.result import Status
from shared.scheduling.retry import RetryPolicy
from tests.unit.planner.desk import Desk, claimed, dispatched, failed, kinds, last, published, released, sent_after, succeeded

REPLY = ReplyTo(topic="replies", partition=3, correlation=b"e.1", multiplex=True)
POLICY = Policy(retry=RetryPolicy(3, 0.2, 0.2), stream_position_seconds=2.0)


def streaming(reply: ReplyTo | None = REPLY, **job: Any) -> Desk:
    """A desk whose one job streams, with its step claimed."""
    desk = Desk(POLICY)
    desk.submit(reply=reply, prompt="q", stream=True, **job)
    desk.say(claimed(desk.job, desk.step))
    return desk


def asked(round_: Round) -> list[tuple[int, bytes]]:
    """(attempt, correlation) of every question for what has been seen."""
    return [(e.broken.attempt, e.broken.correlation) for e in round_.after if isinstance(e, AskPosition)]


def seen(desk: Desk, text: str, attempt: int = 1) -> StreamPosition:
    return StreamPosition(job=desk.job.id, step=desk.step.id, attempt=attempt, text=text)


def break_stream(desk: Desk, claim: str = "c1") -> Round:
    return desk.say(failed(desk.job, desk.step, FailureKind.BROKEN_STREAM, claim=claim))


def test_the_next_attempt_continues_what_the_reader_has_seen() -> None:
    """He is asked after the failure's event; his answer goes out with the next attempt and its event; the step is the same one."""
    desk = streaming()
    step = desk.step.id
    assert asked(break_stream(desk)) == [(1, b"e.1")]
    assert sent_after(desk.say(seen(desk, "Once up"))) == []
    [again] = sent_after(desk.wait(0.3))
    assert (again.id, again.attempt, again.prefix) == (step, 2, "Once up")
    event = last(desk, StepRetried)
    assert isinstance(event, StepRetried)
    assert event.prefix == "Once up"
    desk.say(claimed(desk.job, desk.step, "c2"))
    [result] = published(desk.say(succeeded(desk.job, desk.step, "Once upon a time", claim="c2")))
    assert (result.status, result.answer.text) == (Status.SUCCEEDED, "Once upon a time")


def test_what_the_nodes_counted_travels_with_what_they_wrote() -> None:
    """With the attempt and its event, so that a successor's attempt has it too; of text that is begun anew nothing was counted."""
    desk = streaming()
    break_stream(desk)
    desk.say(seen(desk, "Once up").model_copy(update={"tokens": 3}))
    [again] = sent_after(desk.wait(0.3))
    assert (again.prefix, again.prefix_tokens) == ("Once up", 3)
    [same] = dispatched(desk.take_over())
    assert (same.attempt, same.prefix, same.prefix_tokens) == (2, "Once up", 3)
    desk.say(claimed(desk.job, desk.step, "c2"))
    break_stream(desk, "c2")
    [third] = sent_after(desk.wait(POLICY.stream_position_seconds + 0.3))
    assert (third.prefix, third.prefix_tokens) == ("Once up", 3)


def test_the_wait_for_the_reader_is_bounded_and_then_the_stream_begins_anew() -> None:
    """A dead ingress holds a job up for two seconds, not for ever; its late answer changes nothing."""
    desk = streaming()
    break_stream(desk)
    assert desk.wait(1.9).empty
    [again] = sent_after(desk.wait(0.2))
    assert (again.attempt, again.prefix) == (2, None)
    assert desk.say(seen(desk, "too late")).empty
    assert desk.step.prefix == ""


def test_only_the_first_answer_about_this_attempt_counts() -> None:
    """What is said of another attempt, or again, is passed over."""
    desk = streaming()
    break_stream(desk)
    desk.say(seen(desk, "of another", attempt=2), seen(desk, "first"), seen(desk, "second"))
    [again] = sent_after(desk.wait(0.3))
    assert again.prefix == "first"


def test_a_second_break_continues_everything_and_silence_keeps_what_is_known() -> None:
    """The reader's text grows over attempts; when he says nothing any more, the last prefix is still the answer's beginning."""
    desk = streaming()
    break_stream(desk)
    desk.say(seen(desk, "one"))
    desk.wait(0.3)
    desk.say(claimed(desk.job, desk.step, "c2"))
    assert asked(break_stream(desk, "c2")) == [(2, b"e.1")]
    [again] = sent_after(desk.wait(2.1))
    assert (again.attempt, again.prefix) == (3, "one")


def test_a_released_stream_is_continued_too() -> None:
    """A draining worker gives back a stream in the middle: no attempt is counted, no text is lost."""
    desk = streaming()
    assert asked(desk.say(released(desk.job, desk.step, claim="c1"))) == [(1, b"e.1")]
    [again] = sent_after(desk.say(seen(desk, "half")))
    assert (again.attempt, again.prefix, desk.step.failures) == (2, "half", 0)


@pytest.mark.parametrize("reply", [None, REPLY.model_copy(update={"multiplex": False})])
def test_who_is_not_asked_gets_a_stream_that_begins_anew(reply: ReplyTo | None) -> None:
    """A plain producer reads attempts and offsets himself."""
    desk = streaming(reply)
    assert asked(break_stream(desk)) == []
    [again] = sent_after(desk.wait(0.3))
    assert (again.attempt, again.prefix) == (2, None)


def test_no_plain_step_waits_for_a_reader() -> None:
    """Only streams are asked for."""
    desk = Desk(POLICY)
    desk.submit(reply=REPLY, prompt="q")
    desk.say(claimed(desk.job, desk.step))
    assert asked(desk.say(failed(desk.job, desk.step))) == []
    assert len(sent_after(desk.wait(0.3))) == 1


def test_an_answer_that_does_not_begin_with_what_was_seen_is_refused() -> None:
    """A node that began anew has failed: what is recorded is what the caller saw."""
    desk = streaming()
    break_stream(desk)
    desk.say(seen(desk, "Once up"))
    desk.wait(0.3)
    desk.say(claimed(desk.job, desk.step, "c2", node="n2"))
    round_ = desk.say(succeeded(desk.job, desk.step, "Long ago", claim="c2", node="n2"))
    event = last(desk, AttemptFailed)
    assert isinstance(event, AttemptFailed)
    assert (event.failure.kind, event.failure.node) == (FailureKind.BROKEN_STREAM, "n2")
    assert kinds(round_) == ["attempt_failed"]
    assert not [e for e in desk.types() if e == "step_answered"]


def test_a_take_over_while_the_reader_is_awaited_asks_again() -> None:
    """His first answer died with the planner; he says the same again."""
    desk = streaming()
    break_stream(desk)
    desk.say(seen(desk, "seen"))  # folded, in no event yet
    assert asked(desk.take_over()) == [(1, b"e.1")]
    assert desk.step.phase is Phase.WAITING
    desk.say(seen(desk, "seen"))
    [again] = sent_after(desk.wait(0.3))
    assert (again.attempt, again.prefix) == (2, "seen")


def test_a_take_over_after_the_retry_sends_the_same_attempt_with_the_same_prefix() -> None:
    """The prefix is history: no other planner can make another attempt 2."""
    desk = streaming()
    break_stream(desk)
    desk.say(seen(desk, "seen"))
    desk.wait(0.3)
    round_ = desk.take_over()
    [again] = dispatched(round_)
    assert (again.attempt, again.prefix, asked(round_)) == (2, "seen", [])
    desk.say(claimed(desk.job, desk.step, "c2"), succeeded(desk.job, desk.step, "seen and done", claim="c2"))
    answered = last(desk, StepAnswered)
    assert isinstance(answered, StepAnswered)
    assert answered.answer.text == "seen and done"


def test_a_prefix_survives_a_snapshot() -> None:
    """A long-lived job is written again with it."""
    desk = streaming()
    break_stream(desk)
    desk.say(seen(desk, "seen"))
    desk.wait(0.3)
    before = len(desk.history)
    desk.snapshot(desk.job)
    replay, book, round_ = desk.replayed(desk.history[before:])
    replay.finish()
    [again] = dispatched(round_)
    assert again.prefix == next(iter(book.jobs["j_0"].steps.values())).prefix == "seen"


def test_a_step_that_would_not_fit_a_record_with_its_prefix_fails() -> None:
    """Typed, and at once."""
    desk = Desk(POLICY)
    desk.submit(reply=REPLY, prompt="q" * 60_000, system="s" * 60_000, stream=True)
    desk.say(claimed(desk.job, desk.step))
    break_stream(desk)
    desk.say(seen(desk, "x" * 64_000))
    [result] = published(desk.wait(0.3))
    assert (result.status, result.failure.kind) == (Status.FAILED, FailureKind.TOO_LARGE)
