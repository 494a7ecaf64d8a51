"""Critic: judges texts without a model, by checks that are pure functions, and says what it found.

Consumes  `critiques` (group `tutti-critic`); `blobs`, by reference.
Produces  `StepSucceeded` with a verdict, or `StepFailed`, to the job's home on `outcomes`; `dead-letters`.
Owns      nothing.
On failure  a record is committed past once its outcome is acknowledged, so another critic reads it again: the same verdict twice, of which
          the first is accepted. While none is there, what gates and policies say of that holds after the planner's patience.
Scales by   adding critics, up to the number of partitions.
"""
