"""Eager: writes steps into mailboxes without a router, where no router has a backlog and a fitting node has offered this planner a place.

One for all homes of the process, as a router is: they share its ledger. What else must hold is said in decision 0029. A step for which it
has no place goes the way of all steps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Coroutine, Iterator, Mapping
from functools import lru_cache
from typing import Any

from prometheus_client import Counter

from services.planner.draft import Given
from services.planner.state.unclaimed import Unclaimed
from shared.clock import Clock
from shared.contracts.agents import RatedModel
from shared.contracts.base import PriorityClass
from shared.contracts.credits import PlannerPresence
from shared.contracts.step import Step
from shared.errors import LogError
from shared.kafka.port import Appended, Log, Producer
from shared.model_names import canonical
from shared.placement.choosing import Chosen, Placement, ask_of
from shared.placement.demand import demand_of
from shared.placement.facts import Facts
from shared.placement.filters import Unplaceable, seen_models
from shared.placement.ledger import CreditLedger
from shared.placement.parties import Parties, presence
from shared.processing.lane import Sent
from shared.processing.node_table import NodeTable
from shared.processing.outbox import Outbox
from shared.processing.tail import Handle
from shared.service.processor import every
from shared.telemetry import logs, metrics
from shared.topics import Topics

log = logs.get(__name__)

PRESENCE_SECONDS = 1.0
SWEEP_SECONDS = 0.25
"""How often lost nodes, and records that wait too long for a mailbox, are looked for."""
LOST_SECONDS = 5.0
"""Without credits for so long a node, without presence a router is lost."""
FORGOTTEN_SECONDS = 300.0
DIGEST_SECONDS = 1.0
PATIENCE_SECONDS = 5.0
"""A mailbox that takes nothing for so long loses its steps to the routers. One that was written nevertheless may be run twice."""


class Eager:
    """Implements `state.unclaimed.Mailboxes`."""

    def __init__(self, log_: Log, topics: Topics, clock: Clock, instance: str, also: Handle) -> None:
        """It has places once its `parts` run. `also`: is given the records of `credits` as they come."""
        self._topics, self._clock = topics, clock
        self.party = f"{instance}-planner"
        self._parties = Parties(LOST_SECONDS)
        self._placement = Placement(
            NodeTable(FORGOTTEN_SECONDS), CreditLedger(self.party, lost_seconds=LOST_SECONDS, forgotten_seconds=FORGOTTEN_SECONDS)
        )
        self.facts = Facts(
            log_,
            topics,
            self._placement,
            service="planner",
            client_id=f"{self.party}-facts",
            clock=clock,
            changed=self._on_facts,
            parties=self._parties,
            also=also,
        )
        self._homes: dict[int, Unclaimed] = {}
        self._handed: defaultdict[int, list[Given]] = defaultdict(list)
        """By home: places that are used up, for steps that are not sent yet."""
        self._looked_at = 0
        self._digests: defaultdict[str, set[str]] = defaultdict(set)
        """By model, of all nodes."""
        self._digests_of, self._digests_until = -1, 0.0
        self._models: Mapping[str, RatedModel] = {}
        self._models_until = 0.0
        self._producer: Producer | None = None

    # Homes

    def enter(self, home: int, unclaimed: Unclaimed) -> None:
        """The home has a new book."""
        self._homes[home] = unclaimed

    def leave(self, home: int) -> None:
        """Its book is thrown away."""
        self._homes.pop(home, None)
        self.take_back(home)

    def give(self, step: Step) -> Given | None:
        now, placement = self._clock.monotonic(), self._placement
        if not self.facts.hears(now) or self._parties.others_wait(now) or self._passes(step):
            return None
        placement.begin_round(now)
        chosen = placement.choose(demand_of(step), ask_of(step))
        if not isinstance(chosen, Chosen) or not chosen.resident:
            return None
        use = placement.ledger.take(chosen.account, step.capability)
        given = Given(chosen.node, chosen.account.mailbox, chosen.model, chosen.why(), use)
        self._handed[step.home].append(given)
        return given

    def room_elsewhere(self, step: Step) -> bool:
        """None has while steps wait for places."""
        now, found = self._clock.monotonic(), self._placement.candidates(demand_of(step))
        if not self.facts.hears(now) or self._parties.others_wait(now) or isinstance(found, Unplaceable):
            return False
        return any(node.account.running < node.slots and node.resident and not node.avoided for node in found)

    def digest(self, model: str) -> str | None:
        """As of a second ago at most: nodes announce themselves often, and hardly ever another file."""
        now, table = self._clock.monotonic(), self._placement.table
        if table.version != self._digests_of and now >= self._digests_until:
            self._digests_of, self._digests_until = table.version, now + DIGEST_SECONDS
            self._digests.clear()
            for node in table:
                for there in node.models:
                    self._digests[canonical(there.name)].add(there.digest)
        found = self._digests.get(canonical(model), ())
        return next(iter(found)) if len(found) == 1 else None

    def models(self) -> Mapping[str, RatedModel]:
        """As of a second ago at most."""
        now = self._clock.monotonic()
        if now >= self._models_until:
            self._models_until = now + DIGEST_SECONDS
            self._models = seen_models(self._placement.nodes()) if self.facts.hears(now) else {}
        return self._models

    def _passes(self, step: Step) -> bool:
        """Whether a step of this planner that waits would be passed, in any home."""
        if self._looked_at != self._placement.ledger.version:
            self._looked_at = self._placement.ledger.version
            for unclaimed in self._homes.values():
                unclaimed.doubt()
        return any(unclaimed.waits(step.capability) for unclaimed in self._homes.values())

    def sending(self, home: int, given: Given) -> None:
        """Its step is on its way."""
        self._handed[home].remove(given)

    def take_back(self, home: int) -> None:
        """Places whose steps are not sent after all."""
        for given in self._handed.pop(home, ()):
            self._placement.ledger.failed(given.use)

    def ended(self, given: Given, step: Step, result: Sent) -> bool:
        """Whether the step lies in the mailbox, as Kafka says."""
        if isinstance(result, Appended):
            _given(step.priority_class).inc()
            self._placement.ledger.acknowledged(given.use, result.offset)
            return True
        self._placement.ledger.failed(given.use)
        return False

    # The cluster

    def _on_facts(self, afresh: bool) -> None:
        if afresh:
            self._placement.refresh()

    def _sweep(self) -> None:
        """What only time brings: nodes that are lost."""
        now = self._clock.monotonic()
        if self.facts.hears(now) and self._placement.ledger.expire(now):
            self._placement.refresh()
        self._placement.table.expire(now)

    def parts(self, producer: Producer, outbox: Outbox) -> Iterator[Coroutine[Any, Any, None]]:
        """What is to run for ever. Without it there are no places here."""
        self._producer = producer
        yield self.facts.tail.run()
        yield every(self._clock, PRESENCE_SECONDS, self.announce)
        yield every(self._clock, SWEEP_SECONDS, self._sweep)
        yield every(self._clock, SWEEP_SECONDS, outbox.expire)

    async def announce(self, *, leaving: bool = False) -> None:
        """That this planner may be offered places, or no longer."""
        if self._producer is None:
            return
        said = presence(PlannerPresence(planner=self.party, leaving=leaving), self._topics)
        for error in await self._producer.send_many(said):
            if isinstance(error, LogError):
                log.warning("presence_not_sent", code=error.code, message=error.message)


@lru_cache(maxsize=8)
def _given(priority_class: PriorityClass) -> Counter:
    return metrics.STEPS_GIVEN.labels(priority_class.value)
