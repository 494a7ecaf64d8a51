"""StatusStore: job status that outlives this process, 24 h. The Redis adapter; without one, status lives in the journal alone.

`save` writes the statuses of one home partition together with the reader's position in `job-events`, in one script. Several instances
read the same events: whoever is behind the stored position writes nothing, so nothing is applied twice and no newer view is overwritten.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from pydantic import Field, TypeAdapter, ValidationError

from services.ingress.settings import IngressSettings
from services.ingress.status.status import JobStatus
from shared.redis_client import ANYTHING, MANY, NUMBER, SCANNED, RedisStore, exactly

_SAVE = """
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored and tonumber(string.match(stored, '^%d+')) >= tonumber(ARGV[2]) then return 0 end
for i = 2, #KEYS do redis.call('SET', KEYS[i], ARGV[i + 3], 'EX', ARGV[4]) end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2] .. ' ' .. ARGV[3])
return 1
"""
"""KEYS: positions, jobs...; ARGV: partition, next offset, epoch, ttl, statuses..."""


_POSITIONS = TypeAdapter(dict[int, Annotated[str, Field(pattern=r"^[0-9]{1,19} -?[0-9]{1,19}$")]])
_SCANNED = 500
"""Keys that one call looks at."""


class Position(NamedTuple):
    """Where reading goes on, and the epoch in force there (-1: unknown)."""

    offset: int
    epoch: int = -1


class StatusStore(RedisStore):
    """Every method raises StoreAway, within the timeout.

    Keys: `tutti:<prefix>job:<id>` → status JSON; `tutti:<prefix>job-events` → hash partition → "offset epoch";
    `tutti:<prefix>claim:<id>` → digest of the request.
    """

    def __init__(self, url: str, *, prefix: str, ttl_seconds: int, connections: int, timeout_seconds: float) -> None:
        super().__init__(url, connections=connections, timeout_seconds=timeout_seconds)
        self._ttl = ttl_seconds
        self._positions_key = f"tutti:{prefix}job-events"
        self._job_prefix = f"tutti:{prefix}job:"
        self._claim_prefix = f"tutti:{prefix}claim:"
        self._script = self.redis.register_script(_SAVE)

    async def load(self, job: str) -> JobStatus | None:
        """The stored status, or None."""
        return (await self.load_many([job])).get(job)

    async def load_many(self, jobs: Sequence[str]) -> dict[str, JobStatus]:
        """Those of `jobs` that are stored."""
        if not jobs:
            return {}
        values = exactly(await self.asked(self.redis.mget([self._job_prefix + job for job in jobs]), MANY), len(jobs))
        return {job: status for job, value in zip(jobs, values, strict=True) if (status := _decode(value)) is not None}

    async def positions(self) -> Mapping[int, Position]:
        """By partition."""
        found = await self.asked(self.redis.hgetall(self._positions_key), _POSITIONS)
        return {partition: Position(*map(int, value.split())) for partition, value in found.items()}

    async def save(self, partition: int, position: Position, statuses: Sequence[JobStatus]) -> bool:
        """Write all or nothing; false when the store is already at or past `position`."""
        keys = [self._positions_key, *(self._job_prefix + status.id for status in statuses)]
        arguments: list[Any] = [partition, position.offset, position.epoch, self._ttl, *(status.stored() for status in statuses)]
        return await self.asked(self._script(keys=keys, args=arguments), NUMBER) == 1

    async def remember(self, statuses: Sequence[JobStatus]) -> None:
        """Jobs that were just queued; never overwrites what is there."""
        pipeline = self.redis.pipeline(transaction=False)
        for status in statuses:
            pipeline.set(self._job_prefix + status.id, status.stored(), nx=True, ex=self._ttl)
        await self.asked(pipeline.execute(), ANYTHING)

    async def claim(self, job: str, digest: str) -> bool | None:
        """Note that `job` stands for the request with this digest. True: it is new. False: the same was noted before. None: another was."""
        key = self._claim_prefix + job
        pipeline = self.redis.pipeline(transaction=False)
        pipeline.set(key, digest, nx=True, ex=self._ttl)
        pipeline.get(key)
        first, noted = await self.asked(pipeline.execute(), MANY)
        if first:
            return True
        return False if noted is None or noted == digest.encode() else None

    async def erase(self, tenant: str, before: float) -> int:
        """Forget the tenant's jobs that were accepted before this instant (or nobody knows when); how many. Repeatable."""
        gone, cursor = 0, 0
        while True:
            cursor, keys = await self.asked(self.redis.scan(cursor, match=f"{self._job_prefix}*", count=_SCANNED), SCANNED)
            values = exactly(await self.asked(self.redis.mget(keys), MANY), len(keys)) if keys else []
            theirs = [key for key, value in zip(keys, values, strict=True) if _goes(_decode(value), tenant, before)]
            if theirs:
                gone += await self.asked(self.redis.delete(*theirs), NUMBER)
            if not cursor:
                return gone


def _goes(status: JobStatus | None, tenant: str, before: float) -> bool:
    return status is not None and status.owner == tenant and (status.accepted_at or status.submitted_at or 0.0) < before


def _decode(value: bytes | None) -> JobStatus | None:
    """None for what another version wrote: the events are the truth."""
    if value is None:
        return None
    try:
        return JobStatus.model_validate_json(value)
    except ValidationError:
        return None


def status_store(settings: IngressSettings, prefix: str) -> StatusStore | None:
    """The store that the settings name; None: status is kept in memory only."""
    if not settings.redis_url:
        return None
    return StatusStore(
        settings.redis_url,
        prefix=prefix,
        ttl_seconds=settings.status_ttl_seconds,
        connections=settings.redis_connections,
        timeout_seconds=settings.redis_timeout_seconds,
    )
