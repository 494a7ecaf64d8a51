"""auto: single unless the prompt says otherwise, and never more than time and budget allow."""

from __future__ import annotations

from typing import Any

import pytest

from shared.contracts.blob import BlobRef
from shared.contracts.chat import ChatMessage
from shared.contracts.job import HeldJob, InputRef, Job
from shared.contracts.limits import Limits
from shared.patterns import BUILT_IN
from shared.patterns.auto import _LEAST_CALLS, _RULES, AUTO, PATTERNS, AutoInput, pick
from tests.support.scripted import Reply, crashes_alike, play, team

TEAM = team(*AutoInput().agents)
PROMPTS = {
    "What is the capital of France?": "single",
    "hello": "single",
    "Tell me about the number 7.": "single",
    "A baker sells 12 rolls at 0.40 each and 3 cakes at 15. How much does he take?": "vote",
    "For each of the following reviews say whether it is friendly:\nGood.\nBad.\nFine.": "map",
    "Compare the three largest rivers of Europe.": "decompose",
    "Who was Ada? When did she live? What did she write?": "decompose",
    "Should we move our database to another vendor?": "debate",
    "Write a letter to our landlord about the heating.": "critic",
}


def picked(prompt: str = "Should we move?", *, limits: Limits | None = None, seconds: float = 3_600.0, ask: Any = None, **job: Any) -> str:
    return pick(
        Job(**({} if {"messages", "texts"} & job.keys() else {"prompt": prompt}), **job), ask or AutoInput(), limits or Limits(), seconds
    )[0]


@pytest.mark.parametrize(("prompt", "name"), PROMPTS.items())
def test_what_a_prompt_looks_like_decides(prompt: str, name: str) -> None:
    assert picked(prompt) == name


def test_every_pattern_that_may_be_picked_has_a_rule_a_prompt_and_a_floor() -> None:
    assert (
        set(PATTERNS)
        == {name for name, _, _ in _RULES}
        == set(PROMPTS.values()) - {"single"}
        == set(_LEAST_CALLS)
        == set(AutoInput().among)
    )
    assert all(BUILT_IN.current[name] is pattern and pattern.takes_bare_prompt for name, pattern in PATTERNS.items())


@pytest.mark.parametrize(
    "job",
    [
        {"tools": [{"type": "function", "function": {"name": "f"}}]},
        {"format": "json"},
        {"operation": "generate"},
        {"texts": ["Should we move?"]},
        {"messages": [ChatMessage(role="user", content="Should we move?", images=("aGk=",))]},
    ],
)
def test_what_only_a_single_call_can_do_is_single(job: dict[str, Any]) -> None:
    assert picked(**job) == "single"


def test_an_input_by_reference_is_handed_on() -> None:
    blob = BlobRef(digest="0" * 32, partition=0, first=0, last=0, chunks=1, size=1, written_at=1.0)
    job = HeldJob(operation="chat", input_ref=InputRef(blob=blob, characters=9, longest=9, fewest_tokens=1))
    assert pick(job, AutoInput(), Limits(), 3_600.0)[0] == "single"


def test_little_time_a_low_limit_or_a_shorter_list_is_single() -> None:
    assert picked() == "debate"
    assert picked(seconds=59.0) == "single"
    assert picked(limits=Limits(calls=6)) == "single"
    assert picked(ask=AutoInput(among=("map",))) == "single"


@pytest.mark.parametrize("prompt", PROMPTS)
def test_it_is_the_picked_pattern_and_says_so(prompt: str) -> None:
    job = Job(prompt=prompt, pattern="auto")
    played = play(AUTO, job, lambda _: Reply("no decision"), team=TEAM, limits=AUTO.limits, most_asks=48)
    assert played.answer is not None
    assert (played.answer.explanation or {"pattern": "single"})["pattern"] == PROMPTS[prompt]
    crashes_alike(AUTO, job, played, team=TEAM, limits=AUTO.limits)
