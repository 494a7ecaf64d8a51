"""The simulator's scheduler obeys Ollama's rules (notes on the node: scheduler, reloads). All times are virtual seconds."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from infra.lab.simulators.ollama.core import SimulatedOllama
from infra.lab.simulators.ollama.errors import OllamaError
from tests.support.simulated_node import STEADY, chat, collect, pass_time, simulate


def now() -> float:
    return asyncio.get_running_loop().time()


async def finished_at(node: SimulatedOllama, request: dict[str, Any]) -> float:
    await collect(node.chat(request))
    return now()


async def settle() -> None:
    """Let every task run that can run now."""
    for _ in range(20):
        await pass_time(0)


def loaded(node: SimulatedOllama) -> list[str]:
    return sorted(model["name"].removesuffix(":latest") for model in node.ps()["models"])


def test_a_loaded_model_is_used_at_once_and_its_slots_are_taken_in_order_of_arrival() -> None:
    """Rule 1: with two slots, requests of one second each start in pairs, first come first served."""

    async def scenario(node: SimulatedOllama) -> list[float]:
        await collect(node.chat({"model": "small"}))
        begin = now()
        return [end - begin for end in await asyncio.gather(*(finished_at(node, chat(text="x" * n)) for n in range(1, 6)))]

    ends = simulate(STEADY.with_(num_parallel=2), scenario)
    assert ends == pytest.approx([1.0, 1.0, 2.0, 2.0, 3.0], abs=0.02)


def test_the_queue_limit_does_not_protect_a_loaded_model() -> None:
    """Rule 1: far more requests than `max_queue` wait for a loaded model and all are answered."""

    async def scenario(node: SimulatedOllama) -> int:
        await collect(node.chat({"model": "small"}))
        answers = await asyncio.gather(*(collect(node.chat(chat())) for _ in range(50)))
        return sum(answer[-1]["done"] for answer in answers)

    assert simulate(STEADY.with_(max_queue=1), scenario) == 50


def test_only_loads_are_queued_and_a_full_queue_is_503() -> None:
    """Rule 2: one load is served, `max_queue` wait, the next is refused with Ollama's words; a loaded model is not affected."""

    async def scenario(node: SimulatedOllama) -> tuple[int, str, int]:
        await collect(node.chat({"model": "small"}))
        waiting = [asyncio.create_task(collect(node.chat(chat(name)))) for name in ("other", "third")]
        await settle()
        with pytest.raises(OllamaError) as refused:
            await collect(node.chat(chat("large")))
        answer = await collect(node.chat(chat("small")))
        await asyncio.gather(*waiting)
        return refused.value.status, refused.value.message, len(answer)

    status, message, chunks = simulate(STEADY.with_(max_queue=1), scenario)
    assert (status, chunks) == (503, 11)
    assert "maximum pending requests exceeded" in message


def test_loads_are_one_at_a_time() -> None:
    """Rule 3: two models of one gigabyte are ready after one and two seconds, although both would fit."""

    async def scenario(node: SimulatedOllama) -> list[float]:
        return await asyncio.gather(*(finished_at(node, {"model": name}) for name in ("small", "other")))

    assert simulate(STEADY, scenario) == pytest.approx([1.0, 2.0])


def test_a_load_that_waits_for_an_eviction_holds_up_all_other_loads() -> None:
    """Rule 3: `large` waits for the busy `small`; `other`, which would fit at once, waits behind it."""

    async def scenario(node: SimulatedOllama) -> dict[str, float]:
        await collect(node.chat({"model": "small"}))
        begin = now()
        busy = asyncio.create_task(finished_at(node, chat("small", options={"num_predict": 10}, keep_alive=1_000)))
        await settle()
        large = asyncio.create_task(finished_at(node, {"model": "large"}))
        await settle()
        other = asyncio.create_task(finished_at(node, {"model": "other"}))
        return {"small": await busy - begin, "large": await large - begin, "other": await other - begin}

    ends = simulate(STEADY.with_(vram_gb=8.5), scenario)
    assert ends["small"] == pytest.approx(1.0, abs=0.01)
    assert ends["large"] == pytest.approx(9.0, abs=0.01)
    assert ends["other"] == pytest.approx(10.0, abs=0.01)


def test_the_victim_is_the_idle_runner_with_the_shortest_keep_alive() -> None:
    """Rule 4, first part: `other` (60 s) goes, `small` (120 s) stays."""

    async def scenario(node: SimulatedOllama) -> list[str]:
        await collect(node.chat({"model": "small", "keep_alive": 120}))
        await collect(node.chat({"model": "other", "keep_alive": 60}))
        await collect(node.chat({"model": "third"}))
        return loaded(node)

    assert simulate(STEADY.with_(max_loaded_models=2), scenario) == ["small", "third"]


def test_an_idle_runner_goes_before_a_busy_one_with_a_shorter_keep_alive() -> None:
    """Rule 4: idleness counts before the keep-alive."""

    async def scenario(node: SimulatedOllama) -> list[str]:
        await collect(node.chat({"model": "small", "keep_alive": 120}))
        await collect(node.chat({"model": "other", "keep_alive": 60}))
        busy = asyncio.create_task(collect(node.chat(chat("other"))))
        await settle()
        await collect(node.chat({"model": "third"}))
        remaining = loaded(node)
        await busy
        return remaining

    assert simulate(STEADY.with_(max_loaded_models=2), scenario) == ["other", "third"]


