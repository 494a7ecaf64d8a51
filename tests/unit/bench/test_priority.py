"""The priority bench's arithmetic: Jain's index, ids that tell class and tenant."""

from __future__ import annotations

import json
from random import Random

import pytest

from infra.lab.bench.arrivals import Traffic, jain, jobs, steady
from infra.lab.bench.runner import Unmeasured
from infra.lab.simulators.ollama.parameters import PROFILES
from shared.clock import SystemClock
from shared.contracts.base import PriorityClass
from shared.contracts.bounds import parse_job
from shared.topics import Topics


def test_jain_is_one_for_equals_and_one_nth_for_a_monopoly() -> None:
    """And of a load of 1:2:...:10 it is 0.786: what first come, first served gives."""
    assert jain([3.0] * 7) == pytest.approx(1.0)
    assert jain([0.0, 0.0, 5.0, 0.0]) == pytest.approx(0.25)
    assert jain([float(n) for n in range(1, 11)]) == pytest.approx(0.7857, abs=1e-4)


def test_jobs_are_jobs() -> None:
    """The values are valid; the ids are distinct and tell class and tenant."""
    made = jobs(3, PriorityClass.BATCH, "large")
    assert [parse_job(value).id for _, _, value in made] == [name for _, name, _ in made] == [f"batch:large:{n}" for n in range(3)]
    assert {parse_job(value).tenant for _, _, value in made} == {"large"}


def test_the_node_takes_a_slot_for_a_call() -> None:
    """The simulated node accepts its options: four sequences at once, five tokens in the time of a slot."""
    values = dict(option.split("=", 1) for option in steady(0.1, 4) if "=" in option)
    parameters = PROFILES["instant"].with_(**{name: json.loads(value) for name, value in values.items()})
    [model] = parameters.models
    assert parameters.num_parallel == 4
    assert 5 / (model.decode_tokens_per_second or 0) == pytest.approx(0.1)


def test_results_are_counted_once_by_class_and_tenant() -> None:
    """A result that is published again changes nothing; one that failed ends the bench."""
    traffic = Traffic(None, None, Topics(), SystemClock())  # type: ignore[arg-type]
    for name in ("batch:a:1", "batch:a:1", "batch:b:1"):
        traffic._take(name, b'{"status":"succeeded"}', Random(1).random())
    assert (traffic.ended("batch"), traffic.ended("batch:a"), traffic.ended("batch:b")) == (2, 1, 1)
    traffic._take("batch:ab:1", b'{"status":"succeeded"}', 7.0)
    assert (len(traffic.end_times("batch")), len(traffic.end_times("batch:a")), traffic.end_times("batch:ab:")) == (3, 1, [7.0])
    with pytest.raises(Unmeasured):
        traffic._take("batch:a:2", b'{"status":"failed"}', 0.0)
