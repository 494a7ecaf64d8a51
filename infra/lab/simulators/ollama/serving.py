"""One request on the node: wait for a runner and a slot, read the prompt, write the answer token by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from infra.lab.simulators.ollama import embeddings, wire
from infra.lab.simulators.ollama.answers import SimulatedAnswer, answer
from infra.lab.simulators.ollama.call import Call
from infra.lab.simulators.ollama.errors import BUSY, ConnectionDropped, OllamaError, bad_request
from infra.lab.simulators.ollama.inference import CHARACTERS_PER_TOKEN, Engine, count_tokens
from infra.lab.simulators.ollama.parameters import FailureMode, Failures, Parameters, Script
from infra.lab.simulators.ollama.requests import Work
from infra.lab.simulators.ollama.scheduler import Runner, Scheduler, Want
from infra.lab.simulators.ollama.slots import Slot, common_prefix
from infra.lab.simulators.ollama.truth import Truth
from shared.clock import Clock

YIELD_TOKENS = 32
"""Tokens that take no time let others run after so many."""
_BREAKING = (FailureMode.MID_STREAM_ERROR, FailureMode.DISCONNECT, FailureMode.CRASH)


class Pace:
    """When the next token of a sequence is due. Due times add up: a late wake-up is caught up, and the mean speed holds in real time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._due = clock.monotonic()
        self._free_tokens = 0

    async def wait(self, seconds: float) -> None:
        """Return when `seconds` after the previous token are over."""
        if seconds <= 0:
            self._free_tokens += 1
            if self._free_tokens % YIELD_TOKENS == 0:
                await self._clock.sleep(0)
            return
        self._due += seconds
        late = self._clock.monotonic() - self._due
        if late < 0:
            await self._clock.sleep(-late)


@dataclass(slots=True)
class Run:
    """A request with what was decided about it, and what it has come to so far."""

    call: Call
    work: Work
    scripts: Sequence[Script]
    failure: FailureMode | None
    failures: Failures
    measured: wire.Measured
    written: list[str] = field(default_factory=list)


