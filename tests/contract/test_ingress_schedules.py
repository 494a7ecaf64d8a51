"""`/v1/schedules` and delayed jobs as callers see them: the whole ingress on the in-memory log."""

from __future__ import annotations

from typing import Any

import pytest

from services.ingress.status.shown import RawEvent
from services.ingress.status.status import JobState, JobStatus, fold
from shared.clock import SystemClock
from shared.contracts.delayed import DelayedJob
from shared.contracts.event import JobDelayed
from shared.contracts.outcome import OUTCOME, CancelRequested
from shared.contracts.schedule import Schedule
from shared.kafka.memory.memory import MemoryLog
from shared.kafka.port import TopicPartition
from tests.support.ingress_world import World, world

NIGHTLY = "/v1/schedules/nightly"
BODY: dict[str, Any] = {"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "job": {"prompt": "Sum up the day."}}


def recorded(at: World) -> list[Schedule | None]:
    assert isinstance(at.log, MemoryLog)
    records = at.log.existing(TopicPartition(at.topics.registry, 0)).records
    return [Schedule.model_validate_json(r.value) if r.value else None for r in records if r.key == b"schedule/nightly"]


async def declared(at: World, **changes: Any) -> Any:
    answer = await at.client.put(NIGHTLY, json={**BODY, **changes})
    assert answer.status_code == 200, answer.text
    return answer.json()


async def ready(at: World) -> None:
    while (await at.client.get(NIGHTLY)).status_code == 503:
        await SystemClock().sleep(0.01)


async def test_declared_shown_and_removed() -> None:
    """The registry holds it under its key; the answer tells when it runs next."""
    async with world() as at:
        await ready(at)
        assert (await at.client.get(NIGHTLY)).status_code == 404
        shown = await declared(at, missed="all", **{"class": "batch"})
        assert (shown["class"], shown["missed"], len(shown["next_at"])) == ("batch", "all", 5)
        assert (await at.client.get(NIGHTLY)).json()["job"]["prompt"] == "Sum up the day."
        [listed] = (await at.client.get("/v1/schedules")).json()["schedules"]
        assert listed["id"] == "nightly"
        assert "job" not in listed
        assert (await at.client.delete(NIGHTLY)).status_code == 204
        assert (await at.client.get(NIGHTLY)).status_code == 404
        first, last = recorded(at)
        assert first is not None
        assert last is None


async def test_what_was_due_before_a_change_is_not_made_up_for() -> None:
    """`since` stays when only the job changes; it is now when the times change, or when it was off."""
    async with world() as at:
        await ready(at)
        since = (await declared(at))["since"]
        assert (await declared(at, job={"prompt": "other"}))["since"] == since
        changed = (await declared(at, cron="0 3 * * *"))["since"]
        assert changed > since
        off = await declared(at, cron="0 3 * * *", enabled=False)
        assert (off["since"], off["next_at"]) == (changed, [])
        assert (await declared(at, cron="0 3 * * *"))["since"] > changed


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"cron": "61 * * * *"}, "invalid_cron"),
        ({"cron": "0 0 31 2 *"}, "invalid_cron"),
        ({"time_zone": "Mars/Olympus"}, "invalid_cron"),
        ({"job": {"prompt": "x", "id": "mine"}}, "invalid_input"),
        ({"job": {"prompt": "x", "not_before": 2_000_000_000}}, "invalid_input"),
        ({"job": {}}, "invalid_input"),
        ({"missed": "some"}, "invalid_input"),
        ({"colour": "red"}, "unknown_field"),
    ],
)
async def test_what_is_no_schedule_is_refused(changes: dict[str, Any], code: str) -> None:
    """400 with a code; nothing is written."""
    async with world() as at:
        await ready(at)
        answer = await at.client.put(NIGHTLY, json={**BODY, **changes})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
        assert recorded(at) == []
        assert (await at.client.put("/v1/schedules/No!", json=BODY)).status_code == 400


async def test_a_cancel_tells_that_its_job_is_delayed() -> None:
    """The planner holds nothing of a delayed job: what it must know travels with the cancel."""
    async with world() as at:
        waits = DelayedJob(due_at=SystemClock().wall() + 86_400, since=1.0, tenant="acme")
        await at.ingress.door.submitter.cancel_and_wait("mine", 0, "changed my mind", waits)
        assert isinstance(at.log, MemoryLog)
        [record] = at.log.existing(TopicPartition(at.topics.outcomes, 0)).records
        assert OUTCOME.validate_json(record.value or b"") == CancelRequested(job="mine", reason="changed my mind", waits=waits)


async def test_more_than_seven_days_ahead_is_refused() -> None:
    """400, before anything is written."""
    async with world() as at:
        answer = await at.client.post("/v1/jobs", json={"prompt": "x", "not_before": SystemClock().wall() + 8 * 86_400})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "not_before")


def test_a_delayed_job_is_seen_by_every_instance() -> None:
    """Also by one that did not submit it, and of a job that came straight over Kafka."""
    waits = DelayedJob(due_at=2_000.0, since=1_000.0, tenant="acme", digest="d")
    event = RawEvent(5, "job_delayed", JobDelayed(epoch=0, job="j", at=1_000.0, waits=waits).to_bytes())
    status: JobStatus = fold("j", 2, None, [event])
    assert (status.state, status.not_before, status.tenant, status.home) == (JobState.DELAYED, 2_000.0, "acme", 2)
    assert status.waits() == waits
