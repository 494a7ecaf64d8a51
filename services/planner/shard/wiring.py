"""Wiring: what a home may touch of the process around it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from services.planner.handlers import JobReader
from services.planner.sending.eager import Eager
from services.planner.sending.writer import EventWriter
from services.planner.settings import PlannerSettings
from services.planner.state.policy import Policy
from shared.clock import Clock
from shared.contracts.budget import TenantLimits
from shared.kafka.port import Consumer, Log, TopicPartition
from shared.processing.blobs import Blobs
from shared.processing.outbox import Outbox
from shared.scheduling.schedule_table import ScheduleTable
from shared.settings import DeadLetterCapSettings
from shared.topics import Topics


@dataclass(frozen=True, slots=True)
class Wiring:
    """Shared by all homes of a planner."""

    log: Log
    clock: Clock
    random: Random
    topics: Topics
    options: PlannerSettings
    policy: Policy
    dead_letter_cap: DeadLetterCapSettings
    instance: str
    reader: JobReader
    schedules: ScheduleTable
    consumer: Consumer
    """The group's consumer: for committed and end offsets only; `homes` polls it."""
    writer: EventWriter
    outbox: Outbox
    eager: Eager
    rewind: Callable[[int, dict[str, int]], None]
    """Read the inputs of a number again from these offsets."""
    unpause: Callable[[TopicPartition], None]
    still_owner: Callable[[int], Awaitable[bool]]
    """Whether a commit with the current generation succeeds for this number."""
    blobs: Blobs
    spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]
    """Run beside, until the planner ends."""
    tenants: Mapping[str, TenantLimits] = field(default_factory=dict)
    """Limits that administrators declare; they change at any time."""
