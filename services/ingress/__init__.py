"""Ingress: the REST door. OpenAI's chat dialect and tutti's own jobs API in front of Kafka.

| | |
|---|---|
| consumes | `replies` (one partition, chosen by instance), `job-events` (all: ends, status, reviews, conversations, batches), |
| | `nodes`, `registry`, `files`; as a group, where callbacks are set up: `results`, `callbacks` |
| produces | `jobs.<class>` (partition = the id's home, `shared/contracts/ids.py`), `registry`, `acts`, `files`, |
| | `outcomes` (cancels, reviews, conversations, batches), `blobs` (large inputs, files, lines of batches), |
| | `delays` (callbacks to try again), `dead-letters` (callbacks given up) |
| owns | a Redis database: job status and claims of ids (24 h), rate buckets of API keys; none when not configured |
| on failure | Kafka away: 503 with Retry-After; Redis away: status from memory, ids from the planner's memory (1 h, 10,000 a partition), |
| | rate limits counted by each instance alone; a killed instance loses connections, never a job |
| scales by | adding instances: each waits for its own callers by its own correlation ids |

Refusals before anything is queued: 401/403 (keys, `access.py`), 429 (a key's rate, `meter.py`; the backlog, `backlog.py`),
409 (an id or Idempotency-Key that stands for another body, `idempotency.py`), 503 (no node, Kafka away).
"""
