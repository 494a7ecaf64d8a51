"""Every setting that tutti gives to Kafka clients, each with its reason. Both adapters read them, so that the stand-in behaves alike."""

from __future__ import annotations

from shared.contracts.base import BATCH_BYTES, RECORD_BYTES

# Groups
SESSION_SECONDS = 5.0
"""Take-over after SIGKILL waits this long, or as long as the broker's `group.min.session.timeout.ms` is. Shorter would evict members
during a pause of the machine (decision 0033)."""
UNTOLD_SESSION_SECONDS = 6.0
"""Where a broker does not tell its minimum: Kafka's default of it."""
HEARTBEAT_SECONDS = 1.0
"""A rebalance is noticed within this time; five beats fit a session."""
REBALANCE_SECONDS = 10.0
"""Budget of `on_revoked`. No handler runs longer: work that goes on is covered by leases, not by owning a partition."""
POLL_LIMIT_SECONDS = 300.0
"""Client-side poll limit, left at Kafka's default: pumps always poll, so only a hung process trips it."""

# Fetching
FETCH_BYTES = 32 * 1024 * 1024
"""Bound of one answer over all partitions, so that memory is bounded when a long backlog is read."""
PARTITION_FETCH_BYTES = 1_048_576
"""Of one partition in one answer, unless a reader says otherwise. A batch that is larger comes alone."""
SCATTERED_FETCH_BYTES = 64 * 1024
"""The same for a reader of single records: of what a fetch brings most is behind the one that is wanted."""
POLL_BYTES = 4 * 1024 * 1024
"""Bound of one poll, unpacked, soft by one record: what is compressed well, or hostile, is unpacked in pieces."""
POLL_RECORDS = 500
"""Of a poll that does not say otherwise. What a reader does with the records of one poll holds its event loop, and with it the heartbeats
of its process: planners that folded a whole fetch in one go lost their homes to one another, again and again (decision 0069)."""
METADATA_SECONDS = 30.0
"""Added partitions and topics are seen within this time; the default of 5 minutes would leave a new mailbox unread."""

TOPIC_LOOK_SECONDS = 3.0
"""A reader notices within this time that its topics were made anew, also where nothing is read."""
TOPIC_WATCH_SECONDS = 10.0
"""Every process looks so often at all topics, for what is only told. A list of 220 partitions costs the broker 2.5 to 8 ms, itself 2."""

PACE_SECONDS = 0.002
"""Least time after a poll that brought many records. A fetch costs a client about half a millisecond whatever it brings, so under
load a few of them are worth one (decision 0002)."""
PACE_RECORDS = 8
"""So many are many. With fewer nothing is under load, and the pause is only a wake-up more: 6.6 of them a lone job (decision 0034)."""

# Sending
SEND_BATCH_BYTES = RECORD_BYTES
"""Record batches of ordinary sends: 256 kB. Larger ones gain nothing, smaller ones cost a future each."""
APPEND_BATCH_BYTES = BATCH_BYTES
"""One round of a planner is one batch."""
BATCH_SLACK_BYTES = 16 * 1024
"""Framing on top of what `sizes` counts; the topics' `max.message.bytes` allows for the same."""
REQUEST_BYTES = 64 * 1024 * 1024
"""Client-side check of single records is ours (`sizes`); the client's own must never be the smaller one."""
WINDOW_BYTES = 16 * 1024 * 1024
"""Bytes that may wait for acknowledgement in one producer; callers beyond that wait."""
WINDOW_RECORDS = 20_000
"""Records that may wait for acknowledgement in one producer."""

# Requests
REQUEST_SECONDS = 20.0
"""A frozen broker is noticed after this; above the rebalance timeout, because a join is held that long by the broker."""
CHUNK_REQUEST_SECONDS = 10.0
"""The same for producers with acks=1: chunks are worthless later."""
CALL_SECONDS = 10.0
"""Bound of a commit or an offset query before LogUnavailable; the client would repeat them for ever."""
SILENCE_SECONDS = 5.0
"""An empty poll after so long without any answer is an error: a fetch is answered within `fetch_max_wait`, also when nothing is new."""
STOP_SECONDS = 5.0
"""Bound of closing a client whose broker does not answer."""
RETRY_SECONDS = 0.1
"""The client's pause between attempts at one request."""
IDLE_CONNECTION_SECONDS = 540.0
"""Below the broker's ten minutes, so that the client closes first."""

# Connecting
CONNECT_BACKOFF_SECONDS = 0.2
CONNECT_BACKOFF_CAP_SECONDS = 5.0
"""Waiting for a cluster that is not there: doubling up to this, for ever."""


def milliseconds(seconds: float) -> int:
    """As aiokafka counts."""
    return int(seconds * 1000)
