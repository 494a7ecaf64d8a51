"""Router: gives each waiting step to a node at the moment when that node can start it.

Consumes  `steps.<capability>.<class>` (group `tutti-router`); `nodes` and `credits` whole, without a group.
Produces  `work.<model>` at the node's mailbox, then `StepRouted` to the job's home on `outcomes`; `RouterPresence` on
          `presence` and `credits`;
          steps that no live node can run to `delays.<tier>`, and what they lack (`StepUnplaced`) to `outcomes`; `StepFailed` (no node,
          deadline, no window that holds it) to `outcomes`; `dead-letters`.
Owns      nothing durable: what it knows of nodes is folded from `nodes` and `credits`, what it has begun is in Kafka's offsets.
On failure  a step that was not finished is read again by the next owner of its partition; a step given twice is accepted once.
Scales by   adding routers, up to the number of steps partitions: each node offers each place to one of them.
"""
