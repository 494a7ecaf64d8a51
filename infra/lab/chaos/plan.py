"""Plan: which fault strikes which process, in which order. Pure: everything follows from the seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from random import Random


class FaultKind(StrEnum):
    """What is done. Each has one row in the report."""

    NOTHING = "nothing"
    """For comparison: no fault."""
    KILL = "kill"
    """SIGKILL, and started again at once, as a supervisor would."""
    PAUSE = "pause"
    """SIGSTOP beyond every timeout, then SIGCONT: the process wakes up as a zombie."""
    RESTART = "restart"
    """SIGTERM, the grace period, a new start."""
    BROKER_KILL = "broker_kill"
    """SIGKILL of Kafka, started again at once."""
    BROKER_OUTAGE = "broker_outage"
    """SIGKILL of Kafka, started again after a while."""
    WORKER_LOSS = "worker_loss"
    """SIGKILL of a worker that stays away longer than leases and credits last."""
    NODE_LOSS = "node_loss"
    """SIGKILL of a model node under its running worker; it comes back after a while."""
    ODD_RECORDS = "odd_records"
    """Records of every odd kind on every partition of every topic."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `targets`: names of processes, numbers of simulated nodes; empty for broker and topics. `seconds`: how long it lasts."""

    kind: FaultKind
    targets: tuple[str, ...] = ()
    seconds: float = 0.0

    def __str__(self) -> str:
        about = f" of {', '.join(self.targets)}" if self.targets else ""
        return f"{self.kind.value}{about}" + (f" for {self.seconds:.0f} s" if self.seconds else "")


@dataclass(frozen=True, slots=True)
class Durations:
    """Seconds. A pause must exceed session (10), lease and claim timeouts. `warm_up`: until delayed jobs come back as fast as they go in;
    `watch`: at least so long after a fault is over, before the next one, so that the rate of results can be seen to be back.
    """

    warm_up: float = 30.0
    watch: float = 25.0

    pause: float = 25.0
    outage: float = 20.0
    worker_away: float = 15.0
    node_away: float = 15.0


QUICK = Durations(warm_up=3.0, watch=2.0)
"""Of the short run: what is lost shows, how long recovery takes hardly."""


def cycle(services: Mapping[str, Sequence[str]], nodes: int, durations: Durations, random: Random, *, together: bool) -> list[Fault]:
    """Every fault once, for every service (name → its processes): first nothing, then in random order.

    `together`: what is done to services strikes one process of each at the same moment, which is shorter and harder.
    """
    faults = [
        Fault(FaultKind.ODD_RECORDS),
        Fault(FaultKind.BROKER_KILL),
        Fault(FaultKind.BROKER_OUTAGE, (), durations.outage),
        Fault(FaultKind.WORKER_LOSS, (random.choice(services["worker"]),), durations.worker_away),
        Fault(FaultKind.NODE_LOSS, (str(random.randrange(nodes)),), durations.node_away),
    ]
    for kind, seconds in ((FaultKind.KILL, 0.0), (FaultKind.PAUSE, durations.pause), (FaultKind.RESTART, 0.0)):
        chosen = [random.choice(processes) for processes in services.values()]
        groups = [tuple(chosen)] if together else [(name,) for name in chosen]
        faults += [Fault(kind, group, seconds) for group in groups]
    random.shuffle(faults)
    return [Fault(FaultKind.NOTHING), *faults]
