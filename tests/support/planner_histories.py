"""Recorded histories: what a planner writes to `job-events` during a few lives of jobs, for the test that later planners replay them.

    .venv/bin/python -m tests.support.planner_histories

writes the histories that are not recorded yet. A recorded one is frozen: a planner in the field may have such a log before it. The
planner is the real one, on the in-memory log; the node is scripted. One event a line; the line's number, from 0, is the offset.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from infra.lab.virtual_loop import run
from services.planner.settings import PlannerSettings
from shared.agents.table import Declarations
from shared.contracts.agents import Declared, ModelCard, Tool
from shared.contracts.base import PriorityClass
from shared.contracts.chat import Answer, Options, Served
from shared.contracts.conversation import ConversationChanged, ConversationDropped
from shared.contracts.event import CancelRecorded
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.headers import envelope
from shared.contracts.limits import Limits
from shared.contracts.outcome import CancelRequested, ClaimsRenewed, StepClaimed, StepFailed, StepReleased, StepRouted, StepSucceeded
from shared.contracts.review import ReviewGiven, ReviewOpened, Verdict
from shared.contracts.step import Step
from shared.contracts.usage import Price, Timings, Usage
from shared.contracts.versions import NEWEST
from shared.kafka.port import Message, TopicPartition
from shared.processing.registry import registry_key
from tests.support.planner_world import World

FOLDER = Path(__file__).parents[1] / "contract" / "histories"
USAGE = Usage(calls=1, prompt_tokens=12, completion_tokens=7, cost=0.25)
CHAIN = b"""{"prompt": "a stone", "pattern": "chain", "model": "gemma3:270m", "system": "Be brief.", "chain": [
  {"name": "facts", "template": "Facts about {input}.", "gate": {"min_chars": 8, "repairs": 2}},
  {"name": "draft", "template": "A poem from: {facts} {{and nothing else}}", "model": "auto", "options": {"temperature": 0.5}},
  {"name": "final", "template": "Improve {draft}, which is about {input}.", "gate": {"contains": "stone"}}]}"""


class Script:
    """The world, and a node that does what it is told."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._seen = 0
        self._claims = 0

    async def next_step(self) -> Step:
        """The next dispatched attempt."""
        await self.world.until(lambda: len(self.world.node.steps_seen) > self._seen)
        self._seen += 1
        return self.world.node.steps_seen[self._seen - 1]

    def say(self, kind: type[Any], step: Step, **fields: Any) -> None:
        """An outcome of this attempt."""
        fields = {"node": "node-a", **fields}
        self.world.outcome(kind(job=step.job, step=step.id, attempt=step.attempt, **fields), step.home)

    async def claim(self, step: Step, node: str = "node-a") -> str:
        """Route and claim it, and give the planner time to record that; the claim's id."""
        self._claims += 1
        claim = f"{node}-boot-{self._claims}"
        self.say(StepRouted, step, node=node, mailbox=1, offset=self._claims, model="gemma3:270m")
        self.say(StepClaimed, step, node=node, claim=claim, mailbox=1, lease_seconds=step.lease_seconds)
        await asyncio.sleep(0.2)
        return claim

    async def answer(self, text: str, **fields: Any) -> Step:
        """The next step succeeds with this text."""
        step = await self.next_step()
        claim = await self.claim(step)
        answer = Answer(text=text, model="gemma3:270m", node="node-a", **fields)
        self.say(StepSucceeded, step, claim=claim, answer=answer, usage=USAGE, timings=Timings(total_ms=125.5))
        return step

    async def fail(self, kind: FailureKind = FailureKind.MODEL_ERROR, node: str = "node-a") -> Step:
        """The next step fails."""
        step = await self.next_step()
        claim = await self.claim(step, node)
        failure = Failure(kind=kind, message="the model answered 500", node=node, model="gemma3:270m")
        self.say(StepFailed, step, node=node, claim=claim, failure=failure, usage=USAGE)
        return step

    async def finished(self, count: int) -> None:
        """Longer than the wait for a node, which one life sits out."""
        await self.world.until(lambda: self.world.finished() == count, 700.0)


