"""One attempt, from its slot to its outcome: model choice, call, chunks, checks, usage. Knows neither Kafka nor HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Protocol

from prometheus_client import Counter

from services.worker import continuation
from services.worker.attempt import Attempt, crash, released
from services.worker.backends.base import Backend, Completion, ModelCall, ModelCallFailed
from services.worker.contexts import Contexts
from services.worker.guarding import GuardedStream, Stream
from services.worker.health import Health
from services.worker.seen import Seen
from services.worker.slots import Slots
from services.worker.speeds import Speeds, expired
from services.worker.wiring import WorkerContext
from shared.contracts.base import INLINE_BYTES, ClaimId
from shared.contracts.bounds import is_json
from shared.contracts.chat import Answer, FinishReason, Operation
from shared.contracts.failure import Failure
from shared.contracts.failure import FailureKind as K
from shared.contracts.node import NodeModel
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded
from shared.contracts.step import Step
from shared.contracts.usage import Timings, Usage
from shared.errors import InvalidRecord, LogError, TooLarge
from shared.estimates import fewest_tokens, likely_tokens
from shared.inputs import whole
from shared.model_names import spelling
from shared.placement.choosing import split
from shared.placement.demand import texts_of
from shared.processing.blobs import BlobGone, Blobs
from shared.telemetry import logs, metrics

log = logs.get(__name__)

Ended = StepSucceeded | StepFailed | StepReleased
_NOTHING_CONSUMED = (
    K.NODE_UNREACHABLE, K.UNKNOWN_MODEL, K.BAD_REQUEST, K.UNSUPPORTED, K.TOO_LARGE, K.BLOB_GONE, K.CONTEXT_LENGTH, K.OVERLOADED,
)  # fmt: skip


class _Registered(Protocol):
    """What the endpoint last said of itself."""

    @property
    def models(self) -> Sequence[NodeModel]: ...

    @property
    def simulated(self) -> bool: ...

    def uses(self, model: str) -> None:
        """A call of this model begins."""

    def answers(self, model: str) -> None:
        """It has begun to be answered, or has failed."""

    @property
    def manages(self) -> bool: ...

    @property
    def seen(self) -> Seen: ...


@dataclass(frozen=True, slots=True)
class OwnNode:
    """What the runner must know of its node."""

    id: str
    registered: _Registered
    slots: Slots
    health: Health


class Runner:
    """Runs attempts; one instance a worker. `open_stream` gives the way for an attempt's chunks, None when nobody waits for them."""

    def __init__(
        self,
        here: WorkerContext,
        node: OwnNode,
        backend: Backend,
        *,
        speeds: Speeds,
        bodies: Blobs,
        open_stream: Callable[[Step, ClaimId, str, bool], Stream | None],
    ) -> None:
        settings, self._bodies, self._contexts = here.settings, bodies, Contexts(bodies.fetch)
        self._node, self._backend, self._settings, self._clock, self._speeds = node, backend, settings, here.clock, speeds
        self._open_stream = open_stream

    async def run(self, attempt: Attempt) -> Ended:
        """The attempt's outcome. When the task is cancelled the connection is closed first; `stopped` then gives the outcome."""
        attempt.started_at = self._clock.monotonic()
        late = expired(attempt, attempt.started_at)
        if late:
            return self._failed(attempt, late)
        try:
            await self._read_input(attempt)
            if refused := self._node.health.refusal(attempt.step, attempt.claim):
                attempt.released = refused
                return self.stopped(attempt)
            continuation.check(attempt.step)
            completion = await self._ask(attempt)
            if self._was_cut(attempt, completion.usage):
                cut = Failure(
                    kind=K.CONTEXT_LENGTH, message=f"the endpoint read {completion.usage.prompt_tokens} tokens of a longer prompt"
                )
                return self._failed(attempt, cut, completion.usage)
            completion = continuation.whole(attempt.step, completion)
            completion = _with_calls_allowed(attempt.step, completion)
            _check_format(attempt.step, completion.answer)
            return await self._inline(attempt, self._succeeded(attempt, completion))
        except LogError as error:  # its slot is for steps whose input can be read
            attempt.released = f"its input cannot be read now: {error.message}"
            return self.stopped(attempt)
        except ModelCallFailed as error:
            again = error.retry_after_seconds
            failure = Failure(kind=error.kind, message=error.message, retry_after_seconds=again, flagged=error.flagged)
        except Exception as error:
            kind = type(error).__name__
            log.error("attempt_crashed", job=attempt.step.job, step=attempt.step.id, error=kind, at=logs.place_of(error))  # noqa: TRY400
            failure = crash()
        return self._failed(attempt, failure)

    def stopped(self, attempt: Attempt) -> Ended:
        """The outcome of an attempt that was stopped or given back, before or while it ran."""
        step = attempt.step
        if attempt.released is not None and (step.idempotent or attempt.asked_at is None):
            return released(step, attempt.claim, self._node.id, attempt.released)
        stop = attempt.stop or Failure(kind=K.CANCELLED, message="the worker stopped")
        return self._failed(attempt, stop)

    async def _read_input(self, attempt: Attempt) -> None:
        """Where the step's input, or what was said before it, lies in blobs. Raises LogError, ModelCallFailed."""
        step = attempt.step
        if step.input_ref is not None:
            try:
                step = whole(step, await self._bodies.fetch(step.tenant, step.input_ref.blob))
            except (BlobGone, InvalidRecord):
                raise ModelCallFailed(K.BLOB_GONE, "the job's input is not kept any longer") from None
        attempt.step = step if step.context is None else await self._contexts.whole(step)

    async def _inline(self, attempt: Attempt, outcome: StepSucceeded) -> StepSucceeded | StepFailed:
        """The outcome as it fits a record: a large answer goes into a blob, which is there before the outcome names it."""
        answer = outcome.answer
        if not _may_be_large(answer) or len(body := answer.to_bytes()) <= INLINE_BYTES:
            return outcome
        attempt.answered = True
        try:
            blob = await self._bodies.store_in_time(attempt.step.tenant, body)
        except TooLarge as error:
            return self._failed(attempt, Failure(kind=K.TOO_LARGE, message=error.message), outcome.usage)
        kept = {"text": "", "thinking": None, "tool_calls": (), "embeddings": (), "blob": blob}
        return outcome.model_copy(update={"answer": answer.model_copy(update=kept)})

    async def _ask(self, attempt: Attempt) -> Completion:
        names = self._node.health.models(attempt.step, attempt.claim)
        missing = ModelCallFailed(K.UNKNOWN_MODEL, f"this node has no model for {attempt.step.operation.value}")
        for name in names:
            try:
                return await self._call(attempt, name)
            except ModelCallFailed as error:
                if error.kind is not K.UNKNOWN_MODEL:
                    raise
                missing = error
        raise missing

    async def _call(self, attempt: Attempt, model: str) -> Completion:
        attempt.model = model
        if wait := self._node.health.wait_seconds():
            await self._clock.sleep(wait)
        step, attempt.asked_at = attempt.step, self._clock.monotonic()
        if step.task is None:
            self._node.registered.uses(model)
        elif not self._node.registered.manages:
            raise ModelCallFailed(K.UNSUPPORTED, f"this node's endpoint does not {step.task.action.value} models")
        simulated = self._node.registered.simulated
        if continuation.is_complete(step, step.options.max_tokens or self._settings.default_max_tokens):
            return Completion(Answer(model=model, node=self._node.id, finish_reason=FinishReason.LENGTH, simulated=simulated))
        stream = self._open_stream(step, attempt.claim, model, simulated) if step.stream else None
        if step.stream and step.guard:
            stream = GuardedStream(step, stream)
        try:
            return await self._consume(attempt, self._model_call(attempt, model, simulated=simulated), stream)
        finally:
            self._node.registered.answers(model)
            if stream is not None:
                stream.finish()

    def _model_call(self, attempt: Attempt, model: str, *, simulated: bool) -> ModelCall:
        known = _registered(self._node.registered.models, model)
        thinks = known is not None and known.abilities.get("thinking", False)
        return ModelCall(attempt.step, model, attempt.trace, self._node.id, simulated, thinks)

    async def _consume(self, attempt: Attempt, call: ModelCall, stream: Stream | None) -> Completion:
        async with aclosing(self._backend.call(call)) as pieces:  # type: ignore[type-var]  # every backend's call is an async generator
            async for piece in pieces:
                if attempt.progress_at is None:
                    self._node.registered.answers(call.model)
                if isinstance(piece, Completion):
                    return stream.completed(piece) if isinstance(stream, GuardedStream) else piece
                now = self._clock.monotonic()
                attempt.first_token_at = attempt.first_token_at or now
                attempt.progress_at = now
                attempt.tokens += piece.tokens
                attempt.progress = piece.progress or attempt.progress
                if stream is not None:
                    stream.add(piece)
        raise ModelCallFailed(K.BROKEN_STREAM, "the endpoint ended without an answer")

    def _was_cut(self, attempt: Attempt, usage: Usage) -> bool:
        """Whether the endpoint has cut an overlong prompt in silence: it has counted fewer tokens than there are."""
        known = _registered(self._node.registered.models, attempt.model or "")
        told = usage.prompt_tokens and attempt.step.operation is not Operation.EMBED and not self._node.registered.simulated
        if not told or known is None or known.room is None:
            return False
        texts = texts_of(attempt.step)
        return sum(map(len, texts)) >= known.room and fewest_tokens(texts) > usage.prompt_tokens

    def _succeeded(self, attempt: Attempt, done: Completion) -> StepSucceeded:
        step, model = attempt.step, attempt.model or ""
        known = _registered(self._node.registered.models, model)
        if step.task is None:
            beside = self.beside(attempt)
            self._speeds.observe(model, done, beside)
            self._node.registered.seen.answered(step, known, model, done, running=round(beside), now=self._clock.monotonic())
        usage = self._priced(step, model, done.usage)
        _tokens(model, "prompt").inc(usage.prompt_tokens)
        _tokens(model, "completion").inc(usage.completion_tokens)
        return StepSucceeded.of_valid(
            job=step.job,
            step=step.id,
            attempt=step.attempt,
            claim=attempt.claim,
            node=self._node.id,
            answer=_signed(done.answer, known),
            usage=usage,
            timings=self._timed(attempt, done.timings),
            why=attempt.why,
        )

    def beside(self, attempt: Attempt) -> float:
        """Calls that ran on average while this one did, itself included."""
        now, slots = self._clock.monotonic(), self._node.slots
        seconds = now - (now if attempt.started_at is None else attempt.started_at)
        return (slots.busy_seconds(now) - attempt.busy_before) / seconds if seconds > 0 else float(max(1, slots.busy))

    def first_end(self, attempts: Iterable[Attempt]) -> float | None:
        """Seconds until the first of those that run is likely to end."""
        now = self._clock.monotonic()
        return min((self._seconds_left(one, now) for one in attempts if one.calls and not one.rides), default=None)

    def _seconds_left(self, attempt: Attempt, now: float) -> float:
        """What lasts longer than it was likely to is likely to go on for a while."""
        prompt, output = split(attempt.step)
        whole = self._speeds.seconds(attempt.model or attempt.step.model, prompt, output, self._node.slots.busy)
        since = now - (now if attempt.started_at is None else attempt.started_at)
        return max(since / 4, since / 4 if whole is None else whole - since)

    def _failed(self, attempt: Attempt, failure: Failure, used: Usage | None = None) -> StepFailed:
        step = attempt.step
        if failure.kind is K.CONTEXT_LENGTH and attempt.model:
            wanted = max(step.estimated_tokens, fewest_tokens(texts_of(step)) + (step.options.max_tokens or 0))
            self._node.registered.seen.refused(attempt.model, wanted, self._clock.monotonic())
        return StepFailed(
            job=step.job,
            step=step.id,
            attempt=step.attempt,
            claim=attempt.claim,
            node=self._node.id,
            failure=failure.model_copy(update=self._where(attempt, failure.kind)),
            usage=self._priced(step, attempt.model or "", consumed(attempt, failure.kind) if used is None else used),
            timings=self._timed(attempt, Timings()),
            why=attempt.why,
        )

    def _where(self, attempt: Attempt, kind: K) -> dict[str, Any]:
        where: dict[str, Any] = {"node": self._node.id, "model": attempt.model}
        known = _registered(self._node.registered.models, attempt.model or "")
        # The model's own maximum is no window: it may be loaded with less, and another node with more than that.
        return where | {"window": known.window} if kind is K.CONTEXT_LENGTH and known is not None else where

    def _priced(self, step: Step, model: str, usage: Usage) -> Usage:
        """By the node's own price, else by the model's card."""
        priced = spelling(model, step.prices)
        price = self._settings.price(model) or (None if priced is None else step.prices[priced])
        return usage.model_copy(update={"cost": price.cost(usage.prompt_tokens, usage.completion_tokens)}) if price else usage

    def _timed(self, attempt: Attempt, timings: Timings) -> Timings:
        """The endpoint's timings with what only the worker saw: waiting, first token, the whole."""
        now = self._clock.monotonic()
        started = attempt.started_at if attempt.started_at is not None else now
        first = attempt.first_token_at
        return Timings(
            queue_ms=(started - attempt.taken_at) * 1e3,
            load_ms=timings.load_ms,
            prefill_ms=timings.prefill_ms,
            decode_ms=timings.decode_ms,
            first_token_ms=(first - started) * 1e3 if first is not None else None,
            total_ms=(now - started) * 1e3,
        )


