"""What runs on this machine, as rows for a table or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

State = Literal["ready", "not ready", "stopped", "elsewhere"]
"""`elsewhere`: not started here, and it answers."""


@dataclass(frozen=True, slots=True)
class Row:
    """One component. `about` says what it is, or why it is not ready."""

    component: str
    state: State
    about: str
    address: str = ""
    pid: int | None = None
    simulated: bool = False
    remedy: str = ""
    """What makes a simulated one real."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


TITLES = ("component", "state", "pid", "address", "what")


def cells(rows: Sequence[Row]) -> list[tuple[str, str, str, str, str]]:
    """Texts in the order of TITLES."""
    return [(row.component, row.state, str(row.pid or "-"), row.address or "-", row.about) for row in rows]


def all_ready(rows: Sequence[Row]) -> bool:
    """Whether every component serves."""
    return all(row.state in ("ready", "elsewhere") for row in rows)


def warnings(rows: Sequence[Row]) -> list[str]:
    """What a person must not overlook."""
    found = []
    for row in rows:
        if row.simulated:
            remedy = f". For a real one: {row.remedy}" if row.remedy else ""
            found.append(f"the {row.component} is SIMULATED: no model is asked, every answer is made up from its prompt{remedy}")
    if any(row.component == "kafka" and row.state == "ready" for row in rows):
        found.append("Kafka is one broker with one copy of the data: fine for one machine, not for production")
    return found
