"""How a worker leaves: nothing is offered, running calls end or are given back, the mailbox is left empty, and the registry clean."""

from __future__ import annotations

from services.worker.announcer import Announcer
from services.worker.handlers import AttemptManager
from services.worker.mailbox_reader import MailboxReader
from shared.clock import Clock, until, within
from shared.processing.outbox import Outbox
from shared.telemetry import logs

log = logs.get(__name__)

DRAIN_SHARE, TELLING_SHARE = 0.7, 0.9
"""Parts of the grace period: running calls may still end; the cluster may still be told."""
STOPPING = "the worker is stopping"


async def leave(
    attempts: AttemptManager, announcer: Announcer, reader: MailboxReader, *, outbox: Outbox, clock: Clock, grace_seconds: float
) -> None:
    """Within the grace period, also of what did not end in it."""
    announcer.quiet_since = None
    attempts.close(STOPPING)

    async def in_order() -> None:
        await until(clock, lambda: not len(attempts.leases), grace_seconds * DRAIN_SHARE)
        attempts.release_running(STOPPING)
        await until(clock, lambda: not len(attempts.leases) and announcer.is_quiet, grace_seconds)
        await outbox.idle(grace_seconds)
        await reader.give_back()

    if not await within(grace_seconds * TELLING_SHARE, in_order()):
        log.warning("drain_incomplete", attempts=len(attempts.leases))
