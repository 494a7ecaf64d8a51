"""The node as a guest on its owner's machine: it yields, comes back, puts the machine to sleep. What it decides by is in `manners`.

Yielding closes the node for a reason of its own, so an administrator's drain and this never undo each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from services.worker.announcer import Announcer
from services.worker.backends.base import Backend
from services.worker.handlers import AttemptManager
from services.worker.owner import machine
from services.worker.owner.manners import OwnerFacts, Standing, judged, may_sleep
from services.worker.registration import Registration
from services.worker.wiring import WorkerContext
from shared.clock import until
from shared.contracts.node import YIELDS, Node
from shared.telemetry import logs

log = logs.get(__name__)

ASLEEP = "the machine is being put to sleep"
TELLING_SECONDS = 10.0
"""So long routers are told that nothing is offered, and that the node sleeps: else the machine stays awake."""
FALLS_ASLEEP_SECONDS = 60.0
"""A machine that still runs so long after the command does not sleep."""
_JUMP_SECONDS = 2.0
"""The wall clock goes on while a machine sleeps, the monotonic one does not."""


class Yielding:
    """`standing`: whether it yields. `look` and `execute` are the machine; tests hand in others."""

    def __init__(
        self,
        here: WorkerContext,
        attempts: AttemptManager,
        registration: Registration,
        announcer: Announcer,
        *,
        backend: Backend,
        servers: str,
    ) -> None:
        """`servers`: Kafka's, for the interface that a magic packet would come by."""
        self.standing, self.asleep = Standing(), False
        own = machine.Machine()
        self.look: Callable[..., Awaitable[OwnerFacts]] = lambda rules, wall, in_use: asyncio.to_thread(
            own.look, rules, wall, in_use=in_use
        )
        self.execute: Callable[[Sequence[str]], Awaitable[int]] = lambda command: asyncio.to_thread(machine.put_to_sleep, command)
        self._rules, self._sleep, self._clock, self._news = here.settings.owner, here.settings.sleep, here.clock, here.node_news
        self._attempts, self._registration, self._announcer, self._servers = attempts, registration, announcer, servers
        self._unload: Any = getattr(backend, "unload", None)
        self._mac: str | None = None
        self._yields_since = self._busy_at = 0.0
        self._given_back = self._unloaded = False
        self._claimed = 0

    def described(self, record: Node) -> Node:
        """The Node record with what is known here. A node that only yields, or sleeps, is not drained."""
        others = self._attempts.closings.keys() - {ASLEEP, _said(self.standing)}
        return record.model_copy(update={"draining": bool(others), "yields": self.standing.reason, "asleep": self.asleep, "mac": self._mac})

    async def run(self) -> None:
        """Look at the machine for ever, where settings say what for."""
        rules, sleep, clock = self._rules, self._sleep, self._clock
        if sleep.command:
            self._mac = machine.spelled(sleep.mac) or await asyncio.to_thread(machine.mac_towards, self._servers)
            self._busy_at = clock.monotonic()
        while rules.wanted or sleep.command:
            facts = await self._facts()
            self._judge(facts)
            await self._leave_alone()
            leases = self._attempts.leases
            if len(leases) or leases.claimed > self._claimed:
                self._busy_at, self._claimed = clock.monotonic(), leases.claimed
            if may_sleep(self.standing, facts, sleep, clock.monotonic() - self._busy_at):
                await self._fall_asleep()
            await clock.sleep(rules.look_seconds)

    async def _facts(self) -> OwnerFacts:
        """A machine that cannot be read tells nothing."""
        try:
            return await self.look(self._rules, self._clock.wall(), in_use=bool(self._sleep.command))
        except Exception as error:
            log.failure("machine_not_read", error)
            return OwnerFacts()

    def _judge(self, facts: OwnerFacts) -> None:
        before, now = self.standing, self._clock.monotonic()
        after = self.standing = judged(before, facts, self._rules, now, self._clock.wall())
        if after.reason == before.reason:
            return
        log.info("node_yields" if after.reason else "node_works_again", reason=after.reason or before.reason)
        if after.reason:
            self._attempts.close(_said(after))
        if before.reason:
            self._attempts.reopen(_said(before))
        else:
            self._yields_since, self._given_back, self._unloaded = now, False, False

    async def _leave_alone(self) -> None:
        """What runs may end, for a time; then the memory is the owner's."""
        if not self.standing.reason:
            return
        running = len(self._attempts.leases)
        if running and not self._given_back and self._clock.monotonic() - self._yields_since >= self._rules.finish_seconds:
            self._given_back = True
            self._attempts.release_running(_said(self.standing))
        if not running and not self._unloaded and self._rules.unload and self._unload is not None:
            self._unloaded = True
            await self._unload_models()

    async def _unload_models(self) -> None:
        await self._registration.refresh()
        for model in self._registration.resident:
            try:
                await self._unload(model)
            except Exception as error:
                log.failure("model_not_unloaded", error, model=model)
        await self._registration.refresh()
        self._news.set()

    async def _fall_asleep(self) -> None:
        """Tell the cluster, put the machine to sleep, and be there again when it has woken up, or did not sleep."""
        attempts, announcer, clock = self._attempts, self._announcer, self._clock
        announcer.quiet_since = None
        attempts.close(ASLEEP)
        try:
            if not await until(clock, lambda: announcer.is_quiet and not len(attempts.leases), TELLING_SECONDS):
                return
            self.asleep = True
            self._news.set()
            if not await until(clock, lambda: announcer.told is not None and announcer.told.asleep, TELLING_SECONDS):
                return
            before = self._slept_seconds()
            log.info("machine_put_to_sleep", program=self._sleep.command[0])
            if code := await self.execute(self._sleep.command):
                log.warning("machine_not_put_to_sleep", program=self._sleep.command[0], code=code)
                return
            await until(clock, lambda: self._slept_seconds() - before > _JUMP_SECONDS, FALLS_ASLEEP_SECONDS, 1.0)
        finally:
            self.asleep, self._busy_at = False, clock.monotonic()
            attempts.reopen(ASLEEP)

    def _slept_seconds(self) -> float:
        return self._clock.wall() - self._clock.monotonic()


def _said(standing: Standing) -> str:
    return f"{YIELDS}: {standing.reason}"
