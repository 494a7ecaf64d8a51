"""StreamAssembly: the answer's text out of chunks that may be lost, repeated, reordered or overtaken by a newer attempt. Pure.

What has been taken (sent to the client) is never changed. Only growing attempts are accepted, and of each the run that was seen first (an
attempt may be claimed twice); a chunk's place is its character offset; what is missing at the end is completed from the final's full text.
When that contradicts what was taken, the stream fails clearly.
"""

from __future__ import annotations

from typing import NamedTuple

from shared.contracts.base import ClaimId
from shared.contracts.chat import Answer
from shared.contracts.reply import Chunk
from shared.errors import TuttiError

_MAX_AHEAD = 1_024
_MAX_CHARACTERS = 4_000_000


class StreamConflict(TuttiError):
    """A later attempt's text differs from what has already been sent."""

    code = "stream_conflict"


class TextDelta(NamedTuple):
    """New text since the last `take`."""

    text: str
    thinking: str


SeenText = tuple[str, int | None]
"""What the next attempt continues, and its tokens as the nodes counted them, where they did."""
NOTHING: SeenText = ("", None)


class GrowingText:
    """Text that grows by parts, in linear time."""

    __slots__ = ("_parts", "length")

    def __init__(self, text: str = "") -> None:
        self._parts = [text] if text else []
        self.length = len(text)

    def append(self, text: str) -> None:
        if text:
            self._parts.append(text)
            self.length += len(text)

    def whole(self) -> str:
        if len(self._parts) > 1:
            self._parts = ["".join(self._parts)]
        return self._parts[0] if self._parts else ""


class StreamAssembly:
    """One answer. `add` chunks and `finish` in any order that the log may produce; `take` what can be sent."""

    __slots__ = (
        "_ahead",
        "_attempt",
        "_broken",
        "_claim",
        "_ready",
        "_step",
        "_taken",
        "_thinking",
        "_thinking_attempt",
        "_thinking_sequence",
        "_thought",
        "_tokens",
    )

    def __init__(self) -> None:
        self._step: str | None = None
        self._attempt = 0
        self._claim: ClaimId | None = None
        self._broken = 0
        self._taken = GrowingText()
        self._ready = GrowingText()
        self._tokens: int | None = None
        """Of the contiguous text."""
        self._ahead: dict[int, tuple[str, int | None]] = {}
        self._thinking = ""
        self._thought = GrowingText()
        """All that was accepted of it."""
        self._thinking_attempt = 0
        self._thinking_sequence = -1

    @property
    def characters(self) -> int:
        """Contiguous characters accepted so far."""
        return self._taken.length + self._ready.length

    def add(self, chunk: Chunk) -> bool:
        """Accept a chunk; returns whether there is something to take. Raises StreamConflict."""
        if chunk.attempt < self._attempt or chunk.attempt <= self._broken or (self._step is not None and chunk.step != self._step):
            return False
        if chunk.attempt > self._attempt:
            self._begin(chunk)
        elif chunk.claim != self._claim:
            return False
        if chunk.thinking:
            self._think(chunk)
        if chunk.text:
            self._place(chunk.offset, chunk.text, chunk.tokens)
        return bool(self._ready.length or self._thinking)

    def take(self) -> TextDelta:
        """What is new; from now on it counts as sent."""
        delta = TextDelta(self._ready.whole(), self._thinking)
        self._taken.append(delta.text)
        self._ready = GrowingText()
        self._thinking = ""
        return delta

    def finish(self, answer: Answer) -> None:
        """Complete from the accepted answer. Raises StreamConflict when it does not begin with what was taken."""
        sent = self._taken.length
        if sent and answer.text[:sent] != self._taken.whole():
            raise StreamConflict
        thought = self._thought.whole()
        if answer.thinking and answer.thinking.startswith(thought):
            self._thinking += answer.thinking[len(thought) :]
        self._ready = GrowingText(answer.text[sent:])
        self._ahead.clear()
        self._attempt = 2**31

    def break_off(self, step: str, attempt: int) -> SeenText:
        """The attempt broke: nothing more of it, or of earlier ones, is accepted. Returns the text so far, which the next one continues.

        The same again when asked again. Text that lies beyond a gap is given up.
        """
        if self._step is not None and step != self._step:
            return NOTHING
        self._broken = max(self._broken, attempt)
        if self._attempt <= attempt:
            self._ahead.clear()
        return self._taken.whole() + self._ready.whole(), self._tokens

    def _begin(self, chunk: Chunk) -> None:
        """A newer attempt: what was not sent yet gives way to it, except what it says it continues from."""
        self._step, self._attempt, self._claim = chunk.step, chunk.attempt, chunk.claim
        before = self.characters
        self._ready = GrowingText(self._ready.whole()[: max(0, chunk.continues_from - self._taken.length)])
        self._tokens = self._tokens if self.characters == before else None
        self._ahead.clear()

    def _think(self, chunk: Chunk) -> None:
        """Thinking is shown in the order it comes, of the first attempt that thinks: it is not part of the answer's text."""
        self._thinking_attempt = self._thinking_attempt or chunk.attempt
        if chunk.attempt == self._thinking_attempt and chunk.sequence > self._thinking_sequence:
            self._thinking_sequence = chunk.sequence
            self._thinking += chunk.thinking or ""
            self._thought.append(chunk.thinking or "")
            if self._thought.length > _MAX_CHARACTERS:
                raise StreamConflict("the streamed thoughts exceed the bound")

    def _place(self, offset: int, text: str, tokens: int | None) -> None:
        if offset > self.characters:
            if len(self._ahead) < _MAX_AHEAD:
                self._ahead[offset] = max((text, tokens), self._ahead.get(offset, ("", None)), key=lambda piece: len(piece[0]))
            return
        self._extend(offset, text, tokens)
        while self._ahead and (nearest := min(self._ahead)) <= self.characters:
            self._extend(nearest, *self._ahead.pop(nearest))

    def _extend(self, offset: int, text: str, tokens: int | None) -> None:
        overlap = min(self.characters - offset, len(text))
        if overlap and self._slice(offset, offset + overlap) != text[:overlap]:
            raise StreamConflict
        if len(text) > overlap:
            self._tokens = tokens
        self._ready.append(text[overlap:])
        if self.characters > _MAX_CHARACTERS:
            raise StreamConflict("the streamed answer exceeds the bound")

    def _slice(self, start: int, end: int) -> str:
        if start >= self._taken.length:
            return self._ready.whole()[start - self._taken.length : end - self._taken.length]
        return (self._taken.whole() + self._ready.whole())[start:end]
