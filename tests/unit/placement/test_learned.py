"""What is learned of speeds and of answers' lengths comes near what is so, follows what changes, and is bounded."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.worker.backends.base import Completion
from services.worker.round_trip import RoundTrip
from services.worker.slots import Slots
from services.worker.speeds import Speeds
from shared.contracts.blob import BlobRef
from shared.contracts.chat import Answer, ChatMessage, Operation
from shared.contracts.job import InputRef
from shared.contracts.node import NodeModel
from shared.contracts.step import Length, StepRequest
from shared.contracts.usage import Timings, Usage
from shared.scheduling import lengths
from shared.scheduling.lengths import AnswerLengths, PromptLengths
from shared.scheduling.trend import Trend


@pytest.mark.parametrize("seed", range(5))
def test_a_line_is_found_in_noise(seed: int) -> None:
    """Within a tenth, from fifty observations that are up to a tenth off."""
    random, line = Random(seed), Trend(proportional=True)
    for _ in range(200):
        tokens = random.uniform(50, 2_000)
        line.observe(tokens, (0.05 + tokens / 500) * random.uniform(0.9, 1.1))
    for tokens in (100, 1_000, 2_000):
        assert line.at(tokens) == pytest.approx(0.05 + tokens / 500, rel=0.1, abs=0.05)


def test_a_slower_machine_is_followed_within_some_calls() -> None:
    """What was true an hour ago is not held against it."""
    line = Trend(proportional=False)
    for _ in range(100):
        line.observe(0.0, 0.01)
    for _ in range(15):
        line.observe(0.0, 0.05)
    assert line.at(0.0) == pytest.approx(0.05, rel=0.15)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=40), st.booleans())
def test_no_observation_makes_a_line_odd(seen: list[tuple[float, float]], proportional: bool) -> None:
    """Neither part is ever negative, nor what follows from them."""
    line = Trend(proportional=proportional)
    for counted, seconds in seen:
        line.observe(counted, seconds)
    assert line.fixed >= 0
    assert line.each >= 0
    assert line.at(1e9) >= 0


def completion(prompt: int, output: int, read: float, written: float) -> Completion:
    used = Usage(calls=1, prompt_tokens=prompt, completion_tokens=output)
    return Completion(Answer(), used, Timings(prefill_ms=read * 1e3, decode_ms=written * 1e3), prompt)


def test_how_calls_slow_one_another_is_learned() -> None:
    """Alone 100 tokens a second; each further call makes a token take half as long again."""
    speeds, random = Speeds(), Random(1)
    for _ in range(300):
        running = random.randint(1, 4)
        token = 0.01 * (1 + 0.5 * (running - 1))
        speeds.observe("m", completion(100, 50, 0.1, 50 * token), running)
    model = speeds.attach(NodeModel(name="m"))
    assert model.decode_tokens_per_second == pytest.approx(100, rel=0.15)
    assert model.decode_slowdown == pytest.approx(0.5, rel=0.2)
    assert speeds.seconds("m", 100, 50, 3) == pytest.approx(0.1 + 50 * 0.02, rel=0.15)
    assert speeds.seconds("never seen", 100, 50, 3) is None


def test_slots_say_how_many_ran_on_average() -> None:
    """By the difference of two looks."""
    slots = Slots(4, prefetch_limit=0, round_trip=RoundTrip(0.1))
    slots.take(0.0)
    before = slots.busy_seconds(1.0)
    slots.take(2.0)
    slots.take(2.0)
    slots.give_back(3.0)
    assert (slots.busy_seconds(5.0) - before) / 4.0 == pytest.approx((1 * 1 + 3 * 1 + 2 * 2) / 4.0)


def test_lengths_are_told_by_tenant_then_by_agent() -> None:
    """A quantile within half an octave; who was never seen is taken for others of that agent; too few say nothing."""
    seen = AnswerLengths()
    assert seen.likely("a", "chat", "m") is None
    for _ in range(20):
        seen.learn("a", "chat", "m", 100)
        seen.learn("b", "chat", "m", 1_000)
    assert 75 <= (seen.likely("a", "chat", "m") or 0) <= 145
    assert 700 <= (seen.likely("b", "chat", "m") or 0) <= 1_450
    assert 75 <= (seen.likely("c", "chat", "m", 0.25) or 0) <= 145
    assert seen.likely("a", "code", "m") is None


def test_new_lengths_take_the_place_of_old_ones() -> None:
    """An agent whose prompt was changed."""
    seen = AnswerLengths()
    for _ in range(200):
        seen.learn("a", "chat", "m", 30)
    for _ in range(60):
        seen.learn("a", "chat", "m", 900)
    assert (seen.likely("a", "chat", "m") or 0) > 600


def test_lengths_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that callers choose fill no memory."""
    monkeypatch.setattr(lengths, "MOST_KEYS", 10)
    seen = AnswerLengths()
    for number in range(100):
        for _ in range(5):
            seen.learn(f"t{number}", "chat", "m", 10)
    assert seen.likely("t0", "chat", "m") is not None  # as the agent's others
    assert len(seen._seen) <= 10
    seen.learn("t", "chat", "m", 10**9)
    assert seen.likely("t99", "chat", "m") is not None


