"""Texts of conversations: what of an ended job stays, how large it is, and how a worker puts it before the next job's messages. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shared.contracts.blob import BlobRef
from shared.contracts.chat import Answer, ChatMessage
from shared.contracts.conversation import Memory, Portion, Turn
from shared.contracts.step import Step
from shared.estimates import fewest_tokens
from shared.framing import NO_ORDERS, framed

MOST_FOUND = 24
"""Facts, and half as many preferences, that stay when a model's are added to those that are known: the newest."""
_MEMORY_CHARACTERS = 64_000


def turn_of(job: str, at: float, said: Iterable[ChatMessage], answer: Answer, before: BlobRef | None) -> Turn:
    """What stays of a job: `said` is its own input."""
    own = tuple(_plain(message) for message in said if message.role != "system")
    told = ChatMessage(role="assistant", content=answer.text, tool_calls=answer.tool_calls)
    return Turn(job=job, at=at, messages=(*own, told), before=before)


def _plain(message: ChatMessage) -> ChatMessage:
    if not message.images:
        return message
    return message.model_copy(update={"images": (), "content": f"{message.content}\n[{len(message.images)} pictures, not kept]".strip()})


def size_of(turn: Turn) -> Portion:
    """Of one turn."""
    return _portion([message.content for message in turn.messages], 1, turn.at)


def memory_size(memory: Memory) -> Portion:
    """As it is shown to a model."""
    return _portion([shown(memory)], 0, 0.0)


def _portion(texts: Sequence[str], turns: int, at: float) -> Portion:
    return Portion(
        turns=turns,
        characters=sum(map(len, texts)),
        longest=sum(len(text.encode("utf-8", "replace")) for text in texts),
        fewest_tokens=fewest_tokens(texts),
        since=at,
    )


def merged(known: Memory | None, found: Memory) -> Memory:
    """What a model has found beside what is known: its summary holds the older one."""
    before = known or Memory()
    facts, preferences = (*before.facts, *found.facts), (*before.preferences, *found.preferences)
    return Memory(
        summary=found.summary or before.summary,
        facts=tuple(dict.fromkeys(facts))[-max(MOST_FOUND, len(before.facts)) :],
        preferences=tuple(dict.fromkeys(preferences))[-max(MOST_FOUND // 2, len(before.preferences)) :],
    )


def shown(memory: Memory) -> str:
    """As a model reads it: what it may not take for orders, in frames that nothing in it can close."""
    parts = [("summary", memory.summary), ("facts", _listed(memory.facts)), ("preferences", _listed(memory.preferences))]
    return "\n".join(framed(name, text, _MEMORY_CHARACTERS) for name, text in parts if text)


def _listed(notes: Sequence[str]) -> str:
    return "\n".join(f"- {note}" for note in notes)


def with_context(step: Step, memory: Memory | None, turns: Sequence[Turn]) -> Step:
    """The step with this before its messages: the memory behind the words of the system, then the turns, oldest first."""
    own = step.messages
    heads = next((number for number, message in enumerate(own) if message.role != "system"), len(own))
    head, rest = own[:heads], own[heads:]
    if memory is not None and (text := shown(memory)):
        known = f"What is known of this conversation so far. {NO_ORDERS}\n{text}"
        words = "\n\n".join((*(message.content for message in head), known))
        head = (ChatMessage(role="system", content=words),)
    said = tuple(message for turn in turns for message in turn.messages)
    return step.model_copy(update={"messages": (*head, *said, *rest), "context": None})
