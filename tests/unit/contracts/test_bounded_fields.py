"""Every number, text, list and map has a bound: one value of one record, request or setting can overflow nothing."""

from __future__ import annotations

from typing import Annotated, Any, NewType

import pytest
from pydantic import BaseModel, Field, StringConstraints

import services
import shared
from infra.schemas.messages import messages
from shared.contracts.base import Contract, JsonObject
from tests.support.bounds import models_of, unbounded

_SHOWN = frozenset({"JobStatus", "StepStatus", "_NearedLimit", "Tree", "TreeNode", "TenantView", "Spending", "ErasureView", "_Part"})
"""Views: what is shown, made of bounded values."""
MODELS = [model for model in models_of(shared, services) if model.__name__ not in _SHOWN]


def test_the_walk_sees_every_message_and_every_setting() -> None:
    """What it does not look at cannot be judged: all messages of the topic registry, requests, and the settings of each service."""
    names = {model.__name__ for model in MODELS}
    assert messages().keys() <= names
    assert {"ChatRequest", "JobSubmission", "ScheduleSubmission", "PlannerSettings", "RouterSettings", "DelaySettings"} <= names
    assert {"ShellSettings", "IngressSettings", "WorkerSettings", "TopicSettings"} <= names


@pytest.mark.parametrize("model", MODELS, ids=lambda model: f"{model.__module__}.{model.__name__}")
def test_every_field_has_a_bound(model: type[BaseModel]) -> None:
    """Length, magnitude or number of items; also inside unions, lists, maps and nested models."""
    assert unbounded(model) == []


Name = NewType("Name", str)
Short = NewType("Short", Annotated[str, StringConstraints(max_length=9)])


class Inner(BaseModel):
    text: str


class Loose(Contract):
    """One field of each kind that lacks a bound, and one beside it that has it."""

    text: str
    bounded_text: Short
    new_type: Name | None = None
    number: int = Field(ge=0)
    bounded_number: int = Field(ge=0, le=9)
    real: float = Field(le=1)
    bounded_real: float = Field(gt=0, lt=1)
    raw: bytes
    found: str = Field(pattern="a+", max_length=9)
    either_end: str = Field(pattern="^a|b$", max_length=9)
    items: tuple[int, ...] = Field(max_length=3)
    pairs: tuple[tuple[Short, bool], ...]
    mapped: dict[str, Any] = Field(max_length=3)
    free: JsonObject
    either: Short | Inner
    anything: Any = None


def test_the_walk_names_what_lacks_a_bound() -> None:
    """Or it would prove nothing."""
    assert unbounded(Loose) == [
        "Loose.anything: any",
        "Loose.either.text: str",
        "Loose.either_end: str",
        "Loose.found: str",
        "Loose.items[]: int",
        "Loose.mapped[]: any",
        "Loose.mapped[]: str",
        "Loose.new_type: str",
        "Loose.number: int",
        "Loose.pairs: tuple",
        "Loose.raw: bytes",
        "Loose.real: float",
        "Loose.text: str",
    ]
