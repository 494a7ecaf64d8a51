"""The whole worker on the in-memory log: from a record in the mailbox to its outcome."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.worker.backends.base import Completion, Delta, ModelCall
from services.worker.backends.in_process import InProcessBackend
from shared.contracts.chat import Answer, ChatMessage, FinishReason, Operation
from shared.contracts.failure import FailureKind
from shared.contracts.job import ReplyTo
from shared.contracts.node import NodeModel
from shared.contracts.outcome import ClaimsRenewed, StepClaimed, StepFailed, StepReleased, StepSucceeded
from shared.contracts.step import Step
from shared.contracts.usage import Usage
from shared.kafka.port import TopicPartition
from tests.unit.worker.scripted_backend import Script, ScriptedBackend
from tests.unit.worker.world import NODE, World, play, step

TRACE = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def test_a_step_is_claimed_then_succeeds_at_its_home() -> None:
    """Every step read yields exactly one claim and one success, on the partition of the job's home, with answer and usage."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pause=0.1))):
            world.route(step(1), step(2), step(3))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 3)
            claims, successes = world.outcomes(StepClaimed), world.outcomes(StepSucceeded)
            assert sorted(c.job for c in claims) == sorted(s.job for s in successes) == ["j1", "j2", "j3"]
            assert {c.claim for c in claims} == {s.claim for s in successes}
            assert len({c.claim for c in claims}) == 3
            assert all(s.answer.text == "hello world" and s.answer.node == NODE and s.usage.completion_tokens == 2 for s in successes)
            home_0 = world.log.existing(TopicPartition(world.topics.outcomes, 0)).records
            assert {record.key for record in home_0} == {b"j2", NODE.encode()}

    play(scenario)


class Cutter(ScriptedBackend):
    """Its window is 200 tokens, of which it reads at most 100 of a longer prompt and says nothing."""

    async def models(self) -> tuple[NodeModel, ...]:
        return (NodeModel(name="small", window=200),)

    async def call(self, call: ModelCall) -> AsyncIterator[Delta | Completion]:
        read = min(100, sum(len(message.content.split()) for message in call.step.messages))
        yield Completion(Answer(text="a"), Usage(calls=1, prompt_tokens=read, completion_tokens=1))


def test_a_prompt_that_an_endpoint_has_cut_in_silence_is_a_failure() -> None:
    """Of the kind that names the window; the count of the endpoint itself tells."""

    async def scenario(world: World) -> None:
        async with world.worker(Cutter()):
            world.route(*(step(n, messages=(ChatMessage(role="user", content="word " * n),)) for n in (90, 150)))
            await world.until(lambda: bool(world.outcomes(StepSucceeded) and world.outcomes(StepFailed)))
            assert [done.job for done in world.outcomes(StepSucceeded)] == ["j90"]
            (failed,) = world.outcomes(StepFailed)
            assert (failed.failure.kind, failed.failure.window, failed.usage.calls) == (FailureKind.CONTEXT_LENGTH, 200, 1)

    play(scenario)


def test_a_step_that_ends_at_once_needs_no_claim_record() -> None:
    """Its outcome takes the claim's place, under the claim's id; a stream is claimed all the same before its pieces are seen."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()):
            world.route(step(1), step(2, stream=True))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
            assert [claim.job for claim in world.outcomes(StepClaimed)] == ["j2"]
            assert len({success.claim for success in world.outcomes(StepSucceeded)}) == 2

    play(scenario)


def test_never_more_calls_than_slots() -> None:
    """A queue inside the endpoint cannot be seen or reordered, so none is made."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(pause=0.5))
        async with world.worker(backend, slots=3):
            world.route(*(step(n) for n in range(1, 20)))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 19)
            assert backend.most_running == 3

    play(scenario)


def test_the_most_urgent_class_goes_first() -> None:
    """What waits in the mailbox is started by class, then by arrival."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(pause=0.1))
        async with world.worker(backend, slots=1):
            classes = ("batch", "standard", "interactive", "batch", "interactive")
            world.route(*(step(n, priority_class=c) for n, c in enumerate(classes, 1)))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 5)
            assert [call.step.job for call in backend.calls] == ["j3", "j5", "j2", "j1", "j4"]

    play(scenario)


def test_positions_are_committed_soon_not_after_the_generation() -> None:
    """A long generation blocks no partition: its position is committed while it runs, within the interval."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(hangs=True))):
            world.route(step(1))
            await world.until(lambda: len(world.outcomes(StepClaimed)) == 1)
            mailbox = TopicPartition(world.topics.work("chat"), 0)
            await world.until(lambda: world.log.group(f"tutti-worker-{NODE}").offsets.get(mailbox) == 1, seconds=0.3)

    play(scenario)


