"""Plan: which fault strikes which process, in which order. Pure: everything follows from the seed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
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
    """SIGKILL of Kafka, of several brokers of one that leads, started again at once."""
    BROKER_OUTAGE = "broker_outage"
    """SIGKILL of Kafka, of several brokers of one that leads, started again after a while."""
    BROKER_RESTART = "broker_restart"
    """SIGTERM of each of several brokers in turn, the next one when all copies are in sync again."""
    INSYNC_KILLED = "insync_killed"
    """SIGKILL of so many brokers at once that `min.insync.replicas` is lost; started again after a while."""
    INSYNC_STOPPED = "insync_stopped"
    """SIGTERM of as many in turn: the one that is left knows that it is alone, and refuses what wants all acknowledgements."""
    WORKER_LOSS = "worker_loss"
    """SIGKILL of a worker that stays away longer than leases and credits last."""
    NODE_LOSS = "node_loss"
    """SIGKILL of a model node under its running worker; it comes back after a while."""
    ODD_RECORDS = "odd_records"
    """Records of every odd kind on every partition of every topic."""
    UPGRADE = "upgrade"
    """Every process of every service in turn: SIGTERM, a new one, the next when that is ready. Callers over REST must not notice."""


OF_SEVERAL_BROKERS = frozenset({FaultKind.BROKER_RESTART, FaultKind.INSYNC_KILLED, FaultKind.INSYNC_STOPPED})
UPGRADED = ("worker", "critic", "cache", "sink", "delay", "router", "planner", "ingress")
"""In this order: what acts on a new field comes before what sends it."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `targets`: names of processes, numbers of simulated nodes, or of brokers where there are several; empty for a broker alone
    and topics. `seconds`: how long it lasts.
    """

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


def cycle(
    services: Mapping[str, Sequence[str]],
    nodes: int,
    durations: Durations,
    random: Random,
    *,
    together: bool,
    brokers: int = 1,
    only: Collection[FaultKind] = (),
) -> list[Fault]:
    """Every fault once, for every service (name → its processes) and every broker: first nothing, then in random order.

    `together`: what is done to services strikes one process of each at the same moment, which is shorter and harder; nothing is upgraded.
    `only`: these kinds, where any are named.
    """
    faults = [
        Fault(FaultKind.ODD_RECORDS),
        Fault(FaultKind.WORKER_LOSS, (random.choice(services["worker"]),), durations.worker_away),
        Fault(FaultKind.NODE_LOSS, (str(random.randrange(nodes)),), durations.node_away),
        *_of_brokers(brokers, durations, random),
    ]
    for kind, seconds in ((FaultKind.KILL, 0.0), (FaultKind.PAUSE, durations.pause), (FaultKind.RESTART, 0.0)):
        chosen = [random.choice(processes) for processes in services.values()]
        groups = [tuple(chosen)] if together else [(name,) for name in chosen]
        faults += [Fault(kind, group, seconds) for group in groups]
    if not together or FaultKind.UPGRADE in only:
        ordered = sorted(services, key=UPGRADED.index)
        faults.append(Fault(FaultKind.UPGRADE, tuple(name for service in ordered for name in services[service])))
    random.shuffle(faults)
    return [fault for fault in (Fault(FaultKind.NOTHING), *faults) if fault.kind in only or not only]


def _of_brokers(count: int, durations: Durations, random: Random) -> list[Fault]:
    if count == 1:
        return [Fault(FaultKind.BROKER_KILL), Fault(FaultKind.BROKER_OUTAGE, (), durations.outage)]
    names = [str(number) for number in range(1, count + 1)]
    most = names[:-1]  # all but one hold what is acknowledged, so with all but one away nothing is
    random.shuffle(names)
    return [
        *(Fault(FaultKind.BROKER_KILL, (name,)) for name in names),
        Fault(FaultKind.BROKER_OUTAGE, (random.choice(names),), durations.outage),
        Fault(FaultKind.BROKER_RESTART, tuple(names)),
        Fault(FaultKind.INSYNC_KILLED, tuple(random.sample(names, len(most))), durations.outage),
        Fault(FaultKind.INSYNC_STOPPED, tuple(random.sample(names, len(most))), durations.outage),
    ]
