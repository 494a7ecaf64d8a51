"""Broken streams at the ingress: what the client has been shown is said once and for all, and the next attempt goes on from there."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.replies.assembly import StreamAssembly, StreamConflict
from services.ingress.replies.waiters import Caller, Follow, Waiters
from shared.contracts.chat import Answer
from shared.contracts.reply import Chunk, Chunks, StreamBroken
from tests.support.ingress_world import inline
from tests.unit.ingress.test_assembly import chunk, split


def broken(correlation: bytes, attempt: int = 1, step: str = "s") -> StreamBroken:
    return StreamBroken(job="j", step=step, attempt=attempt, home=1, correlation=correlation)


def sent(correlation: bytes, text: str, offset: int = 0, attempt: int = 1, **more: int) -> Chunks:
    piece = Chunk(job="j", step="s", attempt=attempt, sequence=0, offset=offset, text=text, correlation=correlation, **more)
    return Chunks(chunks=(piece,))


@given(st.text(min_size=1, max_size=40), st.text(max_size=40), st.text(max_size=40), st.lists(st.integers(0, 60), max_size=6), st.data())
def test_shown_text_and_continuation_join_whatever_is_lost_or_late(
    first: str, lost: str, rest: str, cuts: list[int], data: st.DataObject
) -> None:
    """Any chunks of attempt 1 before and after the break, any of attempt 2: taken is the prefix said, then the rest."""
    assembly, shown = StreamAssembly(), ""
    pieces = split(first + lost, cuts)
    for piece in data.draw(st.lists(st.sampled_from(pieces), max_size=8)):
        assembly.add(piece)
        if data.draw(st.booleans()):
            shown += assembly.take().text
    prefix = assembly.break_off("s", 1)[0]
    assert prefix.startswith(shown)
    for late in data.draw(st.lists(st.sampled_from(pieces), max_size=8)):
        assembly.add(late)
        shown += assembly.take().text
    assert assembly.break_off("s", 1)[0] == prefix
    for piece in split(rest, cuts, attempt=2):
        again = {"offset": piece.offset + len(prefix), "continues_from": len(prefix)}
        assembly.add(piece.model_copy(update=again))
    assembly.finish(Answer(text=prefix + rest))
    assert shown + assembly.take().text == prefix + rest


def test_an_attempt_that_begins_anew_after_text_was_shown_is_a_conflict() -> None:
    """The client never gets a mixture of two answers."""
    assembly = StreamAssembly()
    assembly.add(chunk(0, "Once upon"))
    assembly.take()
    assembly.break_off("s", 1)
    with pytest.raises(StreamConflict):
        assembly.add(chunk(0, "Long ago", attempt=2))


async def test_the_caller_of_this_instance_is_asked_and_nobody_elses() -> None:
    """By correlation. A caller who left has been shown nothing; another instance's stream is not ours to answer for."""
    waiters = Waiters("epoch", follows=10)
    caller = Caller("j", 1, 100.0, inline, stream=True)
    correlation = waiters.add(caller)
    waiters.on_chunks(sent(correlation, "Once up"))
    position = waiters.on_broken(broken(correlation))
    assert position is not None
    assert (position.job, position.step, position.attempt, position.text) == ("j", "s", 1, "Once up")
    waiters.on_chunks(sent(correlation, "on", 7))
    waiters.on_chunks(sent(correlation, "stairs", 7, 2, continues_from=7))
    assert caller.take().text == "Once upstairs"
    waiters.remove(correlation)
    gone = waiters.on_broken(broken(correlation, 2))
    assert gone is not None
    assert gone.text == ""
    assert waiters.on_broken(broken(b"other.1")) is None


def test_a_follow_is_asked_for_all_its_text() -> None:
    """Its readers come and go; any of them may have seen all of it."""
    waiters = Waiters("epoch", follows=10)
    follow = Follow("j", 100.0, lambda _job: None)
    correlation = waiters.follow(follow)
    waiters.on_chunks(sent(correlation, "Once up"))
    position = waiters.on_broken(broken(correlation))
    assert position is not None
    assert position.text == follow.text == "Once up"


async def test_text_too_long_to_be_continued_ends_the_wait_with_a_typed_error() -> None:
    """What does not fit an outcome cannot be asked for again."""
    waiters = Waiters("epoch", follows=10)
    caller = Caller("j", 1, 100.0, inline, stream=True)
    correlation = waiters.add(caller)
    waiters.on_chunks(sent(correlation, "x" * 70_000))
    position = waiters.on_broken(broken(correlation))
    assert position is not None
    assert position.text == ""
    assert isinstance(caller.error, StreamConflict)


def test_of_an_attempt_that_is_claimed_twice_the_run_that_was_seen_first_is_shown() -> None:
    """Two runs of one attempt write different texts: their chunks fit together by offset only by chance. The next attempt is anybody's."""
    assembly = StreamAssembly()
    assembly.add(chunk(0, "Once upon ").model_copy(update={"claim": "a"}))
    for piece in (chunk(0, "Long ago in "), chunk(10, "in a far land")):
        assert not assembly.add(piece.model_copy(update={"claim": "b"})) or assembly.take().text == "Once upon "
    assembly.add(chunk(10, "a time").model_copy(update={"claim": "a"}))
    assert assembly.break_off("s", 1)[0] == "Once upon a time"
    again = {"claim": "b", "offset": 16, "continues_from": 16}
    assembly.add(chunk(16, " there", attempt=2).model_copy(update=again))
    assert assembly.break_off("s", 2)[0] == "Once upon a time there"


def test_what_is_continued_is_told_with_its_tokens_as_far_as_they_are_counted() -> None:
    """Of the contiguous text, also of what came early; a piece that nobody counted makes the sum unknown."""
    assembly = StreamAssembly()
    for offset, text, tokens in ((0, "one", 1), (7, " three", 3), (3, " two", 2)):
        assembly.add(chunk(offset, text).model_copy(update={"tokens": tokens}))
    assert assembly.break_off("s", 1) == ("one two three", 3)
    waiters = Waiters("e", follows=1)
    correlation = waiters.follow(Follow("j", 10.0, lambda _job: None))
    waiters.on_chunks(sent(correlation, "one", tokens=1))
    position = waiters.on_broken(broken(correlation))
    assert position is not None
    assert (position.text, position.tokens) == ("one", 1)
    assembly.add(chunk(13, " four", attempt=2).model_copy(update={"continues_from": 13}))
    assert assembly.break_off("s", 2) == ("one two three four", None)
