"""`tutti logs --events`: what happened in the cluster, from the sink's chain of events; a line an event, newest last."""

from __future__ import annotations

import asyncio
from typing import Any

from infra.cli.output import moment
from infra.cli.rest import part
from infra.cli.sink import ask, emit_rows

_PAGE = 1_000
_SAID = ("node", "status", "failure", "verdict", "by", "planner", "schedule")
_COLUMNS = ("time", "event", "tenant", "job", "step", "attempt", "what")
_NODE = ("from", "to", "node", "what", "version", "slots", "models", "accelerator")


def of_job(job: str, tenant: str | None, form: str | None) -> None:
    """All events of a job's lives: where they lie, its row in the sink says."""
    asyncio.run(_of_job(job, tenant, form))


async def _of_job(job: str, tenant: str | None, form: str | None) -> None:
    lives = (await ask(f"/v1/usage/jobs/{part(job)}", {"tenant": tenant}))["rows"]
    found: list[dict[str, Any]] = []
    for life in lives:
        after: int | None = life["life"] - 1 if life["life"] >= 0 else life.get("settled", 0) - 1
        last = life.get("settled")
        while after is not None and (last is None or after < last):
            page = await ask("/v1/audit", {"home": life["home"], "after": after, "limit": _PAGE, "tenant": tenant})
            own = (entry for entry in page["rows"] if entry.get("job", "").rpartition("/")[2] == life["job"].rpartition("/")[2])
            found += [entry for entry in own if last is None or entry["offset"] <= last]
            after = page["next"]
    _emit(found, form)


def lately(since: float, tenant: str | None, limit: int, form: str | None) -> None:
    """The newest events."""
    asyncio.run(_lately(since, tenant, limit, form))


async def _lately(since: float, tenant: str | None, limit: int, form: str | None) -> None:
    found: list[dict[str, Any]] = []
    before: int | None = 10**16
    while before is not None and len(found) < limit:
        page = await ask("/v1/logs", {"since": since, "before": before, "limit": min(_PAGE, limit - len(found)), "tenant": tenant})
        found += page["rows"]
        before = page["next"]
    _emit(found[:limit][::-1], form)


def nodes(limit: int, form: str | None) -> None:
    """What nodes said of themselves."""
    rows = asyncio.run(ask("/v1/nodes/history", {"limit": min(_PAGE, limit)}))["rows"]
    for row in rows:
        words = [word for word, said in (("left", row.get("left")), ("draining", row.get("draining"))) if said]
        words += ["unreachable"] if row.get("reachable") is False else []
        row |= {"from": moment(row["from_ms"] / 1e3), "to": moment(row["to_ms"] / 1e3), "what": ", ".join(words) or "serves"}
        row["models"] = ",".join(row.get("models", ()))
    emit_rows(rows[::-1], _NODE, form, empty="no node has told of itself")


def _emit(found: list[dict[str, Any]], form: str | None) -> None:
    for entry in found:
        entry["time"] = moment(entry["at_ms"] / 1e3)
        entry["event"] = entry.pop("type")
        entry["what"] = " ".join(f"{name}={entry[name]}" for name in _SAID if name in entry)
    emit_rows(found, _COLUMNS, form, empty="nothing happened in this time")
