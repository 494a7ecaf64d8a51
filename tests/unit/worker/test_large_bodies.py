"""Bodies above the inline bound: a step's input is fetched before the call, a large answer is kept before the outcome names it."""

from __future__ import annotations

from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.failure import FailureKind
from shared.contracts.job import Job
from shared.contracts.outcome import StepFailed, StepSucceeded
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
        given = input_of(asked)
        reference = held(asked, given, await world.blobs.store("default", given.to_bytes())).input
        backend = ScriptedBackend()
        async with world.worker(backend):
            world.route(step(1, input=reference))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            read = backend.calls[0].step
            assert [(m.role, len(m.content)) for m in read.messages] == [("system", 9), ("user", 100_000)]
            assert read.tools == asked.tools
            world.route(step(2, input=reference, tenant="other"))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            assert world.outcomes(StepFailed)[0].failure.kind is FailureKind.BLOB_GONE
            assert len(backend.calls) == 1

    play(scenario)
