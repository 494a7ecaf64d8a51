"""The simulation's own tools: a killed process runs nothing more, a paused one goes on where it was, and a busy loop is an error."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from tests.support.cluster.faults import FaultMix, all_options, as_text, drawn
from tests.support.cluster.processes import Process, run


def test_a_killed_process_runs_no_finally_until_it_is_buried() -> None:
    """As after SIGKILL: what it would still do is not done, and its timers do not fire."""

    async def main() -> None:
        done: list[str] = []
        process = Process("p")

        async def work() -> None:
            try:
                asyncio.get_running_loop().call_later(2.0, done.append, "timer")
                await asyncio.sleep(1.0)
            finally:
                done.append("finally")

        task = process.spawn(work())
        await asyncio.sleep(0.5)
        process.kill()
        await asyncio.sleep(10.0)
        assert not done
        assert not task.done()
        await process.bury()
        assert task.cancelled()
        assert sorted(done) == ["finally", "timer"]

    run(main())


def test_a_kill_falls_between_any_two_steps() -> None:
    """Whatever number of steps is drawn, the process has done exactly so many."""

    async def main() -> None:
        for steps in range(6):
            counted: list[int] = []
            process = Process("p")

            async def work(counted: list[int] = counted) -> None:
                for number in range(10):
                    counted.append(number)
                    await asyncio.sleep(0)

            process.trap(steps, process.kill)
            process.spawn(work())
            await asyncio.sleep(1.0)
            assert len(counted) == steps
            await process.bury()

    run(main())


def test_a_paused_process_wakes_into_another_time() -> None:
    """Nothing of it runs meanwhile, not even what others wake; afterwards everything does, in its old order."""

    async def main() -> None:
        seen: list[tuple[str, float]] = []
        loop, news = asyncio.get_running_loop(), asyncio.Event()
        process = Process("p")

        async def listen() -> None:
            async with asyncio.timeout(60.0):
                await news.wait()
            seen.append(("news", loop.time()))

        async def tick() -> None:
            await asyncio.sleep(2.0)
            seen.append(("tick", loop.time()))

        process.spawn(listen())
        process.spawn(tick())
        await asyncio.sleep(1.0)
        process.pause()
        news.set()
        await asyncio.sleep(9.0)
        assert not seen
        process.wake()
        await asyncio.sleep(1.0)
        assert [name for name, _ in seen] == ["news", "tick"]
        assert all(at == pytest.approx(10.0, abs=0.01) for _, at in seen)

    run(main())


def test_a_busy_loop_is_an_error() -> None:
    """Time that does not pass would hang a virtual run for ever: it fails and says who it was."""

    async def spin() -> None:
        while True:  # noqa: ASYNC110 - a busy loop is what is tested
            await asyncio.sleep(0)

    async def main() -> None:
        process = Process("spinner")
        process.spawn(spin())
        await asyncio.sleep(1.0)

    with pytest.raises(RuntimeError, match=r"a busy loop.*spinner"):
        run(main())


def test_a_mix_is_drawn_from_its_seed() -> None:
    """The same seed gives the same mix; every fault is drawn by some seed; a mix prints what differs from no faults."""
    assert drawn(Random(3)) == drawn(Random(3))
    seen = {name for seed in range(40) for name in drawn(Random(seed)).changed()}
    fixed = {"seconds", "down_seconds", "pause_seconds", "away_seconds", "jobs", "attempts", "only"}
    fixed |= {"workers", "arrive_seconds", "day_seconds", "no_node_seconds", "owner"}  # of scenes that ask for them
    assert seen == all_options().keys() - fixed
    assert as_text(FaultMix(kill=0.5)) == "kill=0.5"
    assert as_text(FaultMix()) == "no faults"