async def single(script: Script) -> None:
    """A chat, a stream with a reply address, an embedding, a client-given id, a failure for good, an unknown pattern."""
    produce = script.world.produce
    produce(b'{"prompt": "hello"}', headers_=[("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")])
    await script.answer("Hello!")
    reply = [("reply-topic", b"replies"), ("reply-partition", b"0"), ("correlation-id", b"\x00\xffcaller")]
    messages = b'[{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]'
    produce(b'{"messages": %b, "stream": true}' % messages, priority_class=PriorityClass.INTERACTIVE, headers_=reply)
    await script.answer("Hi", thinking="a greeting")
    produce(b'{"texts": ["one", "two"], "model": "nomic-embed-text"}', priority_class=PriorityClass.BATCH)
    await script.answer("", embeddings=((0.25, -1.5), (1e-7, 3.0)))
    produce(b'{"id": "order-4711", "prompt": "hello", "tenant": "acme", "metadata": {"a": "b"}}')
    await script.answer("Hello, acme!")
    produce(b'{"prompt": "too much", "options": {"max_tokens": 5, "seed": 1}}')
    await script.fail(FailureKind.BAD_REQUEST)
    produce(b'{"prompt": "x", "pattern": "nonesuch"}')
    await script.finished(6)


async def chain_with_repair(script: Script) -> None:
    """Three steps; the first is refused by its gate once, the last never passes in a second job."""
    script.world.produce(CHAIN)
    for text in ("short", "a stone is hard", "Hard, grey: {input}", "The stone. \N{EN DASH} \u4e2d\u6587"):
        await script.answer(text)
    await script.finished(1)
    script.world.produce(CHAIN)
    for text in ("a stone is hard", "Hard.", "no", "no again"):
        await script.answer(text)
    await script.finished(2)


async def retries(script: Script) -> None:
    """A failure, an expired lease, a release, a claim timeout, a cancelled attempt, and then a success; another job fails at last."""
    script.world.produce(b'{"prompt": "patience", "limits": {"attempts": 9}}')
    await script.fail()
    await script.claim(await script.next_step(), "node-b")
    script.say(StepReleased, await script.next_step(), reason="draining")
    script.say(StepRouted, await script.next_step(), node="node-c", mailbox=0, offset=9)
    await script.fail(FailureKind.CANCELLED)
    await script.answer("at last")
    await script.finished(1)
    script.world.produce(b'{"prompt": "in vain", "stream": true}')
    for node in ("node-a", "node-b", "node-c"):
        await script.fail(FailureKind.NODE_UNREACHABLE, node)
    await script.finished(2)


async def cancels(script: Script) -> None:
    """A running job, one whose cancel came first, one that expires, one that never finds a node."""
    world = script.world
    world.produce(b'{"id": "running", "prompt": "q"}')
    await script.claim(await script.next_step())
    world.outcome(CancelRequested(job="running", reason="the caller left"))
    await script.finished(1)
    world.outcome(CancelRequested(job="later"))
    await asyncio.sleep(1)
    world.produce(b'{"id": "later", "prompt": "q"}')
    world.produce(b'{"prompt": "q", "deadline_at": %f}' % (world.clock.wall() + 5))
    await script.claim(await script.next_step())
    world.produce(b'{"prompt": "q", "needs": {"tags": ["gpu"]}}')
    hopeless = await script.next_step()
    await asyncio.sleep(600)
    # Routers say so; when this life was recorded the planner gave up by itself.
    script.say(StepFailed, hopeless, failure=Failure(kind=FailureKind.NO_NODE, message="no node took the step in time"))
    await script.finished(4)


async def snapshot(script: Script) -> None:
    """A chain that is written again while other jobs come and go; then it ends."""
    script.world.produce(CHAIN)
    await script.fail()
    for text in ("a stone is hard", 'Hard, "grey" and \\ heavy'):
        await script.answer(text)
    last = await script.next_step()
    claim = await script.claim(last)
    for number in range(12):
        script.world.produce(b'{"prompt": "other %d"}' % number)
        await script.answer(f"answer {number}")
        script.world.outcome(ClaimsRenewed(node="node-a", claims=(claim,)))
        await asyncio.sleep(1)
    script.say(StepSucceeded, last, claim=claim, answer=Answer(text="stone, in the end"), usage=USAGE)
    await script.finished(13)


async def take_over(script: Script) -> None:
    """The planner is killed in the middle of a chain; another goes on; a record that the first had under way lands late."""
    world = script.world
    world.produce(CHAIN)
    await script.answer("a stone is hard")
    await script.claim(await script.next_step())
    world.produce(b'{"prompt": "asked, not claimed"}')
    await script.next_step()
    world.kill("planner")
    world.start("second")
    await script.answer("seen again")
    late = CancelRecorded(epoch=0, job="ghost", at=world.clock.wall(), reason="written by a fenced planner")
    world.log.write(TopicPartition(world.topics.job_events, 0), [Message(world.topics.job_events, late.to_bytes())])
    await script.answer("the lease ended: hard")
    await script.answer("A stone!")
    await script.finished(2)


