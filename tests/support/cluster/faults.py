"""What may go wrong in one simulated run: every fault a named option, each run a mix of its own drawn from the seed."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from random import Random
from typing import Any

from infra.lab.simulators.ollama.parameters import FailureMode, Failures

Seconds = tuple[float, float]


@dataclass(frozen=True, slots=True)
class FaultMix:
    """Off by default. Rates are events per second of phase 1 over the whole cluster (a Poisson process); shares are probabilities
    per batch, call or record; ranges are uniform, in seconds. `drawn` says with which probability a run has each at all, and how much.
    """

    kill: float = 0.0
    """Rate: a process of any service dies between two of its steps (SIGKILL), and is started again after `down_seconds`."""
    pause: float = 0.0
    """Rate: a process stops between two of its steps (SIGSTOP) and wakes after `pause_seconds`, often as a zombie."""
    slow: float = 0.0
    """Rate: a process gets hardly any time for three seconds: a slow consumer."""
    stop: float = 0.0
    """Rate: a process is asked to end (SIGTERM), and started again."""
    succeed: float = 0.0
    """Rate: another boot of a worker's node is started while the one before still runs: told to end, or paused for `pause_seconds`."""
    lose_node: float = 0.0
    """Rate: a model server drops everything and is away for `down_seconds`."""
    owner: float = 0.0
    """Rate: the owner of a worker's machine comes for `away_seconds`: the node yields, and gives back after two seconds what still runs."""
    rebalance: float = 0.0
    """Rate: a member is thrown out of its consumer group."""
    away: float = 0.0
    """Rate: the brokers do not answer for `away_seconds`; calls wait, or fail."""
    refuse: float = 0.0
    """Rate: sends to one topic alone fail for `away_seconds`: at once, or each after 20 s."""
    stall: float = 0.0
    """Rate: sends to every topic fail for `away_seconds`, each after 20 s: what is under way is held that long."""
    odd: float = 0.0
    """Rate: a record of any odd kind (`tests/support/odd_records.py`) lies on any partition of any topic that services read."""
    model_error: float = 0.0
    """Share of model calls that fail before the first token, of any kind."""
    broken_stream: float = 0.0
    """Share of model calls whose stream breaks: an error line, a cut connection, an end without `done`, a dead runner."""
    hang: float = 0.0
    """Share of model calls that say nothing for a minute."""
    retry_after_seconds: int = 0
    """Longest Retry-After that comes with a model server's 503; 0: none does."""
    lost: float = 0.0
    """Share of batches that are not written; the sender is told that the fate is unknown."""
    unacknowledged: float = 0.0
    """Share of batches that are written; the sender is told that the fate is unknown."""
    offset_unknown: float = 0.0
    """Share of batches that are written and acknowledged with offset -1."""
    posthumous: float = 0.0
    """Share of batches under way that outlive their killed sender."""
    duplicated: float = 0.0
    """Share of batches of steps, work, outcomes, delays and controls that are written twice."""
    doubly_routed: float = 0.0
    """Share of steps in a mailbox of which another node gets a copy, as from a router that died before it committed."""
    send_seconds: float = 0.0
    """Longest way of a batch to the log: it may land after much has happened."""
    ack_seconds: float = 0.0
    """Longest way of an acknowledgement back."""
    delivery_seconds: float = 0.0
    """Longest time until a batch is seen, drawn for each: partitions overtake one another."""
    call_seconds: float = 0.0
    """Longest duration of a commit or an offset query."""
    lost_cancellations: float = 0.0
    """Share of cancellations that get lost in a consumer's call: who called goes on."""
    store: float = 0.0
    """Share of calls of the cache's store that fail, and that take too long; of entries that are evicted when they are looked for."""
    skew_seconds: float = 0.0
    """Wall clocks of processes differ by up to this, either way; monotonic clocks begin anywhere."""
    day_seconds: float = 86_400.0
    """The brokers delete by age, as their topics say; a day of that passes in so many seconds."""
    node_lost_seconds: float = 60.0
    """A claim is lost when neither its node's credits nor its renewals were heard for so long; beyond the lease: only that counts."""
    no_node_seconds: float = 60.0
    """A step that no node can run fails after this."""
    seconds: float = 12.0
    """Duration of phase 1."""
    arrive_seconds: float | None = None
    """In which the jobs arrive, if not all the while."""
    down_seconds: Seconds = (0.0, 12.0)
    pause_seconds: Seconds = (0.0, 20.0)
    away_seconds: Seconds = (0.0, 10.0)
    workers: int = 3
    jobs: int = 40
    attempts: int = 8
    """Limit of the planner's retry policy."""
    foreign: float = 0.0
    """Share of jobs that are as foreign clients send them, see `workload.FOREIGN`: ids keyed by anything on any topic, names of any
    script, numbers beyond all bounds, needs that no node meets."""
    receivers: float = 0.0
    """Share of deliveries that a callback's receiver does not take, or whose answer is lost; 0: no callback is taken at all."""
    only: tuple[str, ...] = ()
    """Kills, pauses and stops strike only these services; all when empty."""
    tight: bool = False
    """Tiny bounds: few live jobs, short queues, snapshots soon."""

    def changed(self) -> dict[str, Any]:
        """What differs from a run without faults."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) != f.default}

    def failures(self) -> Failures:
        """Of model calls."""
        error = self.model_error / 2
        broken = self.broken_stream / 4
        chances = {
            FailureMode.ERROR_500: error,
            FailureMode.BUSY_503: error,
            FailureMode.HANG: self.hang,
            FailureMode.MID_STREAM_ERROR: broken,
            FailureMode.DISCONNECT: broken,
            FailureMode.TRUNCATED: broken,
            FailureMode.CRASH: broken,
        }
        return Failures(chances={mode: chance for mode, chance in chances.items() if chance}, fail_after_tokens=2)


def drawn(random: Random) -> FaultMix:
    """A mix: each fault is there with probability 1/2, at a strength between nothing and its worst."""

    def some(worst: float) -> float:
        return round(random.uniform(0.0, worst), 3) if random.random() < 0.5 else 0.0

    return FaultMix(
        kill=some(0.6),
        pause=some(0.4),
        slow=some(0.2),
        stop=some(0.15),
        lose_node=some(0.2),
        rebalance=some(0.3),
        away=some(0.1),
        model_error=some(0.2),
        broken_stream=some(0.2),
        hang=some(0.03),
        lost=some(0.03),
        unacknowledged=some(0.03),
        offset_unknown=some(0.03),
        posthumous=some(1.0),
        duplicated=some(0.2),
        doubly_routed=some(0.2),
        send_seconds=some(0.4),
        ack_seconds=some(0.4),
        delivery_seconds=some(0.6),
        call_seconds=some(0.3),
        skew_seconds=some(random.choice((1.0, 120.0))),
        tight=random.random() < 0.3,
        foreign=some(0.5),
        refuse=some(0.2),
        stall=some(0.05),
        odd=some(0.5),
        retry_after_seconds=int(some(8.0)),
        succeed=some(0.2),
        node_lost_seconds=random.choice((3.0, 60.0)),
        receivers=some(0.5),
        store=some(0.3),
        lost_cancellations=some(0.5),
    )


def as_text(mix: FaultMix) -> str:
    """What a failure prints."""
    return ", ".join(f"{name}={value!r}" for name, value in mix.changed().items()) or "no faults"


def all_options() -> dict[str, Any]:
    """Every option with its default."""
    return asdict(FaultMix())
