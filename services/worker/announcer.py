"""Tells the cluster of this node: Node records on change or every minute, credits whenever places change and at least every second."""

from __future__ import annotations

from collections.abc import Callable

from services.worker.credits import fit, share
from services.worker.handlers import AttemptManager
from services.worker.mailbox_reader import MailboxReader
from services.worker.registration import Registration, signature
from services.worker.wiring import WorkerContext, always
from shared.clock import within
from shared.contracts import headers
from shared.contracts.base import at_most
from shared.contracts.credits import Credits
from shared.contracts.node import Node
from shared.errors import ConfigurationError, LogError
from shared.kafka.port import Message, Producer
from shared.placement.parties import Parties
from shared.telemetry import logs, metrics

log = logs.get(__name__)

TURN_SECONDS = 0.2
"""How long one router is first in line when places are fewer than routers."""
SHORTEST_NODE_SECONDS = 1.0
"""Between two Node records; what cannot wait is told at once."""
_CREDITS = headers.envelope("credits")


class Announcer:
    """Writes `credits` and `nodes` for this node. `leave`: another worker has started under this node's id."""

    def __init__(
        self,
        here: WorkerContext,
        attempts: AttemptManager,
        reader: MailboxReader,
        registration: Registration,
        *,
        parties: Parties,
        leave: Callable[[Exception], None],
    ) -> None:
        self.quiet_since: float | None = None
        """When a record that offers nothing was acknowledged, and none that offers places since; monotonic seconds."""
        self._attempts, self._reader, self._registration, self._parties = attempts, reader, registration, parties
        self._settings, self._topics, self._clock, self._leave = here.settings, here.topics, here.clock, leave
        self._known_boots = {here.boot}
        self.acknowledged_at: float | None = None
        """When Kafka last acknowledged a record of credits: the worker's sign that it is there."""
        self._last: Credits | None = None
        self._heeded: set[str] = set()
        """Who was to have a place when it was made, if there are enough."""
        self._gate = attempts.gate
        self._told: Node | None = None
        self._told_until = 0.0
        self._places_changed, self._node_news, self._hurry = here.places_changed, here.node_news, here.hurry

    # Credits

    async def run_credits(self, producer: Producer) -> None:
        """Announce for ever. A record that is lost is replaced by the next one."""
        while True:
            if await within(self._longest_wait(), self._places_changed.wait()):
                await self._gather()
            self._places_changed.clear()
            if self._reader.number is not None:
                await self._send_credits(producer)

    async def _gather(self) -> None:
        """Between a change and the record that tells it: short, or as long as routers can do without, to save records."""
        settings, changed = self._settings, self._places_changed
        await self._clock.sleep(settings.credits_coalesce_seconds)
        if self._can_wait():
            changed.clear()
            changed.matters = lambda: not self._can_wait()
            try:
                await within(self._patience(), changed.wait())
            finally:
                changed.matters = always

    def _patience(self) -> float:
        waiting = any(self._parties.backlogs(self._clock.monotonic()).values())
        return self._settings.credits_waited_for_seconds if waiting else self._settings.credits_relaxed_seconds

    def _can_wait(self) -> bool:
        """Whether routers go on well by the last record: they know the places that there are, or have plenty of them."""
        last, backlogs, places = self._last, self._parties.backlogs(self._clock.monotonic()), self._places()
        if last is None or self._wanting() != self._heeded or self._gate.opens_at > last.sequence:
            return False
        read, offered = sum(self._reader.positions().values()) - sum(last.read.values()), sum(last.offers.values())
        if places < offered - read:
            return False  # they would give more than can start
        if places == offered - read and not (places and any(backlogs.values())):
            return True
        return places >= self._settings.relaxed_places and read * 2 < offered

    def _wanting(self) -> set[str]:
        """Who is to have a place."""
        now = self._clock.monotonic()
        return {*self._parties.backlogs(now), *(() if self._parties.others_wait(now) else self._parties.planners(now))}

    def _longest_wait(self) -> float:
        """A single place that several routers want must visit them all, even while nothing else happens."""
        wanting = sum(backlog > 0 for backlog in self._parties.backlogs(self._clock.monotonic()).values())
        contested = 0 < self._places() < wanting
        return min(TURN_SECONDS, self._settings.credits_seconds) if contested else self._settings.credits_seconds

    def _places(self) -> int:
        return self._attempts.places() if self._registration.reachable and self._reader.waits_for is None else 0

    def record(self) -> Credits:
        """The credits of this moment."""
        now = self._clock.monotonic()
        self._gate.sequence += 1
        attempts = self._attempts
        backlogs, read = self._parties.backlogs(now), self._reader.positions()
        self._heeded = self._wanting()
        offers = share(self._places(), backlogs, int(now / TURN_SECONDS), self._parties.planners(now))
        attempts.slots.round_trip.offered(sum(read.values()), sum(offers.values()), now, waiting=sum(backlogs.values()))
        metrics.SLOTS.set(attempts.slots.limit)
        metrics.SLOTS_BUSY.set(attempts.slots.busy)
        metrics.MAILBOX_WAITING.set(len(attempts.inbox))
        return fit(
            Credits(
                node=attempts.node,
                boot=self._registration.boot,
                incarnation=self._reader.incarnation,
                sequence=self._gate.sequence,
                mailbox=self._reader.number or 0,
                offers=offers,
                read=read,
                told=self._reader.told(),
                running=attempts.slots.busy,
                queued_tokens=at_most(attempts.leases.estimated_tokens),
                resident=self._registration.resident,
                decode_tokens_per_second=self._registration.speeds.node_decode,
                free_seconds=attempts.free_seconds(),
                eager_from=self._gate.opens_at,
            )
        )

    async def _send_credits(self, producer: Producer) -> None:
        record = self.record()
        try:
            await producer.send(Message(self._topics.credits, record.to_bytes(), record.node.encode(), 0, _CREDITS))
        except LogError as error:
            log.warning("credits_lost", code=error.code)
            return
        self.acknowledged_at = self._clock.monotonic()
        self._last = record
        if record.offers:
            self.quiet_since = None
        elif self.quiet_since is None:
            self.quiet_since = self._clock.monotonic()

    # The Node record

    @property
    def told(self) -> Node | None:
        """The newest one that is acknowledged."""
        return self._told

    async def run_node(self, producer: Producer) -> None:
        """Register for ever: what changed at once, everything every minute."""
        while True:
            await within(max(0.0, self._told_until - self._clock.monotonic()), self._node_news.wait())
            self._node_news.clear()
            hurry = self._hurry.is_set()
            self._hurry.clear()
            if self._reader.number is not None and not self._reader.given_back:
                await self._register_news(producer, self._reader.describe(self._reader.number), hurry=hurry)
            await within(SHORTEST_NODE_SECONDS, self._hurry.wait())

    async def _register_news(self, producer: Producer, record: Node, *, hurry: bool) -> None:
        now = self._clock.monotonic()
        if self._reader.superseded:
            return
        if not hurry and now < self._told_until and self._told is not None and signature(record) == signature(self._told):
            return
        if await self._register(producer, record):
            self._told, self._told_until = record, now + self._settings.register_seconds

    def on_own_record(self, node: Node | None) -> None:
        """A later boot of this node id ends this worker; an earlier one that is not quite dead is talked over, and so is a tombstone.

        Earlier is who registered before this one did, wherever that one is by now. *Trace:* it stood still before it had its number, woke
        beside the next boot, and each took the other for an earlier one, whose silence both awaited.
        """
        if node is not None and (node.boot == self._registration.boot or self._reader.incarnation is None):
            self._known_boots.add(node.boot)
        elif node is None or node.boot in self._known_boots:
            if node is None:
                self._reader.boots.left()
            self._told = None
            self._node_news.set()
        elif not node.draining:
            log.error("node_id_taken_over", node=node.id, boot=node.boot)
            self._reader.supersede()
            self._attempts.renew()  # of what a home has voided it is told at once
            self._leave(ConfigurationError(f"another worker with the node id {node.id!r} has started"))

    @property
    def is_quiet(self) -> bool:
        """Routers have had time to hear that no place is left, and nothing came since."""
        if self._reader.number is None:
            return True
        quiet, seconds = self.quiet_since, self._settings.drain_quiet_seconds
        return quiet is not None and self._clock.monotonic() - max(quiet, self._reader.read_at) >= seconds

    async def _register(self, producer: Producer, record: Node) -> bool:
        try:
            await producer.send(Message(self._topics.nodes, record.to_bytes(), record.id.encode(), 0, headers.envelope("node")))
        except LogError as error:
            log.warning("node_not_registered", code=error.code)
            return False
        return True
