"""Sink: what was used, by whom and on what, and what happened: kept in MongoDB, counted for Prometheus.

Consumes  `job-events`, `dead-letters`, `nodes` (group `tutti-sink`); while somebody looks at its page, without a group, also `credits`.
Produces  nothing of its own: an administrator may have it send dead letters again.
Owns      one MongoDB database: usage of each job, totals of each day, the audit chain of each home, histories of nodes, dead letters. No
          text of prompts or answers is in it.
On failure  a position is committed once the store has all below it; what is read again changes nothing there. While the store is away
          Kafka is the spool, and the sink is not ready.
Scales by   adding sinks, up to the number of homes.
"""
