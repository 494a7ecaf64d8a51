"""Report of a run: lines for the terminal, a document for JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any

from infra.chaos.figures import longest_silence, recoveries, results_per_second, slowest, timeline
from infra.chaos.plan import FaultKind
from infra.chaos.run import Options, Outcome
from infra.chaos.stage import COPIES, SLOTS, WORKERS
from infra.verify.laws import LAWS

FORMAT = 1
SIMULATED = "model nodes are simulated; broker, services, processes, signals and network are real"


def document(facts: Mapping[str, Any], options: Options, outcome: Outcome) -> dict[str, Any]:
    """Everything, ready for JSON."""
    start = outcome.struck[0].at if outcome.struck else outcome.started_at
    end = outcome.struck[-1].over_at if outcome.struck else outcome.drained_at
    ledger = outcome.ledger
    return {
        "format": FORMAT,
        "simulated": SIMULATED,
        "machine": dict(facts),
        "options": asdict(options),
        "cluster": {**COPIES, "ingress": 1, "worker": WORKERS, "slots_per_worker": SLOTS, "brokers": 1},
        "jobs": ledger.count,
        "kept": outcome.kept,
        "lost": max(outcome.report.lost, outcome.unanswered),
        "unanswered": outcome.unanswered,
        "doubly_accepted": outcome.report.doubly_accepted,
        "executed_duplicates": outcome.report.counts.wasted_executions,
        "sent_again": ledger.sent_again,
        "repeated_results": ledger.repeated_results,
        "load_seconds": outcome.load_seconds,
        "results_per_second_under_faults": results_per_second(ledger, start, end),
        "longest_silence_seconds": longest_silence(ledger, start, end),
        "results_per_second_in_steps_of_5_s": timeline(ledger, outcome.started_at),
        "recovery": [asdict(recovery) for recovery in recoveries(ledger, outcome.struck)],
        "faults": [
            {
                "kind": one.fault.kind.value,
                "targets": list(one.fault.targets),
                "at": one.at - outcome.started_at,
                "lasted": one.over_at - one.at,
                "recovered_after": None if one.recovered_at is None else one.recovered_at - one.at,
                "slowest_jobs": dict(slowest(ledger, one.at)),
            }
            for one in outcome.struck
        ],
        "ended_by_themselves": outcome.crashes,
        "verify": outcome.report.as_json(),
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The document for people."""
    machine, counts = found["machine"], found["verify"]["counts"]
    yield f"{machine['cpu']}, {machine['cores']} cores, commit {machine['commit']}, seed {found['options']['seed']}"
    yield found["simulated"]
    yield ""
    yield f"jobs {found['jobs']}, lost {found['lost']}, doubly accepted {found['doubly_accepted']}"
    yield f"ended: {', '.join(f'{status} {n}' for status, n in sorted(counts['settled'].items()))}"
    yield f"executed duplicates (work for nothing): {found['executed_duplicates']} of {counts['executions']} executions"
    yield f"attempts beyond the first: {counts['retries']}"
    yield f"sent again by the load: {found['sent_again']}; records of a known id (these, and sent on by delay): {counts['resubmitted']}"
    yield f"times a planner took a partition: {counts['epochs']}; events of fenced planners: {counts['stale_events']}"
    yield (
        f"under faults: {found['results_per_second_under_faults']:.0f} results/s, "
        f"longest time without any: {found['longest_silence_seconds']:.1f} s"
    )
    yield ""
    yield f"{'recovery, seconds':<20}{'faults':>8}{'in flight':>11}{'p50':>8}{'p99':>8}{'max':>8}"
    for row in found["recovery"]:
        yield (
            f"{FaultKind(row['kind']).value:<20}{row['faults']:>8}{row['in_flight']:>11}"
            f"{row['p50']:>8.1f}{row['p99']:>8.1f}{row['longest']:>8.1f}"
        )
    for crash in found["ended_by_themselves"]:
        yield f"ended by itself: {crash}"
    for finding in found["verify"]["findings"]:
        yield f"law {finding['law']}: {finding['count']} x {finding['kind']} ({LAWS[finding['kind']][1]})"
        yield from (f"    {example['place']} {example['job']} {example['detail']}" for example in finding["examples"])
