"""Whether a node works or yields to its machine's owner, and whether its machine may sleep: from facts and settings. Pure.

Two kinds of reasons. *Firm* ones hold as long as they hold: the owner is there, or this is not one of the node's hours. *Pressure* (others
need the processors, memory is short) comes and goes, so it must last before the node yields, and be well over, and stay so, before the node
works again: the node's own models, which are unloaded when it yields, would else come back into a machine that is full again at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from shared.contracts.base import PositiveSeconds, Seconds, Sentence
from shared.errors import InvalidInput
from shared.scheduling.cron import Cron

OWNER_IS_THERE = "the owner is at the machine"
NOT_ITS_HOURS = "it is not one of the node's hours"
OTHERS_COMPUTE = "other programs need the processors"
MEMORY_IS_SHORT = "memory is short"
EASED = 0.8
"""Pressure is over below this share of what began it."""
RESTING_LOAD = 0.2
"""Of others, share of all processors: beyond it a machine is in use, whoever sits there."""
_MOST_SPANS = 50
_MOST_HOURS = 168.0
"""A cron expression is looked back for a week at most."""
_UNITS = {"m": 1 / 60, "h": 1.0, "d": 24.0}


@dataclass(frozen=True, slots=True)
class _Hours:
    """Hours that begin whenever `cron` says so."""

    cron: str
    seconds: float

    def holds(self, zone: str, wall: float) -> bool:
        """Whether this instant (epoch seconds) is in it; its last second is not."""
        return bool(Cron(self.cron, zone).newest(wall - self.seconds, wall, 1))


def windows(text: str) -> tuple[_Hours, ...]:
    """`0 22 * * 1-5 for 9h; 0 0 * * 6,0 for 1d`. Raises ValueError."""
    found = [_window(part.strip()) for part in text.split(";") if part.strip()]
    if len(found) > _MOST_SPANS:
        raise ValueError(f"at most {_MOST_SPANS} windows")
    return tuple(found)


def _window(text: str) -> _Hours:
    cron, found, length = text.rpartition(" for ")
    number, unit = length[:-1], _UNITS.get(length[-1:])
    if not found or unit is None or not number.isdecimal() or not 0 < int(number) * unit <= _MOST_HOURS:
        raise ValueError("a window is a cron expression and how long it lasts, up to seven days: 0 22 * * * for 9h")
    checked(cron)
    return _Hours(cron.strip(), int(number) * unit * 3600)


def checked(cron: str = "* * * * *", zone: str = "UTC") -> None:
    """Raises ValueError of what is no cron expression, or no time zone."""
    try:
        Cron(cron, zone)
    except InvalidInput as error:
        raise ValueError(error.message) from None


def _windows(text: str) -> str:
    windows(text)
    return text


Windows = Annotated[Sentence, AfterValidator(_windows)]


class OwnerSettings(BaseModel):
    """When the node yields: `TUTTI_WORKER__OWNER__<NAME>`. What is 0, or empty, is not looked at; then nothing is looked at by default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    away_seconds: Seconds = 0.0
    """The owner is away when neither keyboard nor mouse was touched for so long."""
    others_load: float = Field(default=0.0, ge=0, le=1)
    """Share of all processors that programs other than this node's use."""
    memory_stall: float = Field(default=0.0, ge=0, le=100)
    """Percent of the last ten seconds in which something waited for memory (Linux)."""
    least_free: float = Field(default=0.0, ge=0, le=1)
    """Share of the memory that stays available."""
    may_work: Windows = ""
    """Hours in which the node works, and in no others: `0 22 * * * for 9h; 0 0 * * 6,0 for 1d`."""
    must_not: Windows = ""
    """Hours in which it does not, whatever `may_work` says."""
    time_zone: str = Field(default="UTC", max_length=64)
    """In which the hours are meant."""
    finish_seconds: Seconds = 60.0
    """What runs when the node yields may end; after this it is given back, uncounted."""
    unload: bool = True
    """Then models are unloaded, so that the memory is the owner's."""
    look_seconds: PositiveSeconds = 5.0
    """Between two looks at the machine."""
    hold_seconds: Seconds = 10.0
    """Pressure must last so long before the node yields,"""
    calm_seconds: Seconds = 60.0
    """and be over for so long before it works again."""

    @model_validator(mode="after")
    def _zone_exists(self) -> OwnerSettings:
        checked(zone=self.time_zone)
        return self

    @property
    def wanted(self) -> bool:
        """Whether there is anything to look at."""
        return any((self.away_seconds, self.others_load, self.memory_stall, self.least_free, self.may_work, self.must_not))


