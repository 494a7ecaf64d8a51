"""WaitingJobs: jobs with client-given ids that must wait until recent ids are known. Their positions are not committed meanwhile."""

from __future__ import annotations

from services.planner.engine.admission import JobInput
from shared.kafka.port import Record


class WaitingJobs:
    """In order of arrival; bounded by who adds."""

    def __init__(self) -> None:
        self.ids_known = False
        self._held: list[tuple[Record, JobInput]] = []

    def __len__(self) -> int:
        return len(self._held)

    def must_wait(self, given: JobInput) -> bool:
        return given.client_id and not self.ids_known

    def hold(self, record: Record, given: JobInput) -> None:
        self._held.append((record, given))

    def release(self) -> list[tuple[Record, JobInput]]:
        """Everything held, once ids are known."""
        if not self.ids_known:
            return []
        held, self._held = self._held, []
        return held

    def clamp(self, positions: dict[str, int]) -> dict[str, int]:
        """Positions that do not pass what is held."""
        clamped = dict(positions)
        for record, _ in self._held:
            clamped[record.topic] = min(clamped.get(record.topic, record.offset), record.offset)
        return clamped
