"""What a worker sees of its node's trouble, and says of it."""

from __future__ import annotations

from typing import Any

import pytest

from services.worker import seen as counters
from services.worker.backends.base import Completion
from services.worker.seen import WINDOW_SECONDS, Load, NoRoom, Seen, Width, crowded, narrow, swaps
from shared.contracts.chat import Answer, Options
from shared.contracts.node import NodeModel
from shared.contracts.usage import Timings, Usage
from tests.unit.worker.world import step

MODEL = NodeModel(name="m:8b", context_length=131_072, window=4_096)


def ended(*, prompt: int = 5, output: int = 100, decode_ms: float = 1_000.0, load_ms: float = 0.0) -> Completion:
    return Completion(
        Answer(text="x"), Usage(calls=1, prompt_tokens=prompt, completion_tokens=output), Timings(decode_ms=decode_ms, load_ms=load_ms)
    )


def loads(count: int, *models: str) -> list[Load]:
    return [Load(float(n), models[n % len(models)], 4.0) for n in range(count)]


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ([], None),
        (loads(9, "a", "b"), None),
        (loads(10, "a", "b"), "10 loads of 2 models in an hour took 40 s; they throw each other out"),
        (loads(12, "a", "b", "c", "d", "e", "f"), None),  # each was loaded twice: many models, no thrash
        (loads(12, "a"), "keep-alive"),
    ],
)
def test_many_loads_of_few_models_are_thrash(found: list[Load], words: str | None) -> None:
    """Ten an hour, three for each model."""
    told = swaps(found)
    assert (told is None) == (words is None)
    assert words is None or words in told.text


@pytest.mark.parametrize(
    ("model", "wanted", "words"),
    [
        (
            MODEL,
            NoRoom(0.0, 3, 9_000),
            "4096 tokens here; 3 calls wanted up to 9000: set num_ctx in TUTTI_WORKER__PROFILES, at most 131072",
        ),
        (MODEL, NoRoom(0.0, 2, 9_000), None),
        (MODEL, NoRoom(0.0, 3, 4_000), None),  # it was loaded with more since
        (MODEL.changed(window=None), NoRoom(0.0, 3, 9_000), None),
        (MODEL.changed(window=131_072), NoRoom(0.0, 3, 200_000), "take another model"),
    ],
)
def test_a_window_that_calls_do_not_fit_into(model: NodeModel, wanted: NoRoom, words: str | None) -> None:
    """What to do depends on whether the model itself has room."""
    told = narrow(model, wanted)
    assert (told is None) == (words is None)
    assert words is None or words in told.text


def test_slots_that_slow_all() -> None:
    """Eight at once write less together than two do; where they write more, or too few were measured, nothing is said."""
    two, eight = Width(20, 100.0, 2.0), Width(20, 60.0, 8.0)
    told = crowded("m", {2: two, 4: eight})
    assert told is not None
    assert told.text.startswith("m writes 60 tokens/s with about 8 calls at once, and 100 with 2: set TUTTI_WORKER__SLOTS")
    assert crowded("m", {2: two, 4: Width(20, 95.0, 8.0)}) is None
    assert crowded("m", {2: two, 4: Width(3, 60.0, 8.0)}) is None
    assert crowded("m", {2: Width(20, 60.0, 2.0), 4: Width(20, 100.0, 8.0)}) is None
    assert crowded("m", {2: two}) is None


def test_calls_become_advice_and_are_forgotten() -> None:
    """An hour later the same node has nothing to complain of but its slots, which are as they were."""
    seen = Seen()
    for n in range(20):
        name = "m:8b" if n % 2 else "other"
        long = step(1, options=Options(max_tokens=5_000))
        seen.answered(long, MODEL if n % 2 else None, name, ended(prompt=100, load_ms=3_000.0), running=1, now=float(n))
    for _ in range(10):
        seen.answered(step(1), MODEL, "m:8b", ended(decode_ms=20_000.0), running=4, now=20.0)
    other = NodeModel(name="other")
    assert [one.code for one in seen.advice([MODEL, other], 30.0)] == ["swaps", "window", "slots"]
    assert [one.code for one in seen.advice([other], 30.0)] == ["swaps"]  # what is gone is not complained of
    assert [one.code for one in seen.advice([MODEL, other], 30.0 + WINDOW_SECONDS)] == ["slots"]


def test_counters_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many names, loads and widths come."""
    monkeypatch.setattr(counters, "MOST_MODELS", 4)
    seen = Seen()
    names: dict[str, Any] = {f"m{n}": NodeModel(name=f"m{n}", window=10) for n in range(1_000)}
    for n, (name, model) in enumerate(names.items()):
        seen.answered(step(1), model, name, ended(prompt=100, load_ms=1e6), running=1 + n, now=float(n))
    assert len(seen._wanted) == len(seen._widths) == 4
    assert len(seen._loads) <= 512
    assert sum(map(len, seen._widths.values())) <= 4 * 14
    for one in seen.advice(names.values(), 1_000.0):
        assert len(one.text) <= 320
