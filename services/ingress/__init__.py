"""Ingress: the REST door. OpenAI's chat dialect and tutti's own jobs API in front of Kafka.

| | |
|---|---|
| consumes | `replies` (one partition, chosen by instance), `job-events` (all, for status), `nodes` (registry) |
| produces | `jobs.<class>` (partition = crc32 of the job id = home), `outcomes` (cancels) |
| owns | a Redis database with job status, 24 h; none when not configured |
| on failure | Kafka away: 503 with Retry-After; Redis away: status from memory; a killed instance loses connections, never a job |
| scales by | adding instances: each waits for its own callers by its own correlation ids |
"""