@lru_cache(maxsize=1024)
def _tokens(model: str, kind: str) -> Counter:
    """The counter of one model; looking it up costs more than counting."""
    return metrics.TOKENS.labels(model, kind)


def consumed(attempt: Attempt, kind: K) -> Usage:
    """What an attempt without an answer has used up, estimated: the endpoint reports counts only at the end."""
    if attempt.model is None or attempt.step.task is not None or (kind in _NOTHING_CONSUMED and not attempt.tokens):
        return Usage()
    characters = sum(map(len, texts_of(attempt.step)))
    return Usage(calls=1, prompt_tokens=likely_tokens(characters), completion_tokens=attempt.tokens, estimated=True)


def _may_be_large(answer: Answer) -> bool:
    """Looked at before it is written out; a character takes six bytes of JSON at most."""
    characters = len(answer.text) + len(answer.thinking or "")
    return characters > INLINE_BYTES // 6 or bool(answer.tool_calls or answer.embeddings)


def _with_calls_allowed(step: Step, completion: Completion) -> Completion:
    """Where one call was allowed, with the first. Raises INVALID_OUTPUT where one was required and there is none."""
    calls = completion.answer.tool_calls
    if step.tool_choice == "required" and not calls and completion.answer.finish_reason is not FinishReason.LENGTH:
        raise ModelCallFailed(K.INVALID_OUTPUT, "the model has called no tool, and one was required")
    if step.parallel_tool_calls or len(calls) < 2:
        return completion
    return replace(completion, answer=completion.answer.model_copy(update={"tool_calls": calls[:1]}))


def _check_format(step: Step, answer: Answer) -> None:
    """Where JSON was asked for, the text has to be JSON. Raises INVALID_OUTPUT.

    One that the token limit cut is the answer all the same, and says so, as one is of which a policy redacts something: another attempt
    would be cut at the same place, and paid again.
    """
    if step.format is None or answer.tool_calls or answer.flagged or answer.finish_reason is FinishReason.LENGTH:
        return
    if not is_json(answer.text):
        raise ModelCallFailed(K.INVALID_OUTPUT, "the answer is not the JSON that was asked for")


def _registered(models: Sequence[NodeModel], name: str) -> NodeModel | None:
    """The model as its node registers it."""
    for model in models:
        if model.name == name:
            return model
    return None


def _signed(answer: Answer, model: NodeModel | None) -> Answer:
    """With what is known of the model's file: under one name there may be others, on other nodes and tomorrow."""
    if model is None or not (model.digest or model.quantisation):
        return answer
    return answer.model_copy(update={"digest": model.digest or None, "quantisation": model.quantisation or None})
