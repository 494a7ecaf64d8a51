"""auto: one of the other patterns, picked from what the prompt looks like and how much time and budget there is; single when in doubt.

When: callers do not know the patterns, and a wrong guess costs no more than some calls.
Not when: you know which pattern the job needs, or it has `tools`, `format`, images, or texts to embed (then it is always single).
Options: `among` (patterns that may be picked), `seconds` (with less time than this to its deadline it is single, 60).
Cost: that of the pattern it picks; the result's explanation says which, and why. A single call has none.
Try: tutti submit --pattern auto "Is 91 a prime number?"

    prompt ─► features ─┬─► single
                        ├─► map, vote, decompose, ...
                        └─► (too little time or budget) single
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from shared.contracts.agents import Reference
from shared.contracts.base import PositiveSeconds
from shared.contracts.chat import Answer, Operation
from shared.contracts.job import HeldJob, Job
from shared.contracts.limits import Limits
from shared.patterns.chain import job_input
from shared.patterns.context import Context
from shared.patterns.critic import CRITIC
from shared.patterns.debate import DEBATE
from shared.patterns.decompose import DECOMPOSE
from shared.patterns.map import MAP
from shared.patterns.port import Pattern, PatternInput, agents_named
from shared.patterns.single import request_of
from shared.patterns.vote import VOTE

READ = 8_000
"""Characters of the prompt that are looked at."""
Choice = Literal["map", "vote", "decompose", "debate", "critic"]
PATTERNS: Mapping[str, Pattern] = {pattern.name: pattern for pattern in (MAP, VOTE, DECOMPOSE, DEBATE, CRITIC)}
"""Of a fixed version each: a job that is under way when a newer one comes goes on as it began."""
_LEAST_CALLS = {"map": 6, "vote": 5, "decompose": 8, "debate": 7, "critic": 4}
"""A job with a lower limit of calls gets the single one."""


@dataclass(frozen=True, slots=True)
class _Features:
    """What of a prompt decides."""

    text: str
    lines: int
    questions: int
    numbers: int


class AutoInput(PatternInput):
    """What may be picked, and from how much time on."""

    among: tuple[Choice, ...] = Field(default=("map", "vote", "decompose", "debate", "critic"), max_length=5)
    seconds: PositiveSeconds = 60.0
    agents: tuple[Reference, ...] = Field(
        default=tuple(dict.fromkeys(name for pattern in PATTERNS.values() for name in agents_named(pattern.input()))), max_length=16
    )
    """All that the patterns above use: they are pinned before one is picked."""


def _says(*words: str) -> Callable[[_Features], bool]:
    found = re.compile(rf"\b(?:{'|'.join(words)})\b", re.IGNORECASE)
    return lambda features: found.search(features.text) is not None


_EACH = _says("each of", "for each", "for every", "every one of", "the following (?:items|texts|lines|reviews|questions|sentences)")
_COUNTS = _says("how (?:many|much|long|far|old)", "calculate", "compute", "solve", "what is the (?:sum|total|result|probability)")
_PARTS = _says("compare", "step by step plan", "plan (?:for|to)", "first .{3,80} then", "report (?:on|about)", "pros and cons .{0,40} and")
_SIDES = _says("should (?:we|i|one)", "is it better", "pros and cons", "argue", "agree or disagree", "advantages and disadvantages")
_CARE = _says("write (?:a|an|the) (?:letter|article|essay|policy|contract|email|proposal|review)", "draft", "rewrite", "proofread")
_RULES: tuple[tuple[Choice, Callable[[_Features], bool], str], ...] = (
    ("map", lambda f: f.lines >= 4 and _EACH(f), "the same is asked of each of several lines"),
    ("vote", lambda f: f.numbers >= 2 and _COUNTS(f), "a number is asked for that has to be worked out"),
    ("decompose", lambda f: f.questions >= 3 or _PARTS(f), "it has several parts"),
    ("debate", _SIDES, "there are two sides to it"),
    ("critic", _CARE, "a text is to be written with care"),
)


def features_of(text: str) -> _Features:
    """Of the prompt's beginning."""
    text = text[:READ]
    lines = sum(bool(line.strip()) for line in text.splitlines())
    return _Features(text, lines, text.count("?"), len(re.findall(r"\d+(?:[.,]\d+)*", text)))


def pick(job: Job, ask: AutoInput, limits: Limits, seconds: float) -> tuple[str, str]:
    """Which pattern, and why. Pure; `seconds`: from acceptance to the deadline."""
    own = job.kind is not Operation.CHAT or job.tools or job.format or any(message.images for message in job.messages or ())
    if own or (isinstance(job, HeldJob) and job.input_ref is not None):
        return "single", "its input is handed on as it is"
    if seconds < ask.seconds:
        return "single", f"there are less than {ask.seconds:g} s"
    features = features_of(job_input(job))
    for name, fits, why in _RULES:
        if name in ask.among and fits(features):
            if limits.calls is not None and limits.calls < _LEAST_CALLS[name]:
                return "single", f"{name} would fit, and may need more than {limits.calls} calls"
            return name, why
    return "single", "nothing speaks for more than one call"


async def auto(ctx: Context, job: Job, ask: AutoInput) -> Answer:
    """The picked pattern's answer, by its defaults."""
    name, why = pick(job, ask, ctx.limits, ctx.seconds)
    picked = PATTERNS.get(name)
    if picked is None:  # as it came: its settle event then holds it in one with the step's answer, and no explanation means single
        return await ctx.ask(request_of(job))
    answer = await picked.run(ctx, job, picked.input())
    return answer.model_copy(update={"explanation": {"pattern": name, "why": why, **(answer.explanation or {})}})


AUTO = Pattern("auto", 1, auto, AutoInput, hands_on=True, limits=Limits(calls=48, steps=64, depth=8))
