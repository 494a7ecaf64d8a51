"""Cache: whether a step has an answer already, and who of equal steps asks a model while the others wait.

Consumes  `cache.lookups`, `cache.fills` (group `tutti-cache`; one partition *number* of both to one cache); `replies` (its own partition).
Produces  `outcomes` (the answer, or that there is none), `jobs.interactive` (embeddings, as tenant `tutti-cache`), `dead-letters`.
Owns      one evicting Redis: entries by fingerprint, each with its time to live, and the fingerprints that are barred. Who waits for whom
          is in the memory of the instance that has the partition. Vectors of questions, in sets by partition of meaning and embedder.
On failure  nothing is lost but time: a planner that is not answered in time asks a model, as it would without a cache. While the store is
          away every lookup is a miss.
Scales by   adding caches, up to the partitions of its topics.
"""
