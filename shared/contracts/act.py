"""Act: what somebody has done to the cluster itself, as `acts` has it: who, when, what. Never what is secret of it."""

from __future__ import annotations

from shared.contracts.base import Contract, Count, EpochSeconds, Label, Tenant


class Act(Contract):
    """Written before it is done, so that nothing is done without it; one that then failed stands here all the same."""

    by: Label
    """The name of the key; `open` where nobody needs one; `cli:<user>` of who works on Kafka itself, as his machine calls him."""
    did: Label
    """`declare`, `remove`, `create`, `change`, `rotate`, `replay`, ..."""
    kind: Label
    """Of what: `key`, `tenant`, `schedule`, `agent`, `dead_letters`, ..."""
    name: Label = ""
    """Which one; a record of none is of many."""
    tenant: Tenant | None = None
    """Whose it is, where it is a tenant's."""
    count: Count | None = None
    """Of how many, where it is of many."""
    at: EpochSeconds
    """The writer's clock."""
