"""What a worker tells of the models in memory: at once what its own calls do to them, from the endpoint all else."""

from __future__ import annotations

import asyncio

from services.worker.backends.in_process import InProcessBackend
from services.worker.registration import Registration
from services.worker.settings import WorkerSettings
from services.worker.speeds import Speeds
from services.worker.warming import WarmModels
from services.worker.wiring import WorkerContext
from shared.clock import ManualClock
from shared.contracts.node import HOURS, NodeModel
from shared.topics import Topics


class Endpoint(InProcessBackend):
    """Models, of which these are in memory."""

    def __init__(self) -> None:
        super().__init__(tuple("abcdefgh"))
        self.loaded = {"a"}

    async def models(self) -> tuple[NodeModel, ...]:
        return tuple(NodeModel(name=name, resident=name in self.loaded) for name in "abcdefgh")


def registered(most: int | None) -> tuple[Endpoint, Registration]:
    endpoint = Endpoint()
    here = WorkerContext(WorkerSettings(most_models=most), Topics(), ManualClock(), "n", "b", ["chat"])
    found = Registration(here, endpoint, Speeds())
    asyncio.run(found.refresh())
    return endpoint, found


def test_a_model_counts_as_there_from_its_call_on() -> None:
    """Who is loading is not loaded elsewhere too; a probe meanwhile does not say otherwise."""
    _, found = registered(None)
    found.uses("b")
    assert found.resident == ("a", "b")
    asyncio.run(found.refresh())
    assert list(found.resident) == ["a", "b"]


def test_what_must_leave_is_what_was_asked_longest_ago() -> None:
    """Where the endpoint's bound is known; so nobody is sent to a model that was put out."""
    _, found = registered(2)
    for model in ("a", "b", "a", "c"):
        found.uses(model)
    assert found.resident == ("a", "c")
    assert registered(1)[1].resident == ("a",)


def test_the_endpoint_has_the_last_word() -> None:
    """Once the call has begun to be answered, or has failed."""
    endpoint, found = registered(None)
    found.uses("b")
    found.answers("b")
    asyncio.run(found.refresh())
    assert found.resident == ("a",)
    endpoint.loaded = {"c"}
    asyncio.run(found.refresh())
    assert found.resident == ("c",)


def test_no_load_puts_out_what_runs() -> None:
    """One may begin that is there, that runs, or that has a place beside what runs, whatever else is in memory."""
    _, one = registered(1)
    assert one.holds("b", lambda: {"b"})
    assert one.holds("b", set)
    assert not one.holds("b", lambda: {"c"})
    assert registered(2)[1].holds("b", lambda: {"c"})


def test_what_nobody_counts_leaves_memory_for_nothing() -> None:
    """An endpoint that neither manages models nor is told how many it holds: more than are usual stay."""
    endpoint, found = registered(None)
    endpoint.loaded = set("abcdefg")
    asyncio.run(found.refresh())
    found.uses("h")
    assert found.resident == tuple("abcdefgh")


def test_who_runs_is_asked_only_where_it_decides() -> None:
    """Hundreds may run, and it is asked of each call that begins."""

    def runs() -> set[str]:
        raise AssertionError

    assert registered(1)[1].holds("a", runs)  # it is there
    assert registered(None)[1].holds("b", runs)  # nobody has said how many there are


def test_names_that_the_node_does_not_have_are_not_kept() -> None:
    """Callers choose them."""
    _, found = registered(1)
    for number in range(10):
        found.uses(f"made-up-{number}")
    assert found.resident == ("a",)
    assert not found._used


def test_the_hour_of_the_day_is_learned() -> None:
    """What is asked for at nine is told for nine the next days; what was not for weeks is forgotten, and so is a model that has gone."""
    day, nine = 86_400, 9 * 3_600
    seen = WarmModels()
    for when in (0, day):
        for minute in range(20):
            seen.asked("a", when + nine + 60 * minute)
    assert seen.told(["a"], 2 * day)["a"][9] == 15  # half of the last day, and a quarter of the one before
    assert seen.used("a", day + nine + 1_500)
    assert not seen.used("a", day + nine + 7_200)
    other = WarmModels()
    other.adopt([seen.told(["a"], 2 * day), {"a": (3,) * HOURS, "b": (2,) * HOURS}], 2 * day)
    assert [other.told("ab", 2 * day)[model][9] for model in "ab"] == [9, 1]
    assert seen.told(["a"], 30 * day) == {}
    assert seen.told([], 30 * day) == {}
