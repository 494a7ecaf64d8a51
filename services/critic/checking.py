"""Checking: takes critiques out of the windows, fetches what they name by reference, makes the checks, and tells what was found.

One after the other: checks are bounded computations, and whoever reads Kafka has its turn between them. Only fetching waits beside.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from pydantic import ValidationError

from services.critic.handlers import AskedCritique, failed, read_critique, succeeded
from shared.clock import Clock
from shared.contracts.chat import Answer
from shared.contracts.failure import Failure, FailureKind
from shared.contracts.job import Input
from shared.contracts.verdict import CritiqueVerdict
from shared.errors import RecordTooLarge, TooLarge
from shared.kafka.port import Message, Record
from shared.processing.blobs import BlobGone, Blobs
from shared.processing.intake import Intake
from shared.processing.lane import Sent
from shared.processing.outbox import Outbox
from shared.processing.tries import Tries
from shared.processing.window import Window
from shared.telemetry import logs, metrics
from shared.topics import Topics
from shared.validators.checks import critique
from shared.validators.texts import texts_of

log = logs.get(__name__)


class Checking:
    """`spawn`: begins what ends with the service. `wake`: set when records have come or were finished."""

    def __init__(
        self,
        intake: Intake,
        outbox: Outbox,
        bodies: Blobs,
        *,
        topics: Topics,
        clock: Clock,
        wake: asyncio.Event,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._intake, self._outbox, self._bodies, self._topics, self._clock, self._wake = intake, outbox, bodies, topics, clock, wake
        self._spawn = spawn
        self.tries = Tries()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._wake.clear()
            with self.tries.chore("checking"):
                for asked in self._intake.take(self._read):
                    if asked.critique.answer is None and asked.step.input_ref is None:
                        self._judge(asked, asked.step.texts, asked.critique.documents)
                    else:
                        self._spawn(self._fetch_and_judge(asked))
                    await self._clock.sleep(0)
                    if self._intake.suspended:
                        break
                self._intake.relieve()
            await self._wake.wait()

    def _read(self, window: Window, record: Record) -> AskedCritique:
        return read_critique(record, window, self._topics)

    async def _fetch_and_judge(self, asked: AskedCritique) -> None:
        step, given = asked.step, asked.critique
        texts, documents = [*step.texts], [*given.documents]
        try:
            if given.answer is not None:
                texts = [*texts_of(Answer.model_validate_json(await self._bodies.fetch_in_time(step.tenant, given.answer))), *texts]
            if step.input_ref is not None:
                found = texts_of(Input.model_validate_json(await self._bodies.fetch_in_time(step.tenant, step.input_ref.blob)))
                texts, documents = (texts, [*documents, *found]) if texts else (found, documents)
        except (BlobGone, ValidationError):
            self._fail(asked, FailureKind.BLOB_GONE, "what is to be judged is not kept any longer")
        except Exception as error:
            self._defect(asked, error)
        else:
            self._judge(asked, texts, documents)

    def _judge(self, asked: AskedCritique, texts: Any, documents: Any) -> None:
        """A check that fails is a defect, and fails the step: whoever asked for it waits."""
        began = self._clock.monotonic()
        try:
            verdict = critique(texts, asked.critique.checks, documents)
            told = succeeded(asked, verdict, self._clock.monotonic() - began, self._topics)
        except TooLarge as error:
            self._fail(asked, FailureKind.TOO_LARGE, error.message)
            return
        except Exception as error:
            self._defect(asked, error)
            return
        self._count(asked, verdict, self._clock.monotonic() - began)
        self._tell(asked, told)

    def _defect(self, asked: AskedCritique, error: Exception) -> None:
        log.failure("critique_failed", error, job=asked.step.job)
        self._fail(asked, FailureKind.INTERNAL, "the critic failed on it; its log says why")

    def _count(self, asked: AskedCritique, verdict: CritiqueVerdict, seconds: float) -> None:
        metrics.CRITIQUE_SECONDS.observe(seconds)
        for check in asked.critique.checks.asked:
            metrics.CRITIQUES.labels(check, "found" if verdict.counts.get(check) else "passed").inc()

    def _fail(self, asked: AskedCritique, kind: FailureKind, message: str) -> None:
        metrics.CRITIQUES.labels("-", kind.value).inc()
        self._tell(asked, failed(asked, Failure(kind=kind, message=message), self._topics))

    def _tell(self, asked: AskedCritique, message: Message) -> None:
        self._outbox.put(message, partial(self._on_told, asked))

    def _on_told(self, asked: AskedCritique, result: Sent) -> None:
        if isinstance(result, RecordTooLarge):
            self._fail(asked, FailureKind.TOO_LARGE, "the verdict is too large for a record")
        else:
            self._intake.finish(asked.window, asked.offset)
