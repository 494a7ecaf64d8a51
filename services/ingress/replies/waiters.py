"""Waiters: correlation → who waits for it. Domain only: replies go in, callers are woken; time is passed in.

A `Caller` is one HTTP request that waits, plain or streamed. A `Follow` keeps the chunks of a streamed job that nobody may be reading yet.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from services.ingress.problems import ClientGone, InstanceLeaving, Refused, deadline_passed, of_result
from services.ingress.replies.assembly import NOTHING, GrowingText, SeenText, StreamAssembly, StreamConflict, TextDelta
from services.ingress.replies.ends import Ends
from services.ingress.replies.register import Guest, WaitKind
from shared.contracts.base import INLINE_BYTES
from shared.contracts.chat import Answer
from shared.contracts.outcome import StreamPosition
from shared.contracts.reply import Chunk, Chunks, Final, StreamBroken
from shared.contracts.result import Result, Status
from shared.contracts.tasks import TaskProgress

Whole = Callable[[Guest, Result], Awaitable[Result]]
"""The result with its answer fetched for the guest, where that is by reference. Raises BlobGone."""


_MOST_PROGRESS = 1_024


class _Sink(Protocol):
    """Receives the replies to one job."""

    def on_chunk(self, chunk: Chunk) -> None: ...
    def on_final(self, result: Result) -> None: ...
    def on_broken(self, broken: StreamBroken) -> SeenText:
        """The text so far; nothing more of this attempt is accepted."""
        ...

    def cannot_continue(self) -> None:
        """The text so far is too long to be continued by another attempt."""
        ...


class Caller:
    """One request that waits. Whatever ends the wait (final, error, deadline, disconnect) sets `result` or `error` once and wakes it.

    A `register.Guest`.
    """

    __slots__ = (
        "_fetching", "_stream", "_task", "_wake", "acknowledged", "blocked_since", "error", "home", "job", "kind", "model", "offset",
        "progress", "quiet_since", "result", "simulated", "streaming", "tenant", "until", "whole",
    )  # fmt: skip

    def __init__(self, job: str, home: int, until: float, whole: Whole, *, stream: bool = False, tenant: str = "default") -> None:
        self.whole = whole
        self._fetching: asyncio.Task[None] | None = None
        """Of an answer by reference. Until it is there the wait goes on, and ends as any other may."""
        self.kind = WaitKind.ANSWER
        self.tenant = tenant
        self.blocked_since: float | None = None
        self.job = job
        self.home = home
        self.until = until
        """On the monotonic clock: it fails then."""
        self.result: Result | None = None
        self.error: Exception | None = None
        self.acknowledged = False
        self.offset: int | None = None
        """Of its record on `jobs.<class>`."""
        self.quiet_since: float | None = None
        """When a stream last sent something; the sweep wakes it for a heartbeat."""
        self.model: str | None = None
        self.simulated = False
        self.streaming = False
        """Text has come."""
        self.progress: deque[TaskProgress] = deque(maxlen=_MOST_PROGRESS)
        """Of tasks on models, not told yet."""
        self._stream = StreamAssembly() if stream else None
        self._wake: asyncio.Future[None] | None = None
        self._task = asyncio.current_task()

    def on_chunk(self, chunk: Chunk) -> None:
        """A piece of a streamed answer; ignored when the caller did not ask for a stream."""
        if self._stream is None or self.ended:
            return
        if chunk.model is not None:
            self.model = chunk.model
        self.simulated = self.simulated or chunk.simulated
        if chunk.progress:
            self.progress.extend(chunk.progress)
            self.wake()
        try:
            if self._stream.add(chunk):
                self.streaming = True
                self.wake()
        except StreamConflict as conflict:
            self.fail(conflict)

    def on_final(self, result: Result) -> None:
        """The job's end. Repeats change nothing."""
        if self.ended:
            return
        if result.answer is not None and result.answer.blob is not None:
            self._fetching = self._fetching or asyncio.get_running_loop().create_task(self._fetch(result))
            return
        if self._stream is not None and result.status is Status.SUCCEEDED and result.answer is not None:
            try:
                self._stream.finish(result.answer)
            except StreamConflict as conflict:
                self.fail(conflict)
                return
        self.result = result
        self.wake()

    async def _fetch(self, result: Result) -> None:
        try:
            self.on_final(await self.whole(self, result))
        except Exception as error:
            self.fail(error)

    def on_broken(self, broken: StreamBroken) -> SeenText:
        """As `_Sink`."""
        return NOTHING if self._stream is None else self._stream.break_off(broken.step, broken.attempt)

    def cannot_continue(self) -> None:
        """The client has seen what no attempt can go on from."""
        self.fail(StreamConflict("the stream broke after more text than another node can be given to continue"))

    def fail(self, error: Exception) -> None:
        """End the wait with an error, unless it has ended."""
        if not self.ended:
            self.error = error
            self.wake()

    def expire(self) -> None:
        """Its deadline has passed."""
        self.fail(Refused(deadline_passed()))

    def dismiss(self) -> None:
        """The instance is leaving."""
        self.fail(InstanceLeaving())

    def close(self) -> None:
        """Nobody waits any longer."""
        if self._fetching is not None:
            self._fetching.cancel()

    def cut_off(self) -> None:
        """End the request itself: its client does not even read."""
        if self._task is not None:
            self._task.cancel()

    def on_acknowledged(self, offset: int | None = None) -> None:
        """Kafka has the job."""
        self.acknowledged, self.offset = True, offset
        if self._stream is not None:
            self.wake()

    def take(self) -> TextDelta:
        """New text of a streamed answer."""
        assert self._stream is not None, "only streamed callers take"
        return self._stream.take()

    @property
    def ended(self) -> bool:
        """Whether there is a result or an error."""
        return self.result is not None or self.error is not None

    @property
    def gone(self) -> bool:
        """He waits no longer for a job that nothing has ended. Of one that has ended the answer may still be fetched."""
        ended = self.result is not None or self._fetching is not None
        return not ended and (self.error is None or isinstance(self.error, ClientGone | InstanceLeaving))

    @property
    def answer(self) -> Answer | None:
        """Of a job that succeeded."""
        return self.result.answer if self.result is not None and self.result.status is Status.SUCCEEDED else None

    @property
    def why_not(self) -> Exception:
        """Why there is no answer, once the wait has ended."""
        if self.error is not None:
            return self.error
        assert self.result is not None, "only after the wait has ended"
        return Refused(of_result(self.result))

    def wake(self) -> None:
        """Let the request look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    async def changed(self) -> None:
        """Wait for the next wake. One task at a time, and only right after looking: no wake is lost in between."""
        self._wake = asyncio.get_running_loop().create_future()
        try:
            await self._wake
        finally:
            self._wake = None

    async def answered(self) -> Result:
        """The result. Raises what ended the wait otherwise."""
        while not self.ended:
            await self.changed()
        if self.result is None:
            raise self.why_not
        return self.result


class Follow:
    """The text of a streamed job so far, for any number of readers, each with a cursor of its own, and the planner's word on its end.
    `on_change`: told that something about the job is new.
    """

    __slots__ = ("_on_change", "_on_result", "_stream", "_text", "grew", "job", "result", "until")

    def __init__(self, job: str, until: float, on_change: Callable[[str], None], on_result: Callable[[Result], None] | None = None) -> None:
        self.job = job
        self.until = until
        self._on_result = on_result
        self._text = GrowingText()
        self._stream: StreamAssembly | None = StreamAssembly()
        self._on_change = on_change
        self.result: Result | None = None
        self.grew: Callable[[int], None] = lambda _: None
        """Told by how much."""

    @property
    def text(self) -> str:
        """All of it."""
        return self._text.whole()

    @property
    def size(self) -> int:
        """Characters kept."""
        return self._text.length

    def on_chunk(self, chunk: Chunk) -> None:
        """Append what is new. After a conflict the stream stays silent: the settled event carries the full text."""
        if self._stream is None:
            return
        try:
            if self._stream.add(chunk):
                self._keep(self._stream.take().text)
                self._on_change(self.job)
        except StreamConflict:
            self._stream = None

    def on_final(self, result: Result) -> None:
        """Complete the text."""
        self.result = result
        if self._on_result is not None:
            self._on_result(result)
        if self._stream is not None and result.answer is not None and result.answer.blob is None:
            try:
                self._stream.finish(result.answer)
                self._keep(self._stream.take().text)
            except StreamConflict:
                pass
        self._stream = None
        self._on_change(self.job)

    def _keep(self, text: str) -> None:
        self._text.append(text)
        self.grew(len(text))

    def on_broken(self, broken: StreamBroken) -> SeenText:
        """As `_Sink`."""
        return NOTHING if self._stream is None else self._stream.break_off(broken.step, broken.attempt)

    def cannot_continue(self) -> None:
        """Silent from now on, as after a conflict."""
        self._stream = None


class Waiters:
    """All sinks of this instance: by correlation for what comes on `replies`, by job for its end in history (`ends`).

    `epoch` is part of every correlation, so a reply to an earlier life of this instance finds nobody.
    """

    def __init__(self, epoch: str, *, follows: int, followed_characters: int = 32 * 1024 * 1024) -> None:
        self.ends = Ends()
        self._prefix = epoch.encode() + b"."
        self._counter = 0
        self._callers: dict[bytes, Caller] = {}
        self._follows: OrderedDict[bytes, Follow] = OrderedDict()
        self._max_follows = follows
        self._max_characters = followed_characters
        self._characters = 0
        self.unknown = 0
        """Replies that nobody waits for."""

    def __len__(self) -> int:
        return len(self._callers)

    def _next(self) -> bytes:
        self._counter += 1
        return self._prefix + b"%x" % self._counter

    def add(self, caller: Caller, digest: str | None = None) -> bytes:
        """Register a caller; returns the correlation. `digest`: of his request, where its id may be another one's."""
        correlation = self._next()
        self._callers[correlation] = caller
        self.ends.add(caller.job, caller.on_final, digest)
        return correlation

    def remove(self, correlation: bytes) -> None:
        """The caller waits no longer."""
        caller = self._callers.pop(correlation, None)
        if caller is not None:
            self.ends.remove(caller.job, caller.on_final)

    def follow(self, follow: Follow, digest: str | None = None) -> bytes:
        """Register a follow, the oldest one giving way when there are too many; returns the correlation. `digest`: as of a caller."""
        correlation = self._next()
        self._follows[correlation] = follow
        follow.grew = self._grew
        self.ends.add(follow.job, follow.on_final, digest)
        self._trim()
        return correlation

    def _trim(self) -> None:
        while len(self._follows) > self._max_follows or self._characters > self._max_characters:
            self._forget(next(iter(self._follows)))

    def _forget(self, correlation: bytes) -> None:
        follow = self._follows.pop(correlation)
        follow.grew = lambda _: None
        self._characters -= follow.size
        self.ends.remove(follow.job, follow.on_final)

    def following(self, job: str) -> Follow | None:
        """The follow of a job accepted here."""
        return next((follow for follow in self._follows.values() if follow.job == job), None)

    def is_ours(self, correlation: bytes | None) -> bool:
        """Whether this instance, in this life, gave the correlation."""
        return correlation is not None and correlation.startswith(self._prefix)

    def on_final(self, final: Final) -> None:
        """Hand a final to who waits for it."""
        sink = self._sink(final.correlation)
        if sink is not None:
            sink.on_final(final.result)

    def on_chunks(self, chunks: Chunks) -> None:
        """Hand each chunk to who waits for it."""
        for chunk in chunks.chunks:
            sink = self._sink(chunk.correlation)
            if sink is not None:
                sink.on_chunk(chunk)

    def _grew(self, characters: int) -> None:
        self._characters += characters
        self._trim()

    def on_broken(self, broken: StreamBroken) -> StreamPosition | None:
        """What the next attempt has to go on from; None when the stream was another instance's. Nobody who waits has seen nothing."""
        if not self.is_ours(broken.correlation):
            return None
        sink = self._sink(broken.correlation)
        text, tokens = NOTHING if sink is None else sink.on_broken(broken)
        position = StreamPosition(job=broken.job, step=broken.step, attempt=broken.attempt, text=text, tokens=tokens)
        if sink is None or len(position.to_bytes()) <= INLINE_BYTES:
            return position
        sink.cannot_continue()
        return position.model_copy(update={"text": "", "tokens": None})

    def _sink(self, correlation: bytes) -> _Sink | None:
        sink: _Sink | None = self._callers.get(correlation) or self._follows.get(correlation)
        if sink is None:
            self.unknown += 1
        return sink

    def sweep(self, now: float, heartbeat_seconds: float) -> None:
        """Silent streams are woken for a heartbeat; follows whose time is up are dropped."""
        for correlation in [c for c, follow in self._follows.items() if follow.until <= now]:
            self._forget(correlation)
        for caller in self._callers.values():
            if caller.quiet_since is not None and now - caller.quiet_since >= heartbeat_seconds:
                caller.wake()

    def callers(self) -> Iterable[Caller]:
        """Everyone who waits."""
        return list(self._callers.values())