class Serving:
    """The way of a request through scheduler and engine. Methods raise OllamaError or ConnectionDropped for what the client shall see."""

    def __init__(self, node: Parameters, scheduler: Scheduler, engine: Engine, clock: Clock, truth: Truth) -> None:
        self._node = node
        self._scheduler = scheduler
        self._engine = engine
        self._clock = clock
        self._truth = truth

    async def serve(self, run: Run) -> None:
        """From arrival to the last chunk."""
        work = run.work
        if run.failure is FailureMode.ERROR_500:
            raise OllamaError(500, "an error was encountered while running the model: simulated failure")
        if run.failure is FailureMode.BUSY_503:
            raise OllamaError(503, BUSY)
        if work.empty and work.endpoint != "embed" and work.keep_alive_seconds == 0:
            self._scheduler.unload(work.model.name)
            run.call.put(wire.final(wire.chunk(work, self._clock.wall()), "unload", {}), last=True)
            return
        load_fails = run.failure is FailureMode.LOAD_FAILED
        runner = await self._scheduler.acquire(Want(work.model, work.load_options, work.context, work.keep_alive_seconds, load_fails))
        try:
            run.measured.load_seconds = self._clock.monotonic() - run.measured.started_at
            await self._on_runner(run, runner)
        finally:
            self._scheduler.release(runner)

    async def _on_runner(self, run: Run, runner: Runner) -> None:
        if run.work.empty and run.work.endpoint != "embed":
            run.call.put(wire.final(wire.chunk(run.work, self._clock.wall()), "load", {}), last=True)
            return
        slot = await runner.slots.acquire(run.work.prompt)
        run.call.waiting = False
        try:
            if run.failure is FailureMode.HANG:
                await self._clock.sleep(run.failures.hang_seconds)
                raise ConnectionDropped
            await self._read_prompt(run, runner, slot)
            if run.work.endpoint == "embed":
                self._embed(run)
            else:
                await self._write_answer(run, runner, slot)
        finally:
            runner.slots.release(slot)

    async def _read_prompt(self, run: Run, runner: Runner, slot: Slot) -> None:
        """An overlong prompt is refused, or cut in silence, at its beginning. The last token is always computed."""
        if not run.work.truncate and any(count_tokens(text) > run.work.context for text in run.work.texts or (run.work.prompt,)):
            raise bad_request("the input length exceeds the context length")
        prompt = run.work.prompt[-run.work.context * CHARACTERS_PER_TOKEN :]
        measured = run.measured
        measured.prompt_tokens = count_tokens(prompt)
        if run.work.endpoint != "embed":
            shared = common_prefix(slot.text, prompt) // CHARACTERS_PER_TOKEN
            measured.cached_tokens = max(0, min(shared, measured.prompt_tokens - 1))
        slot.text = prompt
        began = self._clock.monotonic()
        await self._engine.read(runner, measured.prompt_tokens - measured.cached_tokens)
        measured.prefill_seconds = self._clock.monotonic() - began
        self._truth.prompt_tokens += measured.prompt_tokens
        self._truth.cached_prompt_tokens += measured.cached_tokens
        if run.call.gone:
            self._truth.tokens_for_nobody += measured.prompt_tokens - measured.cached_tokens

    def _embed(self, run: Run) -> None:
        work = run.work
        size = work.model.embedding_dimensions
        vectors = [embeddings.embed(text, model=work.model.name, dimensions=size) for text in work.texts]
        if work.dimensions is not None and work.dimensions < size:
            vectors = [embeddings.normalised(vector[: work.dimensions]) for vector in vectors]
        numbers = run.measured.fields(self._clock.monotonic())
        names = ("total_duration", "load_duration", "prompt_eval_count") if work.texts else ()
        shown = {name: numbers[name] for name in names if name in numbers}
        run.call.put({"model": work.name, "embeddings": vectors} | shown, last=True)

    async def _write_answer(self, run: Run, runner: Runner, slot: Slot) -> None:
        text = answer(run.work, self._node, run.scripts, run.failure)
        began = self._clock.monotonic()
        self._engine.writing += 1
        try:
            complete = await self._write_tokens(run, runner, text)
        finally:
            self._engine.writing -= 1
            slot.text += "".join(run.written)
        if complete and run.failure is not FailureMode.TRUNCATED:
            run.measured.decode_seconds = self._clock.monotonic() - began
            self._finish(run, text)

    async def _write_tokens(self, run: Run, runner: Runner, text: SimulatedAnswer) -> bool:
        """Emit every token; False when the client was found gone. A tool call is one token."""
        pace = Pace(self._clock)
        slowest = run.failures.slow_token_seconds if run.failure is FailureMode.SLOW else 0.0
        breaks_after = run.failures.fail_after_tokens if run.failure in _BREAKING else None
        tokens = [*((piece, True) for piece in text.thinking), *((piece, False) for piece in text.pieces)]
        if text.tool_calls:
            tokens.append(("", False))
        for number, (piece, is_thought) in enumerate(tokens):
            if number == breaks_after:
                self._break(run, runner)
            await pace.wait(max(slowest, self._engine.token_seconds(runner)))
            if not self._emit(run, runner, piece, is_thought, text):
                return False
        if breaks_after is not None:
            self._break(run, runner)
        return True

    def _emit(self, run: Run, runner: Runner, piece: str, is_thought: bool, text: SimulatedAnswer) -> bool:
        """One token is computed. The only place where a running request notices that its client has gone, or its runner has died."""
        self._truth.answer_tokens += 1
        run.measured.answer_tokens += 1
        if runner.dead is not None:
            raise runner.dead
        if run.call.gone:
            self._truth.tokens_for_nobody += 1
            return False
        if not is_thought:
            run.written.append(piece)
        if run.work.stream:
            calls = () if piece or is_thought else text.tool_calls
            body = ("", piece) if is_thought else (piece, "")
            chunk = wire.chunk(run.work, self._clock.wall(), body[0], thinking=body[1], tool_calls=calls)
            run.call.put(chunk | wire.likely(run.work, piece))
        return True

    def _finish(self, run: Run, text: SimulatedAnswer) -> None:
        whole = ("", "", ()) if run.work.stream else ("".join(run.written), "".join(text.thinking), text.tool_calls)
        last = wire.chunk(run.work, self._clock.wall(), whole[0], thinking=whole[1], tool_calls=whole[2])
        run.call.put(wire.final(last, text.done_reason, run.measured.fields(self._clock.monotonic())), last=True)

    def _break(self, run: Run, runner: Runner) -> None:
        if run.failure is FailureMode.CRASH:
            self._scheduler.crash(runner)
            assert runner.dead is not None
            raise runner.dead
        if run.failure is FailureMode.MID_STREAM_ERROR:
            raise OllamaError(500, "an error was encountered while running the model: simulated failure in mid-stream")
        raise ConnectionDropped
