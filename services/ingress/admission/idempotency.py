"""Idempotency: the same request under the same key or id is one job, with one result; another request under it is a conflict. Pure.

| what knows | for how long | across instances |
|---|---|---|
| job status (`job-events`, kept in Redis) | 24 h with Redis, else what the journal holds | yes |
| claims (Redis: id → digest) | 24 h from the first use | yes, at once |
| the planner's memory of ids | 1 h from the job's end, and 10,000 ids a partition | yes, in the order of the log |

Without Redis the planner's memory decides alone.
"""

from __future__ import annotations

from base64 import b32encode
from hashlib import blake2b

from services.ingress.status.status import JobStatus
from shared.errors import Conflict

_OWN_PREFIX = "j_"
"""Ids that an ingress or planner made are never used twice, and nobody remembers them."""


def job_id_of(tenant: str, key: str) -> str:
    """The job that an Idempotency-Key of a tenant stands for. Every ingress derives the same one."""
    digest = blake2b(f"{tenant}\x1f{key}".encode(), digest_size=16).digest()
    return "k_" + b32encode(digest).decode().rstrip("=").lower()


def may_come_again(job: str) -> bool:
    """Whether the planner remembers this id after the job's end, so that repeating it is harmless."""
    return not job.startswith(_OWN_PREFIX)


def is_same(status: JobStatus, digest: str) -> bool:
    """Whether the known job is this request; false where that cannot be told. Raises Conflict when it was another one."""
    if status.digest is not None and status.digest != digest:
        raise Conflict
    return status.digest is not None