async def budget(script: Script) -> None:
    """A limit ends a chain with its best answer so far; wall time does so too, and a job that has none fails."""
    script.world.produce(CHAIN.replace(b'"prompt"', b'"limits": {"calls": 2}, "prompt"', 1))
    for text in ("a stone is hard", "half a poem"):
        await script.answer(text)
    script.world.produce(CHAIN.replace(b'"prompt"', b'"limits": {"wall_seconds": 9}, "prompt"', 1))
    await script.answer("a stone is old")
    await script.claim(await script.next_step())
    await script.finished(2)
    script.world.produce(b'{"prompt": "no room", "limits": {"tokens": 10}}')
    await script.finished(3)


async def reviews(script: Script) -> None:
    """Two of three people agree after others were asked; a text is edited; nobody says anything; a job is cancelled in its review."""
    rules = b'"assignees": ["ann", "bob"], "quorum": 2, "escalate_to": ["cem"], "escalate_after_seconds": 3, "deadline_seconds": 20'
    for number, review in enumerate((rules, b"", b'"deadline_seconds": 30, "default": "approve"', b'"deadline_seconds": 40')):
        steps = b'{"name": "draft", "template": "{input}", "review": {%b}}, {"name": "final", "template": "Send {draft}"}' % review
        script.world.produce(b'{"id": "r-%d", "prompt": "a stone", "pattern": "chain", "chain": [%b]}' % (number, steps))
        await script.answer(f"draft {number}")
    found: dict[str, ReviewOpened] = {}

    def opened() -> bool:
        found.update({event.job: event for event in script.world.history(0) if isinstance(event, ReviewOpened)})
        return len(found) == 4

    await script.world.until(opened)

    def decide(job: str, by: str, verdict: Verdict, text: str = "") -> None:
        review = found[job]
        script.world.outcome(ReviewGiven(job=job, step=review.step, digest=review.digest, by=by, verdict=verdict, text=text))

    decide("r-0", "ann", "approve")
    decide("r-0", "ann", "approve")
    decide("r-0", "cem", "approve")
    await asyncio.sleep(4)
    decide("r-0", "bob", "edit", "another draft")
    decide("r-0", "cem", "approve", "as ann says")
    await script.answer("sent 0")
    decide("r-1", "ann", "edit", "a better draft")
    await script.answer("sent 1")
    script.world.outcome(CancelRequested(job="r-3", reason="not needed any more"))
    decide("r-3", "ann", "approve")
    await script.answer("sent 2")
    await script.finished(4)


def declare(world: World, kind: str, name: str, body: Declared) -> None:
    for key, value in Declarations().to_declare(kind, name, body, at=0.0, by="").items():
        registry = TopicPartition(world.topics.registry, 0)
        world.log.write(registry, [Message(registry.topic, value, registry_key(kind, key), 0, envelope(kind))])


async def tools(script: Script) -> None:
    """A model calls two tools, one of which must not be called twice; a planner dies amid the calls. Then one is called alone and lost."""
    world, body = script.world, Tool(about="Notes.", parameters={"type": "object"})
    for name, tool in (("note", body), ("add", body.changed(idempotent=True))):
        declare(world, "tool", name, tool)
    await asyncio.sleep(3)
    world.produce(b'{"prompt": "a stone", "pattern": "tools", "input": {"tools": ["note", "add"]}}')
    asked = await script.next_step()
    calls = tuple({"function": {"name": name, "arguments": '{"n": 1}'}} for name in ("note", "add", "none"))
    script.say(StepSucceeded, asked, claim=await script.claim(asked), answer=Answer(tool_calls=calls), usage=USAGE)
    note, add = await script.next_step(), await script.next_step()
    claim = await script.claim(note)
    world.kill("planner")
    world.start("planner")
    again = await script.next_step()
    assert again.id == add.id, "the claimed one is let begin, not asked again"
    script.say(StepSucceeded, note, claim=claim, answer=Answer(text="noted"), usage=USAGE)
    script.say(StepFailed, again, claim=await script.claim(again), failure=Failure(kind=FailureKind.BAD_REQUEST, message="no"), usage=USAGE)
    await script.answer("a stone is noted")
    await script.finished(1)
    world.produce(b'{"prompt": "{}", "pattern": "tools", "input": {"tool": "note"}}')
    await script.claim(await script.next_step())
    world.node.silent = 1.0
    await script.finished(2)