@pytest.mark.parametrize("seconds", [0.001, 0.1])
def test_an_idle_worker_commits_at_once(seconds: float) -> None:
    """What has ended is not run again after a SIGKILL, once nothing was read for a moment."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pause=seconds)), process="a"):
            await world.clock.sleep(1.0)
            world.route(step(1))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 1)
            await world.clock.sleep(0.06)
            world.log.kill("a")
        async with world.worker(ScriptedBackend(), process="b"):
            await world.clock.sleep(5.0)
            assert len(world.outcomes(StepSucceeded)) == 1

    play(scenario)


def test_steps_in_a_row_share_a_commit() -> None:
    """One after the other, each alone for a moment: four commits a second, not one a step."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()):
            await world.clock.sleep(1.0)
            group, mailbox, seen = world.log.group(f"tutti-worker-{NODE}"), TopicPartition(world.topics.work("chat"), 0), set[int | None]()
            for number in range(1, 101):
                world.route(step(number))
                await world.clock.sleep(0.01)
                seen.add(group.offsets.get(mailbox))
            assert len(seen) <= 6
            await world.clock.sleep(0.06)
            assert group.offsets.get(mailbox) == 100

    play(scenario)


def test_running_claims_are_renewed_one_record_a_home() -> None:
    """All claims of a home are renewed together, every five seconds, as long as they run."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(hangs=True)), slots=4):
            world.route(step(1), step(3), step(5), step(2))
            await world.clock.sleep(10.5)
            renewals = world.outcomes(ClaimsRenewed)
            assert sorted(len(r.claims) for r in renewals) == [1, 1, 3, 3]

    play(scenario)


def test_a_duplicate_of_a_running_attempt_is_ignored() -> None:
    """A router that died after producing routes again: the attempt is claimed once and run once."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(Script(pause=0.5))
        async with world.worker(backend):
            world.route(step(1), step(1))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            assert len(backend.calls) == len(world.outcomes(StepClaimed)) == len(world.outcomes(StepSucceeded)) == 1

    play(scenario)


def test_a_finished_attempt_met_again_sends_the_kept_outcome() -> None:
    """Nothing is generated twice: the same bytes go out again, and no second claim."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend()
        async with world.worker(backend):
            world.route(step(1))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 1)
            world.route(step(1))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
            first, again = world.outcomes(StepSucceeded)
            assert first == again
            assert len(backend.calls) == 1
            assert not world.outcomes(StepClaimed)

    play(scenario)


def test_the_next_attempt_is_new_work() -> None:
    """Attempts are told apart: the kept outcome of attempt 1 does not answer attempt 2."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend()
        async with world.worker(backend):
            world.route(step(1), step(1, attempt=2))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
            assert [call.step.attempt for call in backend.calls] == [1, 2]

    play(scenario)


def test_another_nodes_record_is_released() -> None:
    """A mailbox number can be used again: a step for its former node is given back, not run, not lost."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend()
        async with world.worker(backend):
            world.route(step(1), node="node-before")
            await world.until(lambda: bool(world.outcomes(StepReleased)))
            [released] = world.outcomes()
            assert (released.job, released.node, released.claim) == ("j1", NODE, None)
            assert backend.calls == []

    play(scenario)


def test_an_unreadable_record_becomes_a_dead_letter_and_the_mailbox_goes_on() -> None:
    """Law 8: topic, partition, offset and reason are kept; the next record is served."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()):
            world.write(world.topics.work("chat"), 0, b'{"job": "x"}')
            world.route(step(1))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 1 and bool(world.dead_letters()))
            [letter] = world.dead_letters()
            assert (letter.topic, letter.partition, letter.offset, letter.code) == ("work.chat", 0, 0, "invalid_record")

    play(scenario)


@pytest.mark.parametrize("kind", [FailureKind.MODEL_ERROR, FailureKind.BROKEN_STREAM, FailureKind.OVERLOADED])
def test_a_failed_call_is_a_typed_outcome_with_what_was_consumed(kind: FailureKind) -> None:
    """A failure of the endpoint ends the attempt with its kind and an estimate of the usage."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(failure=kind))):
            world.route(step(1))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            [failed] = world.outcomes(StepFailed)
            assert failed.failure.kind is kind
            assert failed.failure.node == NODE
            assert failed.usage.completion_tokens == 2
            assert failed.usage.estimated

    play(scenario)


def test_a_hang_becomes_a_timeout() -> None:
    """Silence before the first token and between tokens both end in model_timeout, and the slot is free again."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend(by_job={"j1": Script(pieces=(), hangs=True), "j2": Script(hangs=True)})
        async with world.worker(backend, first_token_timeout_seconds=30, between_tokens_timeout_seconds=10):
            world.route(step(1), step(2))
            await world.until(lambda: len(world.outcomes(StepFailed)) == 2)
            assert {f.failure.kind for f in world.outcomes(StepFailed)} == {FailureKind.MODEL_TIMEOUT}
            assert backend.closed_at == pytest.approx([10, 30], abs=0.6)
            world.route(step(3))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))

    play(scenario)