class SleepSettings(BaseModel):
    """Whether the node puts its machine to sleep when nothing is to do: `TUTTI_WORKER__SLEEP__<NAME>`. Off without a command."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    command: tuple[Sentence, ...] = Field(default=(), max_length=32)
    """The program and its arguments, as JSON; no shell reads it: ["systemctl", "suspend"]."""
    after_seconds: PositiveSeconds = 1_800.0
    """Without a step."""
    mac: str = Field(default="", pattern="^(?:(?:[0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2})?$", max_length=17)
    """Of the interface that a magic packet wakes; that of the way to Kafka when empty."""


@dataclass(frozen=True, slots=True)
class OwnerFacts:
    """What the machine tells; None: it does not. Shares are 0 to 1."""

    input_seconds: float | None = None
    """Since somebody last touched keyboard or mouse."""
    others_load: float | None = None
    memory_stall: float | None = None
    """Percent."""
    memory_free: float | None = None
    memory_ours: float = 0.0
    """What this node's endpoint holds."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What was decided so far. `reason`: why the node yields; empty: it works."""

    reason: str = ""
    pressure: str = ""
    """The reason of its kind that holds, if one does."""
    turning_since: float | None = None
    """Since when the facts have said the opposite of `pressure`; monotonic seconds."""
    held: float = 0.0
    """Share of memory that the node held when the pressure began."""


def judged(before: Standing, facts: OwnerFacts, rules: OwnerSettings, now: float, wall: float) -> Standing:
    """What holds from now on. `now`: monotonic seconds; `wall`: epoch seconds."""
    after = _under_pressure(before, facts, rules, now)
    return replace(after, reason=_firm(facts, rules, wall) or after.pressure)


def _firm(facts: OwnerFacts, rules: OwnerSettings, wall: float) -> str:
    if facts.input_seconds is not None and facts.input_seconds < rules.away_seconds:
        return OWNER_IS_THERE
    may, must_not = windows(rules.may_work), windows(rules.must_not)
    outside = may and not any(window.holds(rules.time_zone, wall) for window in may)
    return NOT_ITS_HOURS if outside or any(window.holds(rules.time_zone, wall) for window in must_not) else ""


def _under_pressure(before: Standing, facts: OwnerFacts, rules: OwnerSettings, now: float) -> Standing:
    presses = _presses(facts, rules, before)
    if bool(presses) == bool(before.pressure):
        return replace(before, turning_since=None)
    since = now if before.turning_since is None else before.turning_since
    if now - since < (rules.hold_seconds if presses else rules.calm_seconds):
        return replace(before, turning_since=since)
    return replace(before, pressure=presses, turning_since=None, held=facts.memory_ours if presses else 0.0)


def _presses(facts: OwnerFacts, rules: OwnerSettings, before: Standing) -> str:
    """Beyond a limit; of pressure that holds, not well below it. Memory counts as if the node held again what it held then."""
    ease = EASED if before.pressure else 1.0
    if rules.others_load and facts.others_load is not None and facts.others_load > rules.others_load * ease:
        return OTHERS_COMPUTE
    if rules.memory_stall and facts.memory_stall is not None and facts.memory_stall > rules.memory_stall * ease:
        return MEMORY_IS_SHORT
    free = None if facts.memory_free is None else facts.memory_free - max(0.0, before.held - facts.memory_ours)
    return MEMORY_IS_SHORT if free is not None and free < rules.least_free / ease else ""


def may_sleep(standing: Standing, facts: OwnerFacts, rules: SleepSettings, quiet_seconds: float) -> bool:
    """Whether the machine may be put to sleep. `quiet_seconds`: since this node last had anything to do. Never from under its owner: while
    the node yields, whatever for, the machine is his.
    """
    in_use = bool(standing.reason) or (facts.others_load or 0.0) > RESTING_LOAD
    touched = facts.input_seconds is not None and facts.input_seconds < rules.after_seconds
    return bool(rules.command) and quiet_seconds >= rules.after_seconds and not in_use and not touched
