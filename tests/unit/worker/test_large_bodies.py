"""Bodies above the inline bound: a step's input is fetched before the call, a large answer is kept before the outcome names it."""

from __future__ import annotations

from shared.contracts.blob import BLOB_BYTES
from shared.contracts.chat import Answer, ChatMessage, Operation
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.outcome import StepFailed, StepReleased, StepSucceeded
from shared.contracts.step import Step
from shared.contracts.usage import Usage
from shared.inputs import held, input_of
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import NODE, World, play, step


def test_an_answer_too_large_for_a_record_is_a_reference() -> None:
    """The outcome names it, and holds nothing of it: a small record, whatever was answered."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pieces=("x" * 300_000,)))):
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            answer = world.outcomes(StepSucceeded)[0].answer
            assert (answer.text, answer.node) == ("", NODE)
            assert answer.blob is not None
            assert Answer.model_validate_json(await world.blobs.fetch("default", answer.blob)).text == "x" * 300_000

    play(scenario)


def test_an_input_by_reference_is_what_the_model_reads() -> None:
    """Fetched before the call. One that is gone, or is another tenant's, is one typed failure and no call."""

    async def scenario(world: World) -> None:
        asked = Job(messages=(ChatMessage(role="user", content="x" * 100_000),), system="Be brief.", tools=({"type": "function"},))
        given = input_of(asked, hands_on=True)
        reference = held(asked, given, await world.blobs.store("default", given.to_bytes())).input_ref
        backend = ScriptedBackend()
        async with world.worker(backend):
            world.route(step(1, input_ref=reference))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            read = backend.calls[0].step
            assert [(m.role, len(m.content)) for m in read.messages] == [("system", 9), ("user", 100_000)]
            assert read.tools == asked.tools
            world.route(step(2, input_ref=reference, tenant="other"))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            assert world.outcomes(StepFailed)[0].failure.kind is FailureKind.BLOB_GONE
            assert len(backend.calls) == 1

    play(scenario)


async def by_reference(world: World, number: int = 1) -> Step:
    """A step of 100 kB."""
    asked = Job(messages=(ChatMessage(role="user", content="x" * 100_000),))
    given = input_of(asked, hands_on=True)
    return step(number, input_ref=held(asked, given, await world.blobs.store("default", given.to_bytes())).input_ref)


def test_an_answer_that_is_there_is_kept_however_long_it_takes() -> None:
    """The endpoint has answered: no bound on its time holds any more, and nothing is asked and paid for twice."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(pieces=("x" * 300_000,)))
        bounds = {"first_token_timeout_seconds": 5.0, "between_tokens_timeout_seconds": 5.0, "total_timeout_seconds": 20.0}
        async with world.worker(backend, **bounds):
            world.log.faults.away[world.topics.blobs] = 1.0
            world.route(step(1))
            await world.clock.sleep(100)
            world.log.faults.heal()
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            assert (len(backend.calls), world.outcomes(StepFailed)) == (1, [])

    play(scenario)


def test_an_input_that_cannot_be_read_keeps_no_slot() -> None:
    """Its step is given back, uncounted; one that is small has the slot."""

    async def scenario(world: World) -> None:
        large = await by_reference(world)
        backend = ScriptedBackend()
        async with world.worker(backend, slots=1):
            world.log.delete([world.topics.blobs])
            world.route(large, step(2))
            await world.until(lambda: bool(world.outcomes(StepSucceeded, "j2")))
            await world.until(lambda: bool(world.outcomes(StepReleased, "j1")))
            assert ([call.step.job for call in backend.calls], world.outcomes(StepFailed)) == (["j2"], [])

    play(scenario)


def test_an_answer_that_is_too_large_to_be_kept_is_paid() -> None:
    """The endpoint has worked for it: its count is the usage, as of an answer that is used."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pieces=("\x01" * (BLOB_BYTES // 6 + 1),)))):
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            [failed] = world.outcomes(StepFailed)
            assert (failed.failure.kind, failed.usage) == (FailureKind.TOO_LARGE, Usage(calls=1, prompt_tokens=5, completion_tokens=1))

    play(scenario)


def test_inputs_by_reference_come_one_a_slot() -> None:
    """Embeddings that ride on another one's call are small: 64 of 8 MiB would be in memory at once."""

    async def scenario(world: World) -> None:
        asked = Job(texts=("x" * 100_000,))
        given = input_of(asked, hands_on=True)
        reference = held(asked, given, await world.blobs.store("default", given.to_bytes())).input_ref
        backend = ScriptedBackend(Script(pause=1.0))
        async with world.worker(backend, slots=1, capabilities=("embed",)):
            fields = {"operation": Operation.EMBED, "capability": "embed", "messages": (), "input_ref": reference}
            world.route(*(step(number, **fields) for number in range(1, 9)))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 8)
            assert len(backend.calls) == 8

    play(scenario)
