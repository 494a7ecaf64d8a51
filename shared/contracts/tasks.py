"""Tasks: what is done to a model on one node, and how far it is. A task may be done twice without harm; one that was cut off goes on."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from shared.contracts.base import Contract, Count, EpochSeconds, Label, ModelName, NodeId, StepId


class Action(StrEnum):
    """What is done."""

    PULL = "pull"
    """Fetch it, or its newer file."""
    DELETE = "delete"
    COPY = "copy"
    """Give it another name, `to`."""
    LOAD = "load"
    """Into memory, as long as the node keeps what is not used."""
    UNLOAD = "unload"
    PIN = "pin"
    """Load it, and keep it there."""
    UNPIN = "unpin"


Lane = Literal["disk", "memory"]
LANES: dict[Action, Lane] = {
    Action.PULL: "disk",
    Action.DELETE: "disk",
    Action.COPY: "disk",
    Action.LOAD: "memory",
    Action.UNLOAD: "memory",
    Action.PIN: "memory",
    Action.UNPIN: "memory",
}
"""What of a node an action is at: tasks of one lane go one after the other, beside the node's slots."""


class ModelTask(Contract):
    """One action; of which model, and on which node, its step says."""

    action: Action
    to: ModelName | None = None


class TaskProgress(Contract):
    """How far a task is, in its endpoint's words; bytes of the file `digest`, where it is at one."""

    status: Label
    digest: Label = ""
    total: Count = 0
    completed: Count = 0
    node: NodeId | None = None


class RunningTask(Contract):
    """A task that a node is at, in its Node record: bytes are rounded to a hundredth of the whole, so that records are few."""

    step: StepId
    action: Action
    model: ModelName
    progress: TaskProgress | None = None
    """None: it waits for another of its lane, or has not begun."""


PIN = "pin"
"""Of entries of the registry, `pin/<node>/<model>`: so that a pin outlives the node's worker and its server."""


class Pin(Contract):
    """Until the entry is removed the node keeps the model in memory."""

    by: Label
    """The name of the key that asked for it."""
    at: EpochSeconds
