"""Overview: what the page shows of the whole, made of the folds. Pure; time is passed in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict
from itertools import islice
from statistics import quantiles
from typing import Any

from services.sink.page.present import ANSWERING, PLACED, WAITING, ShownJobs
from shared.contracts.base import CLASSES, PriorityClass
from shared.scheduling.places import AheadInLine, Pace, PlaceInLine, place_in_line

_RATE_SECONDS = 10
_SERIES_STEP = 5
_LATELY = 1_000
"""Ended jobs of which durations are told."""
_MOST_AGENTS = 50


def overview(jobs: ShownJobs, unread: Mapping[PriorityClass, int], pace: Pace, places: tuple[int, int], now: float) -> dict[str, Any]:
    """`unread`: records of jobs.* that no planner has taken; `places`: slots that serve, and free ones; `now`: epoch seconds of this
    reader. Rates a second, durations seconds.
    """
    stages: dict[str, int] = defaultdict(int)
    reasons: dict[str, int] = defaultdict(int)
    for key, count in jobs.counts.items():
        if key[0] == "job":
            stages[key[2]] += count
            if key[2] == WAITING:
                reasons[key[3]] += count
    rates = {
        what: round(jobs.rates.per_second(what, now, _RATE_SECONDS), 2) for what in ("accepted", "started", "ended", "failed", "retried")
    }
    return {
        "now": now,
        "flow": {"unread": sum(unread.values()), **{stage: stages[stage] for stage in (WAITING, PLACED, ANSWERING)}},
        "ended": {status: jobs.totals[status] for status in ("succeeded", "failed", "cancelled", "expired")},
        "reasons": dict(sorted(reasons.items(), key=lambda item: -item[1])),
        "rates": rates,
        "series": {what: jobs.rates.series(what, now, _SERIES_STEP) for what in ("accepted", "ended", "failed")},
        "series_step": _SERIES_STEP,
        "slots": places[0],
        "queues": queues(jobs, unread, pace, places[1], now),
        "agents": _agents(jobs),
        "cache": {kind: jobs.totals[kind] for kind in ("exact", "semantic", "answers")},
        "jobs": len(jobs),
        "lost": jobs.lost,
    }


def queues(jobs: ShownJobs, unread: Mapping[PriorityClass, int], pace: Pace, free: int, now: float) -> list[dict[str, Any]]:
    """A row a class. `predicted`: when a job that comes now, at the end of the line, would begin; None: too little was seen to say."""
    steps: dict[tuple[str, str], int] = defaultdict(int)
    live: dict[tuple[str, str], int] = defaultdict(int)
    for key, count in jobs.counts.items():
        if key[0] == "step":
            steps[key[1], key[3]] += count
        else:
            live[key[1], key[2]] += count
    oldest: dict[str, float] = {}
    for job in jobs.live():
        if job.stage == WAITING:
            oldest[job.priority_class] = min(job.accepted_at, oldest.get(job.priority_class, job.accepted_at))
    line = {each: unread.get(each, 0) + steps[each.value, "waiting"] for each in CLASSES}
    took = _durations(jobs)
    return [
        {
            "class": each.value,
            "unread": unread.get(each, 0),
            "waiting": live[each.value, WAITING],
            "running": live[each.value, PLACED] + live[each.value, ANSWERING],
            "steps": steps[each.value, "waiting"],
            "oldest": round(max(0.0, now - oldest[each.value]), 1) if each.value in oldest else None,
            "predicted": _shown(place_in_line(AheadInLine(each, unread=line[each], classes=_without(line, each), free=free), pace)),
            "median": took.get(each.value, (None, None))[0],
            "p95": took.get(each.value, (None, None))[1],
        }
        for each in CLASSES
    ]


def _without(line: Mapping[PriorityClass, int], one: PriorityClass) -> dict[PriorityClass, int]:
    return {each: count for each, count in line.items() if each is not one}


def _shown(place: PlaceInLine) -> dict[str, Any]:
    return {name: value if value is None else round(value, 2) for name, value in asdict(place).items()}


def _durations(jobs: ShownJobs) -> dict[str, tuple[float, float]]:
    """Class → median and 95th percentile of its jobs that succeeded lately."""
    found: dict[str, list[float]] = defaultdict(list)
    for job in islice(jobs.ended(), _LATELY):
        if job.status == "succeeded" and job.seconds is not None:
            found[job.priority_class].append(job.seconds)
    cut = {name: quantiles(values, n=20, method="inclusive") if len(values) > 1 else values * 19 for name, values in found.items()}
    return {name: (round(parts[9], 3), round(parts[18], 3)) for name, parts in cut.items()}


def _agents(jobs: ShownJobs) -> list[dict[str, Any]]:
    """Steps by who is asked, all classes together, those with most to do first."""
    found: dict[str, dict[str, int]] = defaultdict(lambda: {"waiting": 0, "running": 0})
    for key, count in jobs.counts.items():
        if key[0] == "step":
            found[key[2]][key[3]] += count
    busiest = sorted(found.items(), key=lambda item: (-item[1]["waiting"], -item[1]["running"], item[0]))[:_MOST_AGENTS]
    return [{"agent": agent, **counts} for agent, counts in busiest]
