"""Chaos: the report tells of every kind of fault, of crashes, and of a load that was too much."""

from __future__ import annotations

import json

from infra.lab.chaos import report
from infra.lab.chaos.crashes import Absence, Crash
from infra.lab.chaos.figures import Struck
from infra.lab.chaos.jobs import Ledger
from infra.lab.chaos.plan import Fault, FaultKind
from infra.lab.chaos.run import Options, Outcome
from infra.verify.report import Report

RATE = 10.0


def outcome(*crashes: Crash, ended: bool = True) -> Outcome:
    """Ten jobs a second for a minute, each ended at once; nothing comes from 20 to 26 s, when a router is dead."""
    ledger = Ledger()
    for tenth in range(600):
        moment = tenth / RATE
        number = ledger.on_sent(moment)
        ledger.on_acknowledged(number, moment)
        if ended:
            ledger.on_result(number, 26.0 if 20.0 < moment < 26.0 else moment)
    struck = [
        Struck(Fault(FaultKind.NOTHING), 10.0, 10.0, 20.0, 10.1),
        Struck(Fault(FaultKind.KILL, ("router",)), 20.0, 20.0, 59.0, 26.0),
        Struck(Fault(FaultKind.PAUSE, ("delay",), 0.5), 59.0, 59.5, 60.0, None),
    ]
    return Outcome(ledger, struck, Report(), list(crashes), [Absence(0.0, 100.0)], 60.0, 0.0, 60.0)


def written(found: Outcome) -> tuple[str, dict[str, object]]:
    """The lines, and the JSON as it is read back."""
    document = report.document(Options(600, 1, RATE), found)
    return "\n".join(report.lines(document)), json.loads(json.dumps(document))


def test_every_kind_of_fault_has_its_times() -> None:
    """No result for 6 s, the rate back after 6 s; JSON holds every fault's seconds."""
    text, document = written(outcome())
    rows = {line.split()[0]: line.split()[1:8] for line in text.splitlines() if line.startswith(("nothing", "kill", "pause"))}
    assert rows["nothing"] == ["1", "0.1", "0.1", "0.1", "0.0", "0.0", "0.0"]
    assert rows["kill"] == ["1", "6.0", "6.0", "6.0", "6.0", "6.0", "6.0"]
    assert isinstance(faults := document["faults"], list)
    assert [fault["back_after"] for fault in faults] == [0.0, 6.0, 0.0]
    assert faults[1]["results_each_second"][:7] == [1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 69.0]
    assert {"jobs", "recovery", "in_flight_ended"} <= set(document)
    assert document["saturated"] is False
    assert "too much" not in text


def test_crashes_are_named_with_what_excuses_them() -> None:
    """One while the broker had been away for long, one long after it was back."""
    text, document = written(outcome(Crash("router", 90.0, "ended by itself: gave up"), Crash("delay", 500.0, "ended by itself")))
    assert "after a long absence of the broker, router: ended by itself: gave up" in text
    assert "DEFECT: delay: ended by itself" in text
    assert isinstance(crashes := document["ended_by_themselves"], list)
    assert [crash["excused"] for crash in crashes] == [True, False]


def test_a_load_that_is_too_much_is_said() -> None:
    """More jobs in flight than are sent in ten seconds."""
    text, document = written(outcome(ended=False))
    assert document["saturated"] is True
    assert "more than this machine serves" in text
