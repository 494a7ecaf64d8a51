"""Time of an answer: load, prompt, tokens; who slows whom; and what a client that leaves costs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import pytest

from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.parameters import PROFILES
from tests.support.simulated_node import STEADY, chat, collect, pass_time, simulate

SECOND = 1_000_000_000


def test_durations_are_what_the_parameters_say() -> None:
    """1 GB at 1 GB/s, 400 characters at 1,000 tokens/s of 4, 10 tokens at 10 tokens/s: 1 s, 0.1 s, 1 s."""

    async def scenario(node: SimulatedOllama) -> dict[str, Any]:
        return (await collect(node.generate({"model": "small", "prompt": "x" * 400})))[-1]

    last = simulate(STEADY, scenario)
    assert last["load_duration"] == pytest.approx(SECOND)
    assert (last["prompt_eval_count"], last["prompt_eval_duration"]) == (100, pytest.approx(0.1 * SECOND))
    assert (last["eval_count"], last["eval_duration"]) == (10, pytest.approx(SECOND))
    assert last["total_duration"] == pytest.approx(2.1 * SECOND)


def test_a_shared_prefix_is_not_read_again() -> None:
    """The second prompt begins with the first: only the rest is computed, and the cached part is reported."""

    async def scenario(node: SimulatedOllama) -> dict[str, Any]:
        await collect(node.generate({"model": "small", "prompt": "x" * 4_000}))
        return (await collect(node.generate({"model": "small", "prompt": "x" * 4_000 + "y" * 400})))[-1]

    last = simulate(STEADY, scenario)
    assert (last["prompt_eval_count"], last["prompt_eval_cached_count"]) == (1_100, 1_000)
    assert last["prompt_eval_duration"] == pytest.approx(0.1 * SECOND)


@pytest.mark.parametrize(("sharing", "seconds"), [(0.0, 1.0), (1.0, 4.0), (0.5, 2.0)])
def test_parallel_sequences_share_the_throughput(sharing: float, seconds: float) -> None:
    """Four at once take as long as one (sharing 0), four times as long (1), or in between."""

    async def scenario(node: SimulatedOllama) -> float:
        await collect(node.chat({"model": "small"}))
        begin = asyncio.get_running_loop().time()
        await asyncio.gather(*(collect(node.chat(chat())) for _ in range(4)))
        return asyncio.get_running_loop().time() - begin

    assert simulate(STEADY.with_(num_parallel=4, decode_sharing=sharing), scenario) == pytest.approx(seconds, rel=0.05)


def test_a_long_prompt_slows_the_others() -> None:
    """While 1,000 tokens are read for one second, the other sequence writes at half its speed."""

    async def scenario(node: SimulatedOllama) -> float:
        await collect(node.chat({"model": "small"}))
        begin = asyncio.get_running_loop().time()
        reader = asyncio.create_task(collect(node.generate({"model": "small", "prompt": "x" * 4_000})))
        await collect(node.chat(chat()))
        end = asyncio.get_running_loop().time()
        await reader
        return end - begin

    assert simulate(STEADY.with_(num_parallel=2, prefill_interference=0.5), scenario) == pytest.approx(1.5, abs=0.11)


def test_an_off_loaded_model_is_slower_in_proportion() -> None:
    """Half of the weights in RAM that is five times slower: three times the time."""

    async def scenario(node: SimulatedOllama) -> int:
        return (await collect(node.chat(chat("large"))))[-1]["eval_duration"]

    alone = simulate(STEADY, scenario)
    assert simulate(STEADY.with_(vram_gb=4, offload_slowdown=5), scenario) == pytest.approx(3 * alone, rel=0.01)


def test_jitter_spreads_tokens_and_is_repeated_by_the_seed() -> None:
    """Intervals differ among themselves, and are the same ones for the same seed."""

    async def scenario(node: SimulatedOllama) -> list[float]:
        times = [asyncio.get_running_loop().time() async for _ in node.chat(chat())]
        return [round(after - before, 6) for before, after in pairwise(times[:-1])]

    jittery = STEADY.with_(jitter=0.5)
    one, again, other = simulate(jittery, scenario, 1), simulate(jittery, scenario, 1), simulate(jittery, scenario, 2)
    assert one == again != other
    assert len(set(one)) > 3
    assert all(0.05 <= interval <= 0.15 for interval in one)


def test_instant_takes_no_time() -> None:
    """The profile `instant`: load, prompt and 64 answers of 200 tokens in zero virtual seconds."""

    async def scenario(node: SimulatedOllama) -> float:
        request = {"model": "llama3.1:8b", "prompt": "x" * 10_000, "options": {"num_predict": 200}}
        await asyncio.gather(*(collect(node.generate(request)) for _ in range(64)))
        return asyncio.get_running_loop().time()

    assert simulate(PROFILES["instant"].with_(answer_tokens=[200, 200]), scenario) == 0


def test_an_overlong_prompt_is_cut_in_silence() -> None:
    """As measured on 0.34: status 200, and no more tokens than the context holds."""

    async def scenario(node: SimulatedOllama) -> int:
        return (await collect(node.generate({"model": "small", "prompt": "x" * 100_000})))[-1]["prompt_eval_count"]

    assert simulate(STEADY.with_(default_context=512), scenario) == 512


def test_a_client_that_leaves_is_noticed_at_the_next_token() -> None:
    """The slot is free one token later, and that token was computed for nobody. Closing the iterator is leaving, too."""

    async def scenario(node: SimulatedOllama) -> tuple[float, int, int]:
        await collect(node.chat({"model": "small"}))
        begin = asyncio.get_running_loop().time()
        leaver = asyncio.create_task(collect(node.chat(chat())))
        await pass_time(0.25)
        leaver.cancel()
        next_one = node.chat(chat(text="next"))
        assert isinstance(next_one, AsyncGenerator)
        await anext(next_one)
        first_token = asyncio.get_running_loop().time() - begin
        await next_one.aclose()
        await pass_time(0.2)
        return first_token, node.truth.tokens_for_nobody, node.truth.clients_gone

    first_token, wasted, gone = simulate(STEADY, scenario)
    assert first_token == pytest.approx(0.3 + 0.1, abs=0.01)
    assert (wasted, gone) == (2, 2)


def test_a_client_that_leaves_during_the_prompt_is_noticed_only_at_the_first_token() -> None:
    """Reading goes on to its end (10 s here) for nobody."""

    async def scenario(node: SimulatedOllama) -> tuple[float, int]:
        await collect(node.chat({"model": "small"}))
        begin = asyncio.get_running_loop().time()
        leaver = asyncio.create_task(collect(node.generate({"model": "small", "prompt": "x" * 40_000})))
        await pass_time(1)
        leaver.cancel()
        await collect(node.chat(chat(text="next", options={"num_predict": 1})))
        return asyncio.get_running_loop().time() - begin, node.truth.tokens_for_nobody

    end, wasted = simulate(STEADY.with_(default_context=20_000), scenario)
    assert end == pytest.approx(10.0 + 0.1 + 0.1, abs=0.02)
    assert wasted == 10_001


def test_a_client_that_leaves_while_waiting_for_a_slot_costs_nothing() -> None:
    """It never ran: no token for nobody, and the one behind it takes its turn."""

    async def scenario(node: SimulatedOllama) -> tuple[float, int]:
        await collect(node.chat({"model": "small"}))
        begin = asyncio.get_running_loop().time()
        running = asyncio.create_task(collect(node.chat(chat())))
        await pass_time(0.1)
        leaver = asyncio.create_task(collect(node.chat(chat(text="leaver"))))
        await pass_time(0.1)
        behind = asyncio.create_task(collect(node.chat(chat(text="behind"))))
        await pass_time(0.1)
        leaver.cancel()
        await asyncio.gather(running, behind)
        return asyncio.get_running_loop().time() - begin, node.truth.tokens_for_nobody

    assert simulate(STEADY, scenario) == (pytest.approx(2.0, abs=0.01), 0)
