"""Guarding: what of a stream may leave, as its tenant's policies want it. The same checks as a critic's, in windows: what may still become
something is held back, so nothing that is forbidden gets to `replies`, and the answer is the text that was streamed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from services.worker.backends.base import Completion, Delta, ModelCallFailed
from shared.contracts.chat import Answer
from shared.contracts.failure import FailureKind
from shared.contracts.step import Step
from shared.contracts.verdict import Flagged
from shared.validators.scan import StreamFilter


class Stream(Protocol):
    """Where the pieces of one streaming attempt go. Neither method waits."""

    def add(self, delta: Delta) -> None: ...

    def finish(self) -> None: ...


class _Channel:
    """The text, or the thoughts, of one answer."""

    def __init__(self, step: Step, before: str) -> None:
        redacted, blocked = ([g.checks for g in step.guard if g.action == action] for action in ("redact", "block"))
        self._filter = StreamFilter(redacted, before, blocks=blocked)
        self.came = self.left = ""
        """What the model has written; what was let through of it."""

    def add(self, piece: str) -> str:
        """Raises ModelCallFailed (`blocked`)."""
        self.came += piece
        return self._let(lambda: self._filter.add(piece))

    def end(self, whole: str) -> str:
        """`whole`: as the endpoint says at the end what it has written."""
        rest = self.add(whole[len(self.came) :]) if whole.startswith(self.came) else ""
        return rest + self._let(self._filter.end)

    def _let(self, out: Callable[[], str]) -> str:
        text = out()
        if self._filter.blocked is not None:
            check = self._filter.blocked
            flagged = (Flagged(direction="answer", check=check, action="block"),)
            message = f"the answer is blocked by its tenant's policy: {check} (1)"
            raise ModelCallFailed(FailureKind.BLOCKED, message, flagged=flagged)
        self.left += text
        return text

    @property
    def found(self) -> dict[str, int]:
        return self._filter.found


class GuardedStream:
    """A stream before the one that sends (None: nobody waits). Calls of tools come with the answer, not before it."""

    def __init__(self, step: Step, inner: Stream | None) -> None:
        self._inner = inner
        self._text, self._thinking = _Channel(step, step.prefix or ""), _Channel(step, "")
        self._tokens = 0
        """Of what is held back, about."""

    def add(self, delta: Delta) -> None:
        """Raises ModelCallFailed (`blocked`)."""
        self._tokens += delta.tokens
        held = len(self._text.came) - len(self._text.left) + len(delta.text)
        self._send(self._text.add(delta.text), self._thinking.add(delta.thinking or ""), held)

    def _send(self, text: str, thinking: str, held: int) -> None:
        if self._inner is None or not (text or thinking):
            return
        tokens = self._tokens * min(len(text), max(held, 1)) // max(held, 1)
        self._tokens -= tokens
        self._inner.add(Delta(text, thinking or None, (), tokens))

    def finish(self) -> None:
        """The attempt has ended, well or not: what is held back does not leave."""
        if self._inner is not None:
            self._inner.finish()

    def completed(self, done: Completion) -> Completion:
        """The answer as it was let through, with how often something was redacted. Raises ModelCallFailed (`blocked`)."""
        answer = done.answer
        thought = answer.thinking or ""
        held = len(answer.text) - len(self._text.left)
        self._send(self._text.end(answer.text), self._thinking.end(thought), held)
        counts = dict(self._text.found)
        for check, count in self._thinking.found.items():
            counts[check] = counts.get(check, 0) + count
        flagged = tuple(Flagged(direction="answer", check=check, action="redact", count=count) for check, count in counts.items())
        fields = {"text": self._text.left, "thinking": self._thinking.left if thought else answer.thinking, "flagged": flagged}
        return replace(done, answer=Answer.model_copy(answer, update=fields))
