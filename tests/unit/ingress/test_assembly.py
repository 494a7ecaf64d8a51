"""Laws of StreamAssembly: whatever the log does to chunks, what the client gets is the accepted answer, or a clear failure."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingress.replies.assembly import StreamAssembly, StreamConflict
from shared.contracts.chat import Answer
from shared.contracts.reply import Chunk


def chunk(offset: int, text: str, *, attempt: int = 1, sequence: int = 0, step: str = "s", **fields: object) -> Chunk:
    return Chunk.model_validate(
        {"job": "j", "step": step, "attempt": attempt, "sequence": sequence, "offset": offset, "text": text, **fields}
    )


def split(text: str, cuts: list[int], attempt: int = 1) -> list[Chunk]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [chunk(a, text[a:b], attempt=attempt, sequence=n) for n, (a, b) in enumerate(itertools.pairwise(places))]


def drain(assembly: StreamAssembly) -> str:
    return assembly.take().text


def test_thoughts_of_which_no_chunk_came_come_with_the_answer() -> None:
    """Before its text; where some came, the rest of them: the end may overtake the last chunks."""
    lost, seen = StreamAssembly(), StreamAssembly()
    lost.finish(Answer(text="yes", thinking="hm"))
    assert lost.take() == ("yes", "hm")
    seen.add(chunk(0, "", thinking="h"))
    assert seen.take() == ("", "h")
    seen.finish(Answer(text="yes", thinking="hm"))
    assert seen.take() == ("yes", "m")
    other = StreamAssembly()
    other.add(chunk(0, "", thinking="another"))
    other.finish(Answer(text="yes", thinking="hm"))
    assert other.take() == ("yes", "another")


texts = st.text(min_size=1, max_size=60)
cuts = st.lists(st.integers(0, 100), max_size=12)


@given(texts, cuts, st.data())
def test_lost_repeated_and_reordered_chunks_are_made_good(text: str, where: list[int], data: st.DataObject) -> None:
    """Any sub-multiset of the chunks in any order, then the final: the client has received exactly the answer, once."""
    pieces = split(text, where)
    arriving = data.draw(st.lists(st.sampled_from(pieces), max_size=20))
    assembly = StreamAssembly()
    received = ""
    for piece in arriving:
        assembly.add(piece)
        if data.draw(st.booleans()):
            received += drain(assembly)
        assert text.startswith(received)
    assembly.finish(Answer(text=text))
    assert received + drain(assembly) == text


@given(texts, cuts)
def test_in_order_chunks_are_passed_on_at_once(text: str, where: list[int]) -> None:
    """Without faults every chunk can be taken as soon as it is there."""
    assembly = StreamAssembly()
    for piece in split(text, where):
        assert assembly.add(piece)
        assert drain(assembly) == piece.text


@given(texts, texts, cuts, cuts, st.data())
def test_an_overtaken_attempt_never_mixes_in(old: str, new: str, old_cuts: list[int], new_cuts: list[int], data: st.DataObject) -> None:
    """Chunks of two attempts interleaved: the client gets the newer attempt's text whole, or a conflict, never a mixture."""
    queue_old, queue_new = split(old, old_cuts), split(new, new_cuts, attempt=2)
    assembly = StreamAssembly()
    received = ""
    try:
        while queue_old or queue_new:
            take_old = queue_old and (not queue_new or data.draw(st.booleans()))
            assembly.add((queue_old if take_old else queue_new).pop(0))
            if data.draw(st.booleans()):
                received += drain(assembly)
        assembly.finish(Answer(text=new))
        received += drain(assembly)
    except StreamConflict:
        assert not new.startswith(received) or not received
        return
    assert received == new


@given(texts, cuts)
def test_a_repeated_attempt_with_the_same_text_is_seamless(text: str, where: list[int]) -> None:
    """A second attempt that says the same again from its beginning adds nothing and breaks nothing."""
    assembly = StreamAssembly()
    received = ""
    for piece in [*split(text, where)[:-1], *split(text, where, attempt=2)]:
        assembly.add(piece)
        received += drain(assembly)
    assert received == text


def test_what_was_not_sent_yet_gives_way_to_a_newer_attempt() -> None:
    """Text that nobody has seen is no reason to fail."""
    assembly = StreamAssembly()
    assembly.add(chunk(0, "old words"))
    assembly.add(chunk(0, "new", attempt=2))
    assert drain(assembly) == "new"


def test_a_continued_stream_keeps_what_it_continues_from() -> None:
    """`continues_from` says how much of the earlier attempt's text the newer one stands on."""
    assembly = StreamAssembly()
    assembly.add(chunk(0, "one two three"))
    assembly.add(chunk(7, " 3", attempt=2, continues_from=7))
    assert drain(assembly) == "one two 3"


def test_a_contradiction_of_what_was_sent_is_a_conflict() -> None:
    """By a chunk or by the final, at the first differing character."""
    assembly = StreamAssembly()
    assembly.add(chunk(0, "the sky is blue"))
    drain(assembly)
    with pytest.raises(StreamConflict):
        assembly.add(chunk(0, "the sky is grey", attempt=2))
    with pytest.raises(StreamConflict):
        assembly.finish(Answer(text="the sky is grey"))


def test_a_shorter_final_than_what_was_sent_is_a_conflict() -> None:
    """The client has more than the answer: that cannot be taken back."""
    assembly = StreamAssembly()
    assembly.add(chunk(0, "too much"))
    drain(assembly)
    with pytest.raises(StreamConflict):
        assembly.finish(Answer(text="too"))


def test_chunks_of_another_step_are_not_the_answer() -> None:
    """Only one step streams into an answer."""
    assembly = StreamAssembly()
    assembly.add(chunk(0, "answer"))
    assert drain(assembly) == "answer"
    assert not assembly.add(chunk(6, "!", step="other"))
    assert drain(assembly) == ""


def test_chunks_after_the_final_change_nothing() -> None:
    """The final is the last word, whatever arrives later."""
    assembly = StreamAssembly()
    assembly.finish(Answer(text="done"))
    assert not assembly.add(chunk(0, "late", attempt=9)) or drain(assembly) == "done"
    assert assembly.characters == len("done")


def test_thinking_is_shown_once_in_order() -> None:
    """Of the first attempt that thinks; a repetition by sequence is dropped."""
    assembly = StreamAssembly()
    assembly.add(chunk(0, "", thinking="hm ", sequence=0))
    assembly.add(chunk(0, "", thinking="hm ", sequence=0))
    assembly.add(chunk(0, "", thinking="yes", sequence=1))
    assembly.add(chunk(0, "", thinking="again", sequence=0, attempt=2))
    assert assembly.take().thinking == "hm yes"