def test_what_a_tokenizer_makes_of_prompts_is_learned_from_calls() -> None:
    """Five letters of English a token, three tokens two signs of Chinese, eight of the template; where nothing was seen, by bytes."""
    prompts, random = PromptLengths(), Random(1)

    def english(characters: int) -> Length:
        return Length(characters, characters, True)

    def chinese(characters: int) -> Length:
        return Length(characters, 3 * characters, True)

    assert (prompts.likely("m", english(400)), prompts.likely("m", chinese(400))) == (101, 301)
    for _ in range(100):
        characters = random.randrange(40, 4_000)
        prompts.learn("m", english(characters), 8 + characters // 5)
        prompts.learn("m", chinese(characters), 8 + characters * 3 // 2)
    for characters in (100, 1_000, 3_000):
        assert prompts.likely("m", english(characters)) == pytest.approx(8 + characters / 5, rel=0.05, abs=4)
        assert prompts.likely("m", chinese(characters)) == pytest.approx(8 + characters * 1.5, rel=0.05, abs=4)
    assert prompts.likely("other", english(400)) == 101


def test_what_is_learned_of_prompts_is_bounded() -> None:
    """By a usual estimate, whatever an endpoint reports, and a tenant asks, since all go by it; and in models."""
    prompts = PromptLengths()
    for number in range(lengths.MOST_MODELS + 10):
        for _ in range(4):
            prompts.learn(f"m{number}", Length(400, 400, True), 1 if number % 2 else 10**9)
    assert prompts.likely("m1", Length(400, 400, True)) == 101, "it is forgotten"
    assert prompts.likely("m501", Length(400, 400, True)) == 50
    assert prompts.likely("m500", Length(400, 400, True)) == 2 * 101 + 200


def test_a_steps_length_is_that_of_all_its_words() -> None:
    """Of pictures and tools a model reads more than is counted: nothing is learned from them."""
    messages = (ChatMessage(role="user", content="grüß"), ChatMessage(role="assistant", content="x"))
    assert StepRequest(messages=messages).length() == (5, 7, True)
    assert StepRequest(prompt="ab", texts=("c", "d")).length() == (4, 4, True)
    assert StepRequest(messages=(ChatMessage(role="user", content="a", images=("aGk=",)),)).length() == (1, 1, False)
    assert StepRequest(prompt="a", tools=({"type": "function"},)).length().bare is False
    blob = BlobRef(digest="0" * 32, partition=0, first=0, last=0, chunks=1, size=9, written_at=0)
    ref = InputRef(blob=blob, characters=9, longest=9, fewest_tokens=1)
    assert StepRequest(input_ref=ref).length() == (9, 9, True)
    assert StepRequest(input_ref=ref, operation=Operation.EMBED).length().bare is False, "of the others only the signs are known"