def test_a_busy_victim_is_unloaded_after_its_requests_and_still_serves_new_ones() -> None:
    """Rule 4, second part, and its hazard: requests that arrive for the victim prolong the wait of the load."""

    async def scenario(node: SimulatedOllama) -> tuple[float, float]:
        await collect(node.chat({"model": "small"}))
        begin = now()
        first = asyncio.create_task(finished_at(node, chat("small")))
        await settle()
        load = asyncio.create_task(finished_at(node, {"model": "other"}))
        await pass_time(0.5)
        second = await finished_at(node, chat("small"))
        await first
        return second - begin, await load - begin

    second, load = simulate(STEADY.with_(max_loaded_models=1), scenario)
    assert second == pytest.approx(2.0, abs=0.01)
    assert load == pytest.approx(3.0, abs=0.01)


def test_an_idle_model_is_unloaded_after_its_keep_alive_counted_from_the_last_request() -> None:
    """Keep-alive: each request starts it anew; a shorter one of a later request shortens it."""

    async def scenario(node: SimulatedOllama) -> list[list[str]]:
        seen = []
        await collect(node.chat({"model": "small", "keep_alive": "1m"}))
        await pass_time(50)
        await collect(node.chat({"model": "small"}))
        await pass_time(50)
        seen.append(loaded(node))
        await pass_time(11)
        seen.append(loaded(node))
        await collect(node.chat({"model": "small", "keep_alive": "1h"}))
        await collect(node.chat({"model": "small", "keep_alive": 5}))
        await pass_time(6)
        seen.append(loaded(node))
        return seen

    assert simulate(STEADY, scenario) == [["small"], [], []]


def test_keep_alive_zero_unloads_and_negative_keeps_for_ever() -> None:
    """`keep_alive: 0` with input unloads after the answer, without input at once; -1 outlives a year."""

    async def scenario(node: SimulatedOllama) -> list[Any]:
        seen: list[Any] = []
        await collect(node.chat(chat("small", keep_alive=0)))
        seen.append(loaded(node))
        await collect(node.chat({"model": "small", "keep_alive": -1}))
        await pass_time(31_536_000)
        seen.append(loaded(node))
        unload = await collect(node.chat({"model": "small", "keep_alive": 0}))
        seen += [unload[-1]["done_reason"], loaded(node)]
        return seen

    assert simulate(STEADY, scenario) == [[], ["small"], "unload", []]


@pytest.mark.parametrize(
    ("options", "loads"),
    [({}, 1), ({"num_ctx": 4096, "num_batch": 512}, 1), ({"temperature": 0.1}, 1), ({"num_ctx": 8192}, 2), ({"use_mmap": False}, 2)],
)
def test_another_load_time_option_reloads_the_one_copy(options: dict[str, Any], loads: int) -> None:
    """Rule 5: effective values count, so an automatic value equals the same value said aloud; predict-time options never reload."""

    async def scenario(node: SimulatedOllama) -> tuple[int, int, int]:
        await collect(node.chat(chat()))
        await collect(node.chat(chat(options=options)))
        return node.truth.loads, node.truth.evictions, len(node.ps()["models"])

    assert simulate(STEADY, scenario) == (loads, loads - 1, 1)


def test_a_request_for_a_model_that_is_loading_waits_past_the_queue() -> None:
    """Many requests for one model cause one load and need no place in the queue."""

    async def scenario(node: SimulatedOllama) -> tuple[int, int]:
        first = asyncio.create_task(collect(node.chat(chat())))
        await pass_time(0.5)
        rest = await asyncio.gather(*(collect(node.chat(chat())) for _ in range(9)))
        await first
        return node.truth.loads, len(rest)

    assert simulate(STEADY.with_(max_queue=1, num_parallel=16), scenario) == (1, 9)


def test_a_client_that_leaves_while_waiting_for_a_load_frees_its_place_at_once() -> None:
    """Of a full queue one leaves, the next newcomer is taken."""

    async def scenario(node: SimulatedOllama) -> tuple[float, int]:
        first = asyncio.create_task(collect(node.chat({"model": "small"})))
        await settle()
        leaver = asyncio.create_task(collect(node.chat(chat("other"))))
        await settle()
        leaver.cancel()
        await settle()
        end = await finished_at(node, {"model": "third"})
        await first
        return end, node.truth.loads

    assert simulate(STEADY.with_(max_queue=1), scenario) == (pytest.approx(2.0), 2)


def test_a_model_that_can_never_fit_is_refused() -> None:
    """Weights, context and parallel sequences count; the error is a 500 in Ollama's words."""

    async def scenario(node: SimulatedOllama) -> OllamaError:
        with pytest.raises(OllamaError) as refused:
            await collect(node.chat(chat("large")))
        return refused.value

    error = simulate(STEADY.with_(vram_gb=2, ram_gb=4), scenario)
    assert error.status == 500
    assert "requires more system memory" in error.message


def test_a_load_that_stalls_past_the_timeout_fails_and_the_next_load_goes_on() -> None:
    """LOAD_TIMEOUT: the error comes at the limit and does not block the loader."""

    async def scenario(node: SimulatedOllama) -> tuple[int, float, int]:
        with pytest.raises(OllamaError) as refused:
            await collect(node.chat(chat("large")))
        failed_at = now()
        await collect(node.chat({"model": "small"}))
        return refused.value.status, failed_at, len(node.ps()["models"])

    assert simulate(STEADY.with_(load_timeout_seconds=5), scenario) == (500, pytest.approx(5.0), 1)
