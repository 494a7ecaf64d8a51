"""Ended jobs whose records lie behind the committed position: what they cost, and that they are known."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

from services.planner.deciding.delayed import must_wait
from services.planner.state.watermark import watermark
from shared.contracts.outcome import CancelRequested
from tests.unit.planner.desk import TOPIC, Desk, claimed, job_input, succeeded
from tests.unit.planner.records import Written

JOBS = 300
BYTES_A_JOB = 600
"""Measured: 271; before, whatever was said was kept: 7,155 bytes with the shortest texts, 67,100 with 30 kB each way."""


def end(desk: Desk, offset: int, text: str = "", **job: Any) -> None:
    """A job that has ended, its result acknowledged."""
    desk.submit(source=offset, **({"prompt": f"{offset} {text}"} | job))
    job_, step = desk.job, desk.step
    desk.say(claimed(job_, step), succeeded(job_, step, text))
    assert job_.settled is not None
    desk.book.published(job_.settled)


def test_an_ended_job_costs_the_same_whatever_was_said() -> None:
    """Up to a thousand of a class and partition are kept while tenants take turns: their texts are not."""
    desk = Desk()
    end(desk, 0)
    desk.history.clear()
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(JOBS):
            end(desk, 1 + number, "x" * 4_000)
            desk.history.clear()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(desk.book.out) == JOBS + 1
    assert grown / JOBS < BYTES_A_JOB


def test_it_holds_the_watermark_until_its_record_is_passed() -> None:
    """A successor reads the record again, and finds the job in history."""
    desk = Desk()
    end(desk, 7)
    first = desk.book.out["j_7"].first_offset
    assert watermark(desk.book, {TOPIC: 7}, 90) == (first, [])
    assert watermark(desk.book, {TOPIC: 8}, 90) == (90, ["j_7"])


def test_its_record_read_again_is_nothing_new() -> None:
    """After a rebalance; nor is a cancel that comes late, nor is it sent to wait once more."""
    desk = Desk()
    end(desk, 7)
    assert desk.submit(source=7, prompt="7 ").empty
    assert desk.say(CancelRequested(job="j_7")).empty
    assert list(desk.book.cancels) == []
    given = job_input({"prompt": "7 ", "not_before": desk.wall + 60.0}, 7)
    assert not must_wait(desk.book, given, Written(offset=7), desk.wall)


def test_it_knows_where_its_end_lies() -> None:
    """Also after a take-over: who sends its id again is told the result that is read there."""
    desk = Desk()
    end(desk, 7)
    at = desk.book.out["j_7"].settled_offset
    assert b'"job_settled"' in desk.history[at][1]
    desk.take_over()
    assert desk.book.jobs["j_7"].settled is not None
    desk.book.published(desk.book.jobs["j_7"].settled)
    assert desk.book.out["j_7"].settled_offset == at