def test_the_users_deadline_ends_an_attempt_running_or_waiting() -> None:
    """A deadline is the one instant of another machine that counts."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(hangs=True)), slots=1):
            soon = world.clock.wall() + 3
            world.route(step(1, deadline_at=soon), step(2, deadline_at=soon), step(3, deadline_at=world.clock.wall() - 1))
            await world.until(lambda: len(world.outcomes(StepFailed)) == 3, seconds=5)
            assert {f.failure.kind for f in world.outcomes(StepFailed)} == {FailureKind.DEADLINE}

    play(scenario)


def test_an_unknown_model_falls_back_and_else_fails() -> None:
    """404: the step's fallbacks that this node has, else unknown_model."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()):
            world.route(step(1, model="huge", fallback_models=("absent", "other")), step(2, model="huge"))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) + len(world.outcomes(StepFailed)) == 2)
            assert world.outcomes(StepSucceeded, "j1")[0].answer.model == "other"
            assert world.outcomes(StepFailed, "j2")[0].failure.kind is FailureKind.UNKNOWN_MODEL

    play(scenario)


def test_auto_embed_and_json_run_on_the_in_process_backend() -> None:
    """`auto` chooses a model by operation; embeddings come one a text; asked-for JSON is JSON; all of it is marked simulated."""

    async def scenario(world: World) -> None:
        async with world.worker(InProcessBackend()):
            embed = step(2, model="auto", capability="embed", operation=Operation.EMBED, messages=(), texts=("a", "b"))
            world.route(step(1, model="auto"), embed, step(3, model="auto", format="json"))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 3)
            assert all(s.answer.simulated for s in world.outcomes(StepSucceeded))
            assert len(world.outcomes(StepSucceeded, "j2")[0].answer.embeddings) == 2
            assert world.outcomes(StepSucceeded, "j3")[0].answer.text.startswith("{")

    play(scenario)


def test_text_where_json_was_asked_for_is_invalid_output() -> None:
    """An endpoint that ignores `format` is found out here."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()):
            world.route(step(1, format="json"))
            await world.until(lambda: bool(world.outcomes(StepFailed)))
            assert world.outcomes(StepFailed)[0].failure.kind is FailureKind.INVALID_OUTPUT

    play(scenario)


@pytest.mark.parametrize("format_", ["json", {"type": "object"}])
def test_json_that_the_token_limit_cut_is_the_answer(format_: Any) -> None:
    """It says so by its finish reason; another attempt would be cut at the same place and paid again."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend(Script(pieces=('{"capital', '": "Pa'), finish_reason=FinishReason.LENGTH))):
            world.route(step(1, format=format_), step(2, format=format_, stream=True))
            await world.until(lambda: len(world.outcomes(StepSucceeded)) == 2)
            for outcome in world.outcomes(StepSucceeded):
                assert (outcome.answer.text, outcome.answer.finish_reason) == ('{"capital": "Pa', FinishReason.LENGTH)

    play(scenario)


def test_the_trace_reaches_the_model_call_as_a_child() -> None:
    """Same trace id, a span of its own, in the call and on the outcome."""

    async def scenario(world: World) -> None:
        backend = ScriptedBackend()
        async with world.worker(backend):
            world.route(step(1), trace=TRACE)
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            sent = backend.calls[0].trace
            assert sent is not None
            assert sent[:36] == TRACE[:36]
            assert sent != TRACE
            record = world.log.existing(TopicPartition(world.topics.outcomes, 1)).records[-1]
            assert dict(record.headers)["traceparent"] == sent.encode()

    play(scenario)


def test_chunks_join_to_the_answer() -> None:
    """Sequences have no gap, offsets count characters, the first chunk comes at once, and the text is the answer's."""

    async def scenario(world: World) -> None:
        reply = ReplyTo(topic=world.topics.replies, partition=1, correlation=b"c", multiplex=True)
        pieces = tuple(f"word{n} " for n in range(50))
        backend = ScriptedBackend(Script(pieces=pieces, pause=0.01))
        async with world.worker(backend):
            world.route(step(1, stream=True, reply=reply))
            await world.until(lambda: bool(world.chunks()), seconds=0.05)
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            await world.clock.sleep(0.2)
            chunks = world.chunks()
            assert "".join(chunk.text for chunk in chunks) == "".join(pieces)
            assert [chunk.sequence for chunk in chunks] == list(range(len(chunks)))
            assert all(chunk.offset == sum(len(c.text) for c in chunks[:n]) for n, chunk in enumerate(chunks))
            assert 5 <= len(chunks) <= 25
            assert {chunk.correlation for chunk in chunks} == {b"c"}

    play(scenario)


def test_no_chunk_goes_to_a_topic_that_is_no_reply_topic() -> None:
    """Law 10: a caller cannot make the worker write into the cluster's own topics."""

    async def scenario(world: World) -> None:
        async with world.worker(ScriptedBackend()):
            before = len(world.values(world.topics.job_events))
            world.route(step(1, stream=True, reply=ReplyTo(topic=world.topics.job_events)))
            await world.until(lambda: bool(world.outcomes(StepSucceeded)))
            await world.clock.sleep(0.2)
            assert len(world.values(world.topics.job_events)) == before

    play(scenario)


def test_a_step_carries_everything_it_needs() -> None:
    """A step without optional fields is enough: nothing is looked up."""
    assert Step(job="j", id="s", home=0).capability == "chat"
