"""Inputs: bodies above the inline bound that come by Kafka go into blobs before history knows their jobs, and are written again by age.

    record of jobs.* ──► chunks acknowledged ──► the job by reference, at its home ──► the record counts as done

So the fold never waits for a body, nor reads one. After a crash in between the job is sent on twice: that is a repeat like any other.

A live job's blob that is half as old as retention allows is written again, and history says where (InputMoved).
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from math import inf
from typing import Any

from services.planner.deciding.admission import JobInput
from services.planner.intake.canonical import sent_on
from services.planner.round import Round
from services.planner.shard.wiring import Wiring
from services.planner.state.book import Book
from shared.contracts import headers, ids
from shared.contracts.base import DAY_SECONDS, PriorityClass
from shared.contracts.event import InputMoved
from shared.contracts.ids import Maker
from shared.contracts.job import HeldJob, Input, InputRef
from shared.errors import InvalidInput
from shared.inputs import held
from shared.kafka.port import Message, Record
from shared.processing.blobs import BlobGone
from shared.telemetry import logs
from shared.topics import BLOB_DAYS

log = logs.get(__name__)

STORING = 8
"""Bodies under way at once; each has at most a record's bytes."""
_LOOK_SECONDS = 3_600.0
_OLDEST_SECONDS = BLOB_DAYS / 2 * DAY_SECONDS

Refuse = Callable[[Record, InvalidInput, PriorityClass, str, Callable[[], None]], None]


class Inputs:
    """Of one book; thrown away with it. `refuse` is called with the record, why, its class, the job's id and its release; `wake` where
    there is room again; `come_back` with what the next round is to fold.
    """

    def __init__(
        self,
        wiring: Wiring,
        book: Book,
        refuse: Refuse,
        wake: Callable[[], None],
        come_back: Callable[[Callable[[Round], None]], None],
    ) -> None:
        self._wiring, self._book, self._refuse, self._wake, self._come_back = wiring, book, refuse, wake, come_back
        self._storing = 0
        self._renewing = False
        self._looked_at = -inf

    @property
    def full(self) -> bool:
        """No further large body is taken at present."""
        return self._storing >= STORING

    def send_on(self, record: Record, given: JobInput, body: Input, release: Callable[[], None]) -> None:
        """Keep its input, then send the job to its home by reference."""
        self._storing += 1
        self._wiring.spawn(self._guarded(self._send_on(record, given, body, release), partial(self._refused, record, given, release)))

    async def _send_on(self, record: Record, given: JobInput, body: Input, release: Callable[[], None]) -> None:
        try:
            blob = await self._wiring.blobs.store_in_time(given.job.tenant, body.to_bytes())
            homes = self._wiring.topics.settings.home_partitions
            self._wiring.outbox.post([by_reference(record, given, held(given.job, body, blob), homes)], release)
        except InvalidInput as error:
            self._refuse(record, error, given.priority_class, given.id, release)
        finally:
            self._storing -= 1
            self._wake()

    def _refused(self, record: Record, given: JobInput, release: Callable[[], None]) -> None:
        self._refuse(
            record,
            InvalidInput("The job's input could not be written to where large ones are kept.", code="internal"),
            given.priority_class,
            given.id,
            release,
        )

    def look(self, round_: Round) -> None:
        """For those that grow old, now and then."""
        if round_.now - self._looked_at >= _LOOK_SECONDS:
            self._looked_at = round_.now
            self._look(round_.wall)

    def _look(self, wall: float) -> None:
        if self._renewing:
            return
        old = [
            (job.id, asked.tenant, asked.input_ref)
            for job in self._book.jobs.values()
            if job.settled is None and isinstance(asked := job.accepted.request, HeldJob) and asked.input_ref is not None
            if wall - asked.input_ref.blob.written_at > _OLDEST_SECONDS
        ]
        if old:
            self._renewing = True
            self._wiring.spawn(self._renew(old))

    async def _renew(self, old: list[tuple[str, str, InputRef]]) -> None:
        """One after the other. What cannot be written now is looked at again; there are days left."""
        try:
            for job, tenant, lies in old:
                await self._guarded(self._renew_one(job, tenant, lies), lambda: None)
        finally:
            self._renewing = False

    async def _renew_one(self, job: str, tenant: str, lies: InputRef) -> None:
        try:
            blob = await self._wiring.blobs.renew(tenant, lies.blob)
        except BlobGone:  # the worker that asks for it fails the step
            log.warning("input_gone", job=job)
        else:
            self._come_back(partial(self._moved, job, lies.model_copy(update={"blob": blob})))

    def _moved(self, job_id: str, lies: InputRef, round_: Round) -> None:
        """It lies there now."""
        job = self._book.jobs.get(job_id)
        if job is not None and job.settled is None:
            round_.emit(job, InputMoved(**round_.about(job_id), input_ref=lies))

    async def _guarded(self, work: Coroutine[Any, Any, None], otherwise: Callable[[], None]) -> None:
        """What goes wrong with one body is that one's affair."""
        try:
            await work
        except Exception as error:
            log.failure("input_not_kept", error)
            otherwise()


def by_reference(record: Record, given: JobInput, job: HeldJob, homes: int) -> Message:
    """The record that says the same by reference, for the home of the job's id. Raises TooLarge where its headers leave it no room."""
    public = ids.public(given.id)
    replaced = {headers.TYPE, headers.VERSION_HEADER, headers.REQUEST_DIGEST, headers.FORWARDED_FROM}
    said = tuple(header for header in headers.read_ones(record.headers) if header[0] not in replaced)
    made = () if given.job.id is not None else ((headers.MADE_BY, Maker.PLANNER.value.encode()),)
    ours = (*headers.envelope(headers.HELD_JOB), (headers.REQUEST_DIGEST, given.digest.encode()))
    body = job.model_copy(update={"id": public}).record()
    return sent_on(record, ids.home_of(given.id, homes), public.encode(), body, (*ours, *said, *made), tenant=given.job.tenant)
