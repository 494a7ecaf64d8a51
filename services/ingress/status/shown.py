"""What callers see of a job's history: of each event of the contract the fields named here, and nothing that the contract does not have.

Events are parsed as the contract has them, and only when somebody asks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from pydantic import ValidationError
from pydantic_core import from_json

from shared.contracts import event as events
from shared.contracts import ids
from shared.contracts.base import Contract, PriorityClass
from shared.contracts.batch import BatchChanged
from shared.contracts.budget import TenantAccount, TenantLimitNeared, TenantShare
from shared.contracts.conversation import ConversationChanged, TurnBegun
from shared.contracts.result import Result
from shared.contracts.review import ReviewDecided, ReviewEscalated, ReviewOpened, ReviewWithdrawn
from shared.contracts.taken import TakenAhead
from shared.telemetry import logs

_log = logs.get(__name__)
_CLASS = re.compile(rb'"priority_class":"(interactive|standard|batch)"')
_TENANT = re.compile(rb'"tenant":"([A-Za-z0-9._-]{1,64})"')
_CLASSES = {priority_class.value.encode(): priority_class for priority_class in PriorityClass}

Fields = Mapping[str, Any]
"""Field → True, or the fields shown of the model in it. What pydantic's `include` takes."""


def _all(*names: str) -> dict[str, Any]:
    return dict.fromkeys(("at", *names), True)


FIELDS: dict[type[Contract], Fields] = {
    events.JobDelayed: _all() | {"waits": dict.fromkeys(("due_at", "since", "tenant", "priority_class", "pattern", "model"), True)},
    events.JobAccepted: _all("priority_class", "deadline_at", "deadline_seconds", "limits")
    | {"request": dict.fromkeys(("tenant", "pattern", "model", "conversation"), True)},
    events.StepAsked: _all("step", "path", "agent", "model", "unfunded"),
    events.StepClaimedBy: _all("step", "attempt", "node"),
    events.StepAnswered: _all("step", "attempt", "node", "usage", "timings"),
    events.AttemptFailed: _all("step", "attempt", "failure", "retry_after_seconds", "counted", "usage"),
    events.StepRetried: _all("step", "attempt", "avoid", "unfunded"),
    events.StepWaits: _all("step", "attempt", "missing"),
    events.StepFunded: _all("step", "attempt"),
    events.TimerSet: _all("step", "path", "due_at"),
    events.TimerFired: _all("step"),
    ReviewOpened: _all("step", "path", "question", "assignees", "quorum", "default", "due_at", "digest"),
    ReviewDecided: _all("step", "verdict", "text", "by", "over"),
    ReviewEscalated: _all("step"),
    ReviewWithdrawn: _all("step"),
    TurnBegun: _all("turn"),
    events.LimitNeared: _all("limit", "used", "bound"),
    events.CancelRecorded: _all("reason"),
    events.JobStopped: _all("failure"),
    events.JobSettled: _all() | {"result": dict.fromkeys(Result.model_fields.keys() - {"callback"}, True)},
}
"""Event → what is shown of it."""

NOT_SHOWN: tuple[type[Contract], ...] = (
    events.PlannerStarted,
    events.JobSnapshot,  # the facts in it are shown as if they had been read one by one
    events.WorkWasted,  # the result's usage counts it
    events.ScheduleFired,  # the run that it began has events of its own
    events.IdsRemembered,
    TakenAhead,
    events.CallerJoined,
    events.InputMoved,
    TenantShare,
    TenantAccount,
    TenantLimitNeared,
    ConversationChanged,
    BatchChanged,
)
"""Events of which a caller sees nothing."""


def kind_of(event: type[Contract]) -> str:
    """The value of `type` by which a record is known as this event."""
    kind: str = event.model_fields["type"].default
    return kind


ALL: tuple[type[Contract], ...] = get_args(get_args(events.Event)[0])
"""Every event that history may hold."""
_READ: tuple[type[Contract], ...] = (*FIELDS, events.JobSnapshot)
SHOWN: dict[str, type[Contract]] = {kind_of(event): event for event in _READ}
"""Type → event, of those that say something to a caller; every other one is skipped."""
LEDGER = frozenset({kind_of(TenantAccount), kind_of(ConversationChanged), kind_of(BatchChanged)})
"""Types that tell a tenant's spending (`tenants`), its conversations and batches; they are no job's."""


class RawEvent(NamedTuple):
    """A valid record of `job-events`, not parsed yet."""

    offset: int
    kind: str
    value: bytes


def parse(kind: str, value: bytes | str) -> Contract | None:
    """The event; None for kinds that a caller does not see, and for what cannot be read: one odd record must not hide the rest."""
    model = SHOWN.get(kind)
    if model is None:
        return None
    try:
        return model.model_validate_json(value)
    except ValidationError:
        _log.warning("event_unreadable", type=kind)
        return None


def shown(event: Contract) -> dict[str, Any]:
    """What callers see of an event, ready for JSON; empty when they see nothing."""
    fields = FIELDS.get(type(event))
    if fields is None:
        return {}
    found = event.model_dump(mode="json", exclude_none=True, include=fields)
    if isinstance(event, events.JobSettled):
        found["result"]["job"] = ids.public(event.job)
    return found


def class_of(value: bytes) -> PriorityClass:
    """Of an event that tells it."""
    found = last(_CLASS, value, b'"priority_class":')
    return _CLASSES[found[1]] if found else PriorityClass.STANDARD


def tenant_in(value: bytes) -> str:
    """Of an event that tells it before all that callers write freely; empty where there is none."""
    found = _TENANT.search(value)
    return "" if found is None else found[1].decode()


def kind_in(value: bytes | str) -> str:
    """The type of an event, as its body says it; empty of what is none."""
    try:
        body = from_json(value)
    except ValueError:
        return ""
    return str(body.get("type", "")) if isinstance(body, dict) else ""


def last(pattern: re.Pattern[bytes], value: bytes, marker: bytes) -> re.Match[bytes] | None:
    """The last occurrence: what a caller wrote comes before what the planner appends."""
    at = value.rfind(marker)
    return pattern.match(value, at) if at >= 0 else None
