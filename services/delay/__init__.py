"""Delay: sends records on later: jobs with `not_before`, steps that no node could run.

Consumes  `delays.<tier>` (group `tutti-delay`).
Produces  what the records carry, to `jobs.<class>` and `steps.<capability>.<class>`; `delays.<tier>` for the next hop; `dead-letters`.
Promises  nothing early; no order.
Owns      nothing durable: a record is committed past once it has been sent on.
On failure  a record that was not committed past is sent on again by the next owner; receivers know duplicates.
Scales by   adding delays, up to the partitions of a tier.
"""