async def talks(script: Script) -> None:
    """A conversation: two turns, a third that sums them up first, one that cannot, one cancelled while it waits, and a deletion."""
    world, long = script.world, "and so on and on " * 12

    async def ended(count: int) -> None:
        await world.until(lambda: [e for e in world.history(0) if isinstance(e, ConversationChanged)][-1].ended == count)

    def produce(number: int, more: str = "") -> None:
        world.produce(f'{{"id": "t-{number}", "prompt": "question {number} {long}", "conversation": "talk"{more}}}'.encode())

    for number in range(2):
        produce(number)
        await script.answer(f"answer {number}")
        await ended(number + 1)
    produce(2, ', "pattern": "chain", "chain": [{"name": "only", "template": "Say {input}"}]')
    step = await script.answer('{"summary": "they asked twice", "facts": ["a fact"], "preferences": []}')
    assert step.agent == "summarise"
    await script.answer("answer 2")
    await ended(3)
    produce(3)
    await asyncio.sleep(1)
    produce(4)
    await asyncio.sleep(1)
    world.outcome(CancelRequested(job="t-4", reason="not needed any more"))
    await script.fail(FailureKind.BAD_REQUEST)
    produce(5)
    await script.answer("answer 5")
    await ended(4)
    world.outcome(ConversationDropped(tenant="default", conversation="talk"))
    await script.finished(6)
    await asyncio.sleep(1)


async def served(script: Script) -> None:
    """A job that asks the cache is answered by a model; the next one by the cache, late; of a chain the first step."""
    world, asked = script.world, b'"cache": {"mode": "exact", "tags": ["faq"]}, "options": {"temperature": 0}'
    world.produce(b'{"prompt": "why", "model": "gemma3:270m", %b}' % asked)
    await script.answer("since")
    kept = Served(kind="exact", entry="3f" * 32, age_seconds=1.5, saved=USAGE)

    def hit(step: Step) -> None:
        answer = Answer(text="since", model="gemma3:270m", node="node-a", served=kept)
        world.outcome(StepSucceeded(job=step.job, step=step.id, attempt=step.attempt, answer=answer), step.home)

    await script.finished(1)
    world.produce(b'{"prompt": "why", "model": "gemma3:270m", %b}' % asked)
    step = await script.next_step()
    await script.claim(step)
    hit(step)
    await script.finished(2)
    world.produce(CHAIN.replace(b'"prompt"', b'"cache": {"mode": "exact"}, "prompt"'))
    hit(await script.next_step())
    for text in ("a stone is hard", "Hard.", "The stone."):
        await script.answer(text)
    await script.finished(3)


async def models(script: Script) -> None:
    """A job of a model's synonym whose card is changed amid it, and of a tier; a planner dies in between. Then a pull on two nodes."""
    world, card = (
        script.world,
        ModelCard(model="qwen3:32b", synonyms=("gpt-4o",), fallbacks=("qwen3:8b",), options=Options(temperature=0.5)),
    )
    declare(world, "card", "smart", card)
    declare(world, "card", "tiny", ModelCard(model="qwen3:0.6b", tier="small", price=Price(prompt_per_million=0.1)))
    await asyncio.sleep(3)
    world.produce(CHAIN.replace(b"gemma3:270m", b"gpt-4o").replace(b'"model": "auto"', b'"model": "tier:small"'))
    step = await script.answer("a stone is hard")
    assert (step.model, step.fallback_models) == ("qwen3:32b", ("qwen3:8b",))
    declare(world, "card", "smart", ModelCard(model="other:1"))
    world.kill("planner")
    world.start("planner")
    for text in ("Hard.", "The stone."):
        await script.answer(text)
    await script.finished(1)
    ask = b'{"action": "pull", "name": "new:1", "nodes": [{"node": "node-a"}, {"node": "node-b"}]}'
    world.produce(b'{"prompt": "pull new:1", "pattern": "models", "input": %b}' % ask)
    await script.answer("done")
    await script.answer("done")
    await script.finished(2)


LIVES: tuple[Callable[[Script], Awaitable[None]], ...] = (
    single,
    chain_with_repair,
    retries,
    cancels,
    snapshot,
    take_over,
    budget,
    reviews,
    tools,
    talks,
    served,
    models,
)


def recorded(life: Callable[[Script], Awaitable[None]]) -> list[bytes]:
    """The events of one life, in the order of the log."""

    async def body() -> list[bytes]:
        limits = Limits(calls=64, steps=128, depth=4, width=16)
        options = PlannerSettings(snapshot_distance=12, lease_seconds=6, limits=limits, conversation_tokens=100)
        async with World(4, homes=1, options=options, capabilities=("chat", "embed", "tools")) as world:
            world.node.silent = 1.0
            world.start("planner")
            await life(Script(world))
            return world.values(world.topics.job_events)

    events: list[bytes] = run(body())
    return events


def main() -> None:
    """Record what is not recorded yet."""
    FOLDER.mkdir(exist_ok=True)
    for life in LIVES:
        path = FOLDER / f"{life.__name__}.v{NEWEST}.jsonl"
        if not path.exists():
            path.write_bytes(b"".join(event + b"\n" for event in recorded(life)))
            print(f"recorded {path.name}")  # noqa: T201


if __name__ == "__main__":
    main()
