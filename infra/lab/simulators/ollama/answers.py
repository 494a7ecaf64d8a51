"""What the simulated model says. Pure: the same work and seed give the same answer.

In this order:
1. A script whose text and pattern the prompt meets gives its answer word for word, whatever else is asked.
2. With tools, a tool is called when the newest message is a user's and names the tool, or holds the word "tool" (then the first tool).
   Arguments are drawn from the tool's parameter schema.
3. With a format, JSON: of the schema, or for "json" an object with one text.
4. Sentences of common words; after a tool's answer they quote it.

Where the answer is begun already, what is missing of it follows; words of its own where it would have begun otherwise.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from random import Random
from typing import Any

from infra.lab.simulators.ollama import schema
from infra.lab.simulators.ollama.inference import count_tokens
from infra.lab.simulators.ollama.parameters import FailureMode, Parameters, Script
from infra.lab.simulators.ollama.requests import Work
from infra.lab.simulators.ollama.words import sentences

_PIECE = re.compile(r"\s*\S+\s*$|\s*\S+")
THINKING_WORDS = 12


@dataclass(frozen=True, slots=True)
class SimulatedAnswer:
    """The tokens of an answer, in order, and how it ends."""

    pieces: Sequence[str]
    thinking: Sequence[str] = ()
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    done_reason: str = "stop"


def answer(work: Work, node: Parameters, scripts: Sequence[Script], failure: FailureMode | None = None) -> SimulatedAnswer:
    """The answer to `work`, cut by `num_predict`, the node's limit and `stop`; spoiled by `failure` where that is about the text."""
    random = Random(_seed(work, node))
    thinking = sentences(random, THINKING_WORDS) if work.think else []
    pieces, calls = _content(work, node, scripts, random)
    if work.begun:
        pieces = _rest(pieces, work, node)
    if failure is FailureMode.INVALID_JSON:
        pieces = ['{"broken":', " [1,", " 2"]
    if failure is FailureMode.REPETITION:
        phrase = list(pieces[1:5]) or [" again"]
        pieces = phrase * (_limit(work, node) // len(phrase) + 1)
    limit = _limit(work, node)
    cut = SimulatedAnswer(pieces[: max(0, limit - len(thinking))], thinking[:limit], calls)
    ended_early = len(pieces) + len(thinking) > limit
    return _stopped(cut, work.stop, "length" if ended_early else "stop")


def _seed(work: Work, node: Parameters) -> int:
    text = f"{node.seed}\0{work.seed}\0{work.model.name}\0{work.question}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _content(
    work: Work, node: Parameters, scripts: Sequence[Script], random: Random
) -> tuple[Sequence[str], tuple[Mapping[str, Any], ...]]:
    for script in scripts:
        if script.model in ("", work.model.name) and script.contains in work.question and re.search(script.pattern, work.question):
            return split(script.answer), ()
    if (tool := _asked_tool(work)) is not None:
        return [], (_call(tool, random),)
    if work.format == "json":
        return _tokens(json.dumps({"answer": "".join(sentences(random, 8))}), node), ()
    if work.format is not None:
        return _tokens(json.dumps(schema.instance(work.format, random)), node), ()
    if work.last_tool:
        return split(f"The tool answered: {work.last_tool}"), ()
    length = random.randrange(node.answer_tokens[0], node.answer_tokens[1] + 1)
    return sentences(random, min(length, _limit(work, node) + 1)), ()  # one more than allowed tells that it was cut


def _rest(pieces: Sequence[str], work: Work, node: Parameters) -> Sequence[str]:
    text = "".join(pieces)
    if text.startswith(work.begun):
        return split(text[len(work.begun) :])
    random = Random(_seed(work, node) + len(work.begun))
    more = sentences(random, min(node.answer_tokens[0], _limit(work, node)))
    return [f" {more[0]}", *more[1:]] if more else []


def _tokens(text: str, node: Parameters) -> list[str]:
    """Of JSON, as real vocabularies cut it: names and marks take tokens, so that a low limit falls within."""
    size = node.json_token
    return split(text) if size is None else [text[at : at + size] for at in range(0, len(text), size)]


def split(text: str) -> list[str]:
    """Words with the space before them: the tokens of a given text."""
    return _PIECE.findall(text) if text.strip() else [text] * bool(text)


def _asked_tool(work: Work) -> Mapping[str, Any] | None:
    if not work.tools or not work.last_user:
        return None
    text = work.last_user.lower()
    functions: list[Mapping[str, Any]] = [tool["function"] for tool in work.tools if isinstance(tool.get("function"), Mapping)]
    named = [function for function in functions if str(function.get("name", "")).lower() in text]
    candidates = named or (functions if re.search(r"\btools?\b", text) else [])
    return candidates[0] if candidates else None


def _call(function: Mapping[str, Any], random: Random) -> Mapping[str, Any]:
    parameters = function.get("parameters") or {"type": "object"}
    try:
        arguments = schema.instance(parameters, random)
    except schema.InvalidSchema:
        arguments = {}
    return {
        "id": f"call_{random.getrandbits(32):08x}",
        "function": {"index": 0, "name": str(function.get("name", "")), "arguments": arguments},
    }


def _limit(work: Work, node: Parameters) -> int:
    """`num_predict`: positive is a limit, everything else is none. Without context shift the window is another."""
    asked = work.num_predict or 0
    most = node.max_answer_tokens if work.shift else min(node.max_answer_tokens, max(1, work.context - count_tokens(work.prompt)))
    return min(asked, most) if asked > 0 else most


def _stopped(full: SimulatedAnswer, marks: Sequence[str], reason: str) -> SimulatedAnswer:
    """Cut before the first stop mark."""
    if not marks:
        return SimulatedAnswer(full.pieces, full.thinking, full.tool_calls, reason)
    text = "".join(full.pieces)
    places = [place for mark in marks if (place := text.find(mark)) >= 0]
    if not places:
        return SimulatedAnswer(full.pieces, full.thinking, full.tool_calls, reason)
    return SimulatedAnswer(split(text[: min(places)]), full.thinking, full.tool_calls)
