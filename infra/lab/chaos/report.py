"""Report of a run: lines for the terminal, a document for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from infra.lab.chaos.figures import ENOUGH, Struck, flow, in_flight_ended, longest_silence, rates, recoveries, results_per_second, slowest
from infra.lab.chaos.jobs import Ledger
from infra.lab.chaos.plan import FaultKind
from infra.lab.chaos.run import Options, Outcome
from infra.lab.chaos.stage import COPIES, SLOTS, WORKERS
from infra.verify.laws import LAWS

SIMULATED = "model nodes are simulated; broker, services, processes, signals and network are real"
_SHOWN = 10
SATURATED_SECONDS = 10.0
"""With more jobs in flight when a fault strikes than are sent in so long, the load was more than the cluster serves on this machine."""


def document(options: Options, outcome: Outcome) -> dict[str, Any]:
    """Everything, ready for JSON: its numbers are the bench's figures."""
    start = outcome.struck[0].at if outcome.struck else outcome.started_at
    end = outcome.struck[-1].over_at if outcome.struck else outcome.drained_at
    ledger = outcome.ledger
    return {
        "seed": str(options.seed),
        "together": options.together,
        "rate": f"{options.rate:g}",
        "cluster": {**COPIES, "worker": WORKERS, "slots_per_worker": SLOTS, "brokers": options.brokers},
        "jobs": ledger.count,
        "kept": outcome.kept,
        "lost": max(outcome.report.lost, outcome.unanswered),
        "unanswered": outcome.unanswered,
        "counted_wrong_by_the_sink": outcome.uncounted,
        "doubly_accepted": outcome.report.doubly_accepted,
        "executed_duplicates": outcome.report.counts.wasted_executions,
        "callbacks": {**outcome.callbacks, "untold": len(outcome.untold)},
        "callers": {**outcome.callers, "wrong": outcome.miscalled[:_SHOWN]},
        "ready_without_writes": outcome.deceived,
        "sent_again": ledger.sent_again,
        "repeated_results": ledger.repeated_results,
        "load_seconds": outcome.load_seconds,
        "results_per_second_under_faults": results_per_second(ledger, start, end),
        "longest_silence_seconds": longest_silence(ledger, start, end),
        "results_per_second_in_steps_of_5_s": rates(ledger.ended, outcome.started_at, outcome.drained_at, 5.0),
        "saturated": any(_in_flight(ledger, one.at) > SATURATED_SECONDS * options.rate for one in outcome.struck),
        "recovery": [asdict(recovery) for recovery in recoveries(ledger, outcome.struck)],
        "in_flight_ended": [asdict(ended) for ended in in_flight_ended(ledger, outcome.struck)],
        "faults": [_fault(ledger, one, outcome.started_at) for one in outcome.struck],
        "ended_by_themselves": [{"excused": crash not in outcome.defects, **asdict(crash)} for crash in outcome.crashes],
        "verify": outcome.report.as_json(),
    }


def _in_flight(ledger: Ledger, at: float) -> int:
    rows = zip(ledger.acknowledged, ledger.due, ledger.ended, strict=True)
    return sum(acknowledged <= at and due <= at < ended for acknowledged, due, ended in rows)


def _fault(ledger: Ledger, one: Struck, started_at: float) -> dict[str, Any]:
    return {
        "kind": one.fault.kind.value,
        "targets": list(one.fault.targets),
        "at": one.at - started_at,
        "lasted": one.over_at - one.at,
        **asdict(flow(ledger, one)),
        "results_each_second": rates(ledger.ended, one.at, one.until),
        "in_flight": _in_flight(ledger, one.at),
        "in_flight_ended_after": None if one.in_flight_ended_at is None else one.in_flight_ended_at - one.at,
        "slowest_jobs": dict(slowest(ledger, one.at)),
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The document for people."""
    counts = found["verify"]["counts"]
    yield f"seed {found['seed']}, {found['rate']} jobs a second at most"
    if found["saturated"]:
        yield "the load was more than this machine serves: times below hold a backlog of its own; use a lower --rate"
    yield ""
    yield f"jobs {found['jobs']}, lost {found['lost']}, doubly accepted {found['doubly_accepted']}"
    yield f"sums of the sink that differ from a recount: {len(found['counted_wrong_by_the_sink'])}"
    yield f"ended: {', '.join(f'{status} {n}' for status, n in sorted(counts['settled'].items()))}"
    yield f"executed duplicates (work for nothing): {found['executed_duplicates']} of {counts['executions']} executions"
    yield f"attempts beyond the first: {counts['retries']}"
    yield "callbacks: " + ", ".join(f"{number} {what}" for what, number in found["callbacks"].items())
    yield "callers over REST: " + ", ".join(f"{number} {what}" for what, number in found["callers"].items() if what != "wrong")
    yield from (f"    {what}" for what in found["callers"]["wrong"])
    yield f"sent again by the load: {found['sent_again']}; records of a known id (these, and sent on by delay): {counts['resubmitted']}"
    yield f"times a planner took a partition: {counts['epochs']}; events of fenced planners: {counts['stale_events']}"
    yield (
        f"under faults: {found['results_per_second_under_faults']:.0f} results/s, "
        f"longest time without any: {found['longest_silence_seconds']:.1f} s"
    )
    yield ""
    yield from _recovery_table(found)
    if found["together"]:
        yield "a short run looks on for too little time after each fault to tell when the rate is back"
    for crash in found["ended_by_themselves"]:
        yield f"{'after a long absence of the broker, ' if crash['excused'] else 'DEFECT: '}{crash['process']}: {crash['what']}"
    for finding in found["verify"]["findings"]:
        yield f"law {finding['law']}: {finding['count']} x {finding['kind']} ({LAWS[finding['kind']][1]})"
        yield from (f"    {example['place']} {example['job']} {example['detail']}" for example in finding["examples"])


def _recovery_table(found: Mapping[str, Any]) -> Iterator[str]:
    groups = ("no result for", f"rate back at {ENOUGH:.0%}", "in flight ended")
    yield f"{'seconds':<15}{'':>6}" + "".join(f"{group:^26}" for group in groups)
    yield f"{'fault':<15}{'times':>6}" + f"{'p50':>9}{'p99':>8}{'max':>8} " * len(groups) + "not back"
    for row, ended in zip(found["recovery"], found["in_flight_ended"], strict=True):
        times = (row["gap"], row["back"], ended["times"])
        cells = "".join(_times(one) for one in times)
        yield f"{FaultKind(row['kind']).value:<15}{row['faults']:>6}{cells}{row['not_back'] or '':>8}"


def _times(one: Mapping[str, float] | None) -> str:
    return f"{'-':>9}{'-':>8}{'-':>8} " if one is None else f"{one['p50']:>9.1f}{one['p99']:>8.1f}{one['longest']:>8.1f} "
