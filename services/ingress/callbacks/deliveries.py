"""Deliveries: reads ends that are to be told, tells them, and passes a record when its receiver has taken it, or when its next try
(`delays`, as a Delivery that comes back on `callbacks`) or its dead letter is acknowledged. Model: `tests/model/test_deliveries.py`.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial

from services.ingress.callbacks.allowed import rules_of
from services.ingress.callbacks.port import Heard, Post
from services.ingress.callbacks.rendering import body_of, delivery_id, headers_of
from services.ingress.settings import CallbackSettings
from shared.clock import until, within
from shared.contracts import headers
from shared.contracts.delivery import Delivery
from shared.contracts.ids import digest_of
from shared.contracts.result import Result
from shared.errors import InvalidInput, InvalidRecord, TuttiError
from shared.kafka.port import Appended, Message, Record
from shared.processing.delays import build_waiting
from shared.processing.intake import Intake
from shared.processing.lane import Sent
from shared.processing.outbox import Outbox
from shared.processing.tail import IDLE_WAIT_MS
from shared.processing.tries import Tries, message
from shared.processing.window import Window, WindowBounds
from shared.scheduling.host_lanes import HostLanes
from shared.scheduling.retry import RetryPolicy
from shared.service import Environment
from shared.service.processor import Processor
from shared.services import group_of
from shared.tasks import ended
from shared.telemetry import logs, metrics
from shared.tls import client_context
from shared.topics import partition_of

log = logs.get(__name__)

_LOOK_SECONDS = 0.5
_WAITED_SHARE = 0.25
"""Of what a delivery has waited it waits again at most, when its turn has not come."""
_COMMIT_SECONDS = 0.5
_BOUNDS = WindowBounds(open=512, span=8_192, records=2_048)


class _CallbackFailed(TuttiError):
    """The end of the job could not be told."""

    code = "callback_failed"


@dataclass(slots=True, eq=False)
class _Telling:
    """One record on its way. `age_seconds`: of the delivery when it was read here, at `since` (monotonic seconds)."""

    record: Record
    window: Window
    delivery: Delivery
    age_seconds: float
    since: float
    host: str = ""

    @property
    def tenant(self) -> str:
        return self.delivery.result.tenant


class Deliveries:
    """One per instance; all of a cluster are one group."""

    def __init__(self, environment: Environment, settings: CallbackSettings, outbox: Outbox) -> None:
        """Raises ConfigurationError."""
        self._env, self._settings, self._outbox, self.rules = environment, settings, outbox, rules_of(settings)
        self._tls = client_context(settings.ca_file) if settings.ca_file else True
        self.post: Post | None = None
        """Opened with the first delivery."""
        self._clock, self._topics, self._wake = environment.clock, environment.topics, asyncio.Event()
        self._lanes: HostLanes[_Telling] = HostLanes(settings.lanes)
        self._sends: set[asyncio.Task[None]] = set()
        self._retries = RetryPolicy(settings.attempts, settings.first_pause_seconds, settings.longest_pause_seconds)
        self.tries = Tries()
        self.intake = Intake(
            outbox,
            service="ingress",
            bounds=_BOUNDS,
            cap=environment.settings.dead_letter_cap,
            clock=self._clock,
            arrived=self._wake.set,
            dropped=self._drop_lost,
        )

    async def join(self, processor: Processor) -> None:
        """Become a member of the group, and deliver as long as the service lives; nothing where no callback is taken."""
        if not self.rules.any:
            return
        group = group_of("ingress-callbacks", self._topics.settings.prefix)
        topics = (self._topics.results, self._topics.callbacks)
        client = f"tutti-ingress-callbacks-{self._env.instance}"
        intake = await processor.open(self.intake.join(self._env.log, group, client, topics, fetch_max_wait_ms=IDLE_WAIT_MS))
        processor.spawn(intake.run(), intake.run_commits(_COMMIT_SECONDS), self._run())

    async def drain(self, seconds: float) -> None:
        """Begin nothing more, and commit past what is told in time; the rest is told again by another instance."""
        if self.intake.polled_at is None:
            return
        self.intake.suspended = True
        await until(self._clock, lambda: not self._sends, seconds, _LOOK_SECONDS)
        await self.intake.drain()

    async def _run(self) -> None:
        try:
            while True:
                self._wake.clear()
                with self.tries.chore("delivering"):
                    if not self.intake.suspended:
                        self._begin()
                await within(_LOOK_SECONDS, self._wake.wait())
        finally:
            await ended(*self._sends)
            if self.post is not None:
                await self.post.close()

    def _drop_lost(self) -> None:
        self._lanes.take_out(lambda telling: telling.window.lost)

    def _begin(self) -> None:
        overdue = self._clock.monotonic() - self._settings.patience_seconds
        for telling in self._lanes.take_out(lambda telling: telling.since <= overdue):
            self._again(telling, "deferred")
        for taken in () if self._lanes.full else self.intake.take(self._read):
            if taken is not None:
                self._admit(taken)
            if self._lanes.full:
                break
        self.intake.relieve()
        while (ready := self._lanes.next()) is not None:
            send = asyncio.create_task(self._send(ready))
            self._sends.add(send)
            send.add_done_callback(self._sends.discard)

    def _read(self, window: Window, record: Record) -> _Telling | None:
        """None of an end that is told to nobody. Raises InvalidRecord."""
        if record.topic == self._topics.results:
            if headers.find(record.headers, headers.CALLBACK) is None:
                window.finish(record.offset)
                return None
            delivery = Delivery(result=message(record, Result.model_validate_json, "result"))
        else:
            delivery = message(record, Delivery.model_validate_json, "delivery")
        callback = delivery.result.callback
        if callback is None:
            raise InvalidRecord("the result has no callback")
        if delivery.result.status.value not in callback.events:
            window.finish(record.offset)
            return None
        if headers.find(record.headers, headers.REPLAY_OF) is not None:
            delivery = Delivery(result=delivery.result)
        age = delivery.age_seconds + headers.Envelope(record.headers).waited()
        return _Telling(record, window, delivery, age, self._clock.monotonic())

    def _admit(self, telling: _Telling) -> None:
        try:
            parts = self.rules.check(telling.delivery.result.callback, telling.tenant)
        except InvalidInput as error:
            self._bury(telling, error)
            return
        assert parts is not None, "it has a callback"
        telling.host = parts.host
        if not self._lanes.admit(telling):
            self._again(telling, "deferred")

    async def _send(self, telling: _Telling) -> None:
        heard = Heard(False, "an error here")
        try:
            heard = await self._told(telling)
        except Exception as error:
            log.failure("delivery_failed", error, job=telling.delivery.result.job)
        finally:
            self._lanes.done(telling, good=heard.taken)
            self._wake.set()
        if telling.window.lost:
            return  # whoever owns it now tells it again
        if heard.taken:
            metrics.CALLBACKS.labels("delivered").inc()
            self.intake.finish(telling.window, telling.record.offset)
        elif heard.gone:
            self._bury(telling, _CallbackFailed("the receiver wants no more of it: status 410"))
        else:
            self._again(telling, "failed", heard)

    async def _told(self, telling: _Telling) -> Heard:
        result = telling.delivery.result
        assert result.callback is not None, "it was admitted"
        body, keys = body_of(result, self._settings.public_url), self.rules.secrets_of(result.callback, result.tenant)
        began = self._clock.monotonic()
        heard = await self._opened()(result.callback.url, headers_of(delivery_id(result), body, keys, self._clock.wall()), body)
        metrics.CALLBACK_SECONDS.observe(self._clock.monotonic() - began)
        return heard

    def _opened(self) -> Post:
        if self.post is None:
            from services.ingress.callbacks.sending import HttpPost  # with an HTTP client that nobody else needs

            self.post = HttpPost(self._settings, self.rules, self._tls)
        return self.post

    def _again(self, telling: _Telling, what: str, heard: Heard | None = None) -> None:
        """After a while by `delays`, or not at all. Without `heard` it was not tried: that counts as age alone."""
        delivery, waited = telling.delivery, self._clock.monotonic() - telling.since
        attempts, age = delivery.attempts + (heard is not None), telling.age_seconds + max(0.0, waited)
        seconds = self._pause_seconds(delivery.result, max(1, attempts), age, heard)
        if attempts >= self._settings.attempts or age + seconds > self._settings.oldest_seconds:
            why = heard.why if heard is not None else "its turn did not come"
            self._bury(telling, _CallbackFailed(f"given up after {attempts} tries and {age:.0f} s; the last one: {why}"))
            return
        metrics.CALLBACKS.labels(what).inc()
        key, topics = delivery.result.job.encode(), self._topics
        value = Delivery(result=delivery.result, attempts=attempts, age_seconds=age).to_bytes()
        partition, head = partition_of(key, topics.partitions("other")), headers.envelope("delivery")
        again = Message(topics.callbacks, value, key, partition, head, delivery.result.tenant)
        self._outbox.put(build_waiting(topics, again, seconds), partial(self._on_sent, telling))

    def _pause_seconds(self, result: Result, attempts: int, age: float, heard: Heard | None) -> float:
        """Half of it is drawn, by a hash: what failed together does not come back together.

        Who was not tried waits the longer the longer he has waited, so that each comes back a few times, not each few seconds. *Trace:* a
        receiver takes less than ends; all that wait for it travel to `delays` and back each 5 s, the more the longer it goes on, until the
        cluster does nothing else.
        """
        drawn = 0.5 + int(digest_of(f"{delivery_id(result)} {attempts} {age:.1f}".encode())[:8], 16) / 2**33
        wish = _WAITED_SHARE * age * drawn if heard is None else heard.again_seconds or 0.0
        return max(1.0, self._retries.delay_seconds(attempts, drawn), min(wish, self._settings.longest_pause_seconds))

    def _on_sent(self, telling: _Telling, sent: Sent) -> None:
        if isinstance(sent, Appended):
            self.intake.finish(telling.window, telling.record.offset)
        else:
            self._bury(telling, sent)

    def _bury(self, telling: _Telling, error: Exception) -> None:
        """Not as an odd record, of which too many stop a partition. Replayed, it begins anew (`_read`)."""
        metrics.CALLBACKS.labels("dead").inc()
        self._outbox.bury(telling.record, error, partial(self.intake.finish, telling.window, telling.record.offset))
