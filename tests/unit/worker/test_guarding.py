"""Guarding: nothing that a policy forbids gets into a stream, and the answer is the text that was streamed."""

from __future__ import annotations

from random import Random

import pytest

from services.worker.backends.base import Completion, Delta, ModelCallFailed
from services.worker.guarding import GuardedStream
from shared.contracts.chat import Answer
from shared.contracts.critique import CheckSet, Guard
from shared.contracts.failure import FailureKind
from shared.contracts.step import Step

REDACT = Guard(checks=CheckSet(personal_data=("email", "phone", "card")), action="redact")
BLOCK = Guard(checks=CheckSet(secrets=True), action="block")
TEXT = "Write to bob@example.com or call +49 170 1234567; the card is 4111 1111 1111 1111, and that is all that there is to be said."
REDACTED = "Write to [email] or call [phone]; the card is [card], and that is all that there is to be said."


class Sent:
    """Where chunks go."""

    def __init__(self) -> None:
        self.deltas: list[Delta] = []
        self.finished = False

    def add(self, delta: Delta) -> None:
        self.deltas.append(delta)

    def finish(self) -> None:
        self.finished = True

    @property
    def text(self) -> str:
        return "".join(delta.text for delta in self.deltas)


def step(*guard: Guard, prefix: str | None = None) -> Step:
    return Step(job="j", id="5" * 32, home=0, stream=True, guard=guard, prefix=prefix)


def pieces(text: str, random: Random) -> list[str]:
    cuts = sorted(random.randrange(len(text) + 1) for _ in range(random.randrange(40)))
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def streamed(text: str, given: Step, random: Random, thinking: str | None = None) -> tuple[Sent, Answer]:
    sent = Sent()
    stream = GuardedStream(given, sent)
    for piece in pieces(text, random):
        stream.add(Delta(piece, thinking=None))
    done = stream.completed(Completion(Answer(text=text, thinking=thinking)))
    stream.finish()
    return sent, done.answer


def test_the_answer_is_what_was_streamed_in_any_pieces() -> None:
    random = Random(3)
    for _ in range(200):
        sent, answer = streamed(TEXT, step(REDACT, BLOCK), random)
        assert sent.text == answer.text == REDACTED
        assert [(each.check, each.action, each.count) for each in answer.flagged] == [("personal_data", "redact", 3)]
        assert sent.finished


def test_thoughts_are_guarded_too_and_tool_calls_wait_for_the_answer() -> None:
    sent = Sent()
    stream = GuardedStream(step(REDACT), sent)
    stream.add(Delta("", thinking="mail bob@exam"))
    stream.add(Delta("", thinking="ple.com", tool_calls=({"function": {"name": "send", "arguments": "bob@example.com"}},)))
    done = stream.completed(Completion(Answer(text="ok", thinking="mail bob@example.com")))
    assert done.answer.thinking == "mail [email]" == "".join(delta.thinking or "" for delta in sent.deltas)
    assert all(not delta.tool_calls for delta in sent.deltas)


@pytest.mark.parametrize("seed", range(20))
def test_what_blocks_ends_the_call_and_nothing_of_it_leaves(seed: int) -> None:
    text = f"{TEXT} The key is AKIAIOSFODNN7EXAMPLE, keep it. {TEXT}"
    sent, random = Sent(), Random(seed)
    stream = GuardedStream(step(REDACT, BLOCK), sent)

    def all_of_it() -> None:
        for piece in pieces(text, random):
            stream.add(Delta(piece))
        stream.completed(Completion(Answer(text=text)))

    with pytest.raises(ModelCallFailed) as caught:
        all_of_it()
    assert caught.value.kind is FailureKind.BLOCKED
    assert [(each.check, each.action) for each in caught.value.flagged] == [("secrets", "block")]
    assert "AKIA" not in sent.text
    assert f"{REDACTED} The key is ".startswith(sent.text)


def test_what_is_continued_is_the_rest_alone() -> None:
    """The prefix was let through before."""
    sent, answer = streamed("xample.com? No: bob@example.com", step(REDACT, prefix="Is it me@e"), Random(1))
    assert sent.text == answer.text == "xample.com? No: [email]"


def test_tokens_are_told_as_they_leave() -> None:
    """Never more than came: an answer that is continued must not be cut short for a guess."""
    sent = Sent()
    stream = GuardedStream(step(REDACT), sent)
    for number in range(100):
        stream.add(Delta(f"word{number} ", tokens=2))
        assert sum(delta.tokens for delta in sent.deltas) <= 2 * (number + 1)
    assert sum(delta.tokens for delta in sent.deltas) > 150


def test_without_a_reader_the_answer_is_the_same() -> None:
    stream = GuardedStream(step(REDACT), None)
    stream.add(Delta(TEXT))
    assert stream.completed(Completion(Answer(text=TEXT))).answer.text == REDACTED
