"""Planted bugs: each a small patch of the real code, with the faults under which it does harm. The list is what the simulation must see.

`tests/simulated/test_mutations.py` runs each: the patched cluster must break a law, the unpatched one under the same seed must not.
`seed` is where the search found it first. A change of the services may move it: the test looks at `FEW_SEEDS` more, then it fails and says
how to search up to `MOST_SEEDS` and record anew. A mix under which many seeds see the bug moves seldom.

Not here, and why:
- "no driving on after replay" does nothing as long as a job's events of one round lie in one batch, which they do below 1 MiB a job; the
  prefix that needs driving on is planted in tests/unit/planner/test_recovery.py.
- "committed offsets of the group expire" and "power loss truncates the log" are losses of the cluster itself, which a planner can only
  notice; tests/simulated/test_planner_inputs.py and test_planner_traces.py plant them.
- "commands after the acknowledgement", "fenced commits", "positions in the log" are correct variants of the model, not bugs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from services.planner.shard import home
from shared.telemetry.logs import Logger
from tests.support.cluster.faults import FaultMix
from tests.support.cluster.simulation import Law, Report, simulate
from tests.support.cluster.violation import Violation

MOST_SEEDS = 200
FEW_SEEDS = 60
"""Every change of what services draw moves some recorded seeds. Then `make test` costs a search of seconds a bug, and goes on."""
_PATIENCE = 80.0
"""Twice what a cluster without a bug needs, under these mixes: bugs that stop it for ever cost no more time than others."""
CRASHED = "no home crashes"
Patch = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True, slots=True)
class Mutation:
    """`patch` plants the bug, `breaks` is the law that it must be seen to break. `mix` and `kinds`: what makes it visible. `laws`: checked
    besides those that always are.
    """

    name: str
    patch: Patch
    breaks: str
    mix: FaultMix
    kinds: dict[str, float] | None = None
    laws: tuple[Law, ...] = ()
    seed: int = 0
    aside: tuple[str, ...] = ()

    def run(self, seed: int) -> Report:
        """One run with the bug in. It shows nothing when a home crashed in it: a patch of what is no longer there breaks laws too."""
        with pytest.MonkeyPatch.context() as patching:
            crashes: list[str] = []
            patching.setattr(home, "log", _Listening(home.__name__, crashes))
            self.patch(patching)
            report = simulate(seed, self.mix, self.kinds, self.laws, patience=_PATIENCE, aside=self.aside)
        return replace(report, violations=[Violation(CRASHED, crashes[0])]) if crashes else report

    def run_healthy(self, seed: int) -> Report:
        """The same run without it."""
        return simulate(seed, self.mix, self.kinds, self.laws, patience=_PATIENCE, aside=self.aside)

    def healthy(self, seed: int) -> bool:
        """Whether that breaks no law; known where another bug is looked for under the same faults."""
        key = (seed, self.mix, tuple((self.kinds or {}).items()), self.laws)
        if key not in _HEALTHY:
            _HEALTHY[key] = not self.run_healthy(seed).violations
        return _HEALTHY[key]


_HEALTHY: dict[tuple[Any, ...], bool] = {}


class _Listening(Logger):
    """A home's log, whose failures are crashes."""

    __slots__ = ("_crashes",)

    def __init__(self, name: str, crashes: list[str]) -> None:
        super().__init__(name)
        self._crashes = crashes

    def failure(self, event: str, raised: BaseException, **fields: Any) -> None:
        self._crashes.append(f"{event}: {raised!r}")


def find(mutation: Mutation, first: int, most: int) -> tuple[int, Report] | None:
    """The first seed that sees the bug break its law, and sees nothing without it: `first`, then all from 0 to `most`."""
    for seed in [first, *(seed for seed in range(most) if seed != first)]:
        report = mutation.run(seed)
        if any(violation.law == mutation.breaks for violation in report.violations) and mutation.healthy(seed):
            return seed, report
    return None


def mutations() -> list[Mutation]:
    """All of them."""
    from tests.support.cluster.mutants import ahead, boots, budgets, callers, critics, eager, kept, others, planner, protocol, schedules

    everywhere = (protocol.MUTANTS, kept.MUTANTS, ahead.MUTANTS, planner.MUTANTS, others.MUTANTS, budgets.MUTANTS, schedules.MUTANTS)
    groups = (*everywhere, boots.MUTANTS, callers.MUTANTS, eager.MUTANTS, critics.MUTANTS)
    return [mutation for group in groups for mutation in _made(group)]


def _made(given: dict[str, dict[str, Any]]) -> list[Mutation]:
    return [Mutation(name=name, **fields) for name, fields in given.items()]
