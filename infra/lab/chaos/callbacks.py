"""Callbacks of a chaos run: a receiver that fails often, and who was told of which job's end.

Afterwards each end that somebody was to be told of was taken, or lies in the dead letters.
"""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from random import Random

from aiohttp import web

from infra.lab.chaos.jobs import NEVER, TENANTS, JobMix, Ledger
from shared.clock import Clock
from shared.contracts.dead_letter import DeadLetter
from shared.kafka.port import Log, TopicPartition
from shared.topics import Topics

FAILS = 0.4
"""Of its answers: half of these before it takes the delivery, half when it has."""
_SLOW_SECONDS = 3.0
_LOOK_SECONDS = 0.5
_QUIET_SECONDS = 1.0


def environment(directory: Path, port: int) -> dict[str, str]:
    """Of the ingresses: this receiver, on this machine, and pauses that end within a run."""
    file = directory / "secrets.json"
    secret = "whsec_" + b64encode(b"a secret of a chaos run, 32 bytes").decode()
    file.write_text(json.dumps({tenant: {"default": secret} for tenant in TENANTS}))
    settings = {
        "SECRETS_FILE": str(file), "HOSTS": "localhost", "NETWORKS": "127.0.0.0/8, ::1/128", "HTTP": "true", "PORTS": f"[{port}]",
        "TIMEOUT_SECONDS": "2", "ATTEMPTS": "8", "FIRST_PAUSE_SECONDS": "1", "LONGEST_PAUSE_SECONDS": "5",
    }  # fmt: skip
    return {f"TUTTI_INGRESS__CALLBACKS__{name}": value for name, value in settings.items()}


class Receiver:
    """Fails as drawn until `well`."""

    def __init__(self, seed: int, port: int, clock: Clock) -> None:
        self._random, self._port, self._clock = Random(seed), port, clock
        self.well = False
        self.taken: set[str] = set()
        self.repeats = 0

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[Receiver]:
        """On its port."""
        application = web.Application(client_max_size=4 * 1024 * 1024)
        application.router.add_post("/hook", self._on_hook)
        runner = web.AppRunner(application, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self._port).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _on_hook(self, request: web.Request) -> web.Response:
        job, draw = str(json.loads(await request.read())["data"]["job"]), 1.0 if self.well else self._random.random()
        if draw < FAILS / 2:
            return web.Response(status=self._random.choice((429, 500, 503)))
        self.repeats += job in self.taken
        self.taken.add(job)
        if draw < FAILS:
            await self._clock.sleep(_SLOW_SECONDS)
        return web.Response(status=204)

    async def told(self, ledger: Ledger, mix: JobMix, log: Log, topics: Topics, patience: float) -> list[str]:
        """Jobs that ended, with a callback that was neither taken nor given up in so many seconds."""
        self.well = True
        until = self._clock.monotonic() + patience
        while untold := self._untold(ledger, mix):
            if self._clock.monotonic() >= until:
                buried = await _given_up(log, topics)
                return [job for job in untold if job not in buried]
            await self._clock.sleep(_LOOK_SECONDS)
        return []

    def _untold(self, ledger: Ledger, mix: JobMix) -> list[str]:
        ended = (mix.id_of(number) for number, at in enumerate(ledger.ended) if at != NEVER and mix.is_called(number))
        return [job for job in ended if job not in self.taken]


async def _given_up(log: Log, topics: Topics) -> set[str]:
    consumer = await log.consumer(client_id="chaos-letters", reset="earliest")
    consumer.assign([TopicPartition(topics.dead_letters, number) for number in range(topics.partitions("other"))])
    found = set()
    try:
        while batches := await consumer.poll(timeout_seconds=_QUIET_SECONDS):
            for record in (record for records in batches.values() for record in records):
                with contextlib.suppress(ValueError):
                    letter = DeadLetter.model_validate_json(record.value or b"")
                    if letter.service == "ingress":
                        found.add((letter.key or b"").decode("utf-8", "replace").rpartition("/")[2])
    finally:
        await consumer.close()
    return found


def shown(called: int, receiver: Receiver) -> Mapping[str, int]:
    """For the report."""
    return {"asked": called, "taken": len(receiver.taken), "repeats": receiver.repeats}
