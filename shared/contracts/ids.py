"""Ids of jobs: a caller's own lies under its tenant; one that tutti makes is unique by itself. Each has one home.

| made by | example | inside the cluster (events, steps, outcomes, results) |
|---|---|---|
| a caller of tenant `default` | `order-1` | `order-1` |
| a caller of another tenant `t` | `order-1` | `t/order-1` |
| tutti: an ingress, or a planner for a record without id | `j_...` | the same |
| tutti: of an `Idempotency-Key` | `k_...` | the same |
| tutti: a run of a schedule | `s_...` | the same |

No caller may give an id of tutti's forms, and no public id holds a slash: nobody enters another's name space. People are shown the
public id. On `jobs.*` a record's id and key are the public one, its tenant is in its body.

Digests: tell a repeated submission from another body under the same id, and one blob from another. All services must agree on them.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

from shared.murmur import place


def digest_of(body: bytes) -> str:
    """Of a job the canonical body (`Job.to_bytes`): what a caller left to the defaults is written out, so spelling does not matter."""
    return blake2b(body, digest_size=16).hexdigest()


DEFAULT_TENANT = "default"
_RESERVED = ("j_", "k_", "s_")
_SEPARATOR = "/"
RESERVED = "Ids that begin with j_, k_ or s_ are tutti's own: a job has another one, or none."


class Maker(StrEnum):
    """Who of tutti made a record's id; the header `made-by` says it. Without the header the id is the caller's own."""

    INGRESS = "ingress"
    """Fresh, of an ingress or the command line: never used twice, so nobody remembers it after the end."""
    KEY = "idempotency-key"
    """Comes again whenever the caller uses its key again."""
    PLANNER = "planner"
    """Of a record that came without one, when it comes back from `delays.*`; of a comparison, which may be sent more than once."""


def is_reserved(job: str) -> bool:
    """Whether an id, public or not, has one of the forms that tutti keeps to itself."""
    return public(job).startswith(_RESERVED)


def qualified(tenant: str, job: str) -> str:
    """The id inside the cluster of a job whose public id is `job`."""
    return job if is_reserved(job) else under(tenant, job)


def under(tenant: str, name: str) -> str:
    """What a tenant calls so, inside the cluster: its jobs with ids of its own, and its schedules."""
    return name if tenant == DEFAULT_TENANT else f"{tenant}{_SEPARATOR}{name}"


def owner(job: str) -> str | None:
    """The tenant whose job an id inside the cluster names; None of an id that tutti made, which does not tell."""
    tenant, separator, _ = job.rpartition(_SEPARATOR)
    return tenant if separator else None if is_reserved(job) else DEFAULT_TENANT


def public(job: str) -> str:
    """What people know the job by."""
    return job.rpartition(_SEPARATOR)[2]


def home_of(job: str, homes: int) -> int:
    """The one home of an id, public or not: where Kafka's default partitioner puts a record that has the public id as its key."""
    return place(public(job).encode(), homes)
