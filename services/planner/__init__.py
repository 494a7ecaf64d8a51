"""planner: the durable engine that turns jobs into steps and outcomes into results.

Consumes   jobs.<class>, outcomes (group tutti-planner, one partition *number* of all of them to one planner); job-events for replay;
           registry (schedules, limits of tenants, beliefs of other homes); nodes and credits
Produces   job-events (one writer a partition, checked by offsets), steps.<capability>.<class>, work.<model> (eager steps), results,
           replies (finals), controls, delays, presence and credits (that it is there), outcomes (budgets, turns, ends of lines),
           blobs (turns, batches), dead-letters, registry (beliefs); jobs.<class> (what is at home on another partition; lines of batches)
Owns       the history of every job (job-events); memory is a cache of it
On failure another planner takes the number over, replays from the watermark and drives every live job on; nothing is asked again that
           history answers. Kafka away: waits, goes on by itself.
Scales by  adding planners, up to the number of home partitions

`app` is the process, `home` one partition number and its rounds. Below them: `schedules`, `intake`, `history` (what a home does beside
deciding), `state` (all decisions on the jobs of a home, without I/O), `job` (one job), `patterns`, `budgets`. `sending` carries decisions
out. Import rules keep this order (pyproject.toml).
"""
