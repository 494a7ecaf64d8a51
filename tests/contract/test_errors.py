"""Every exception may cross a process, and be copied for each who waits: it comes out as it went in."""

from __future__ import annotations

import pickle
from copy import copy
from functools import lru_cache
from importlib import import_module
from importlib.util import find_spec
from inspect import Parameter, signature
from pkgutil import walk_packages
from typing import Any

import pytest

import infra
import services
import shared
from infra.cli.exits import Exit
from services.worker.backends.base import ModelCallFailed
from shared.contracts.failure import Failure, FailureKind
from shared.problem import Problem

OPTIONAL = {"infra.lab.versus.dbos_app": "dbos", "infra.lab.versus.saq_app": "saq"}
"""What needs a system that is only compared with."""


@lru_cache
def kinds() -> list[type[Exception]]:
    found = set()
    for package in (services, shared, infra):
        for module in walk_packages(package.__path__, package.__name__ + "."):
            needed = OPTIONAL.get(module.name)
            if module.name.endswith("__main__") or (needed and find_spec(needed) is None):
                continue
            named = vars(import_module(module.name)).values()
            found |= {kind for kind in named if isinstance(kind, type) and issubclass(kind, Exception) and kind.__module__ == module.name}
    return sorted(found, key=lambda kind: f"{kind.__module__}.{kind.__name__}")


GIVEN: dict[str, Any] = {
    "topic": "t-jobs",
    "kind": "tool",
    "what": "why",
    "seconds": 2.5,
    "status": 404,
    "code": "a_code",
    "message": "a sentence",
    "param": "field",
    "retry_after_seconds": 7.0,
    "flagged": (),
    "problem": Problem(429, "full", "a sentence", "field", 3.0, {"known": ["a"]}),
    "failure": Failure(kind=FailureKind.LIMIT, message="a sentence"),
}


def made(kind: type[Exception]) -> Exception:
    """With all that it can be told, each another thing."""
    if not any("__init__" in vars(base) for base in kind.__mro__ if base.__module__.startswith(("services", "shared", "infra"))):
        return kind("a sentence", 3)
    given = GIVEN | {"kind": FailureKind.OVERLOADED} if kind is ModelCallFailed else GIVEN
    given = given | {"code": Exit.FAILED} if kind.__name__ == "CommandExit" else given
    asked = signature(kind).parameters.values()
    alone = [given[each.name] for each in asked if each.kind is not Parameter.KEYWORD_ONLY]
    return kind(*alone, **{each.name: given[each.name] for each in asked if each.kind is Parameter.KEYWORD_ONLY})


def carried(error: Exception) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301  (our own bytes)


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_an_exception_comes_out_as_it_went_in(kind: type[Exception]) -> None:
    error = made(kind)
    for again in (carried(error), copy(error), carried(copy(error))):
        assert type(again) is kind
        assert (str(again), again.args, again.__dict__) == (str(error), error.args, error.__dict__)
        assert getattr(again, "code", None) == getattr(error, "code", None)


def test_the_walk_sees_the_ones_that_could_not() -> None:
    """Those whose constructor takes something else than it keeps."""
    assert {"Undeclared", "TopicMadeAnew", "UnsupportedParameter", "ModelCallFailed", "StepError", "CommandExit"} <= {
        kind.__name__ for kind in kinds()
    }
