"""A broken law, with what is needed to understand it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """`law`: the checker's name. `job`: whose history shows it, when it is one job's."""

    law: str
    message: str
    job: str | None = None

    def __str__(self) -> str:
        return f"[{self.law}] {self.message}"
