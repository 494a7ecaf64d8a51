"""Worker: one per node; runs the steps that routers put into its mailbox on the node's model endpoint.

consumes  work.<model> and controls at its mailbox number (assign, group tutti-worker-<node> for positions only), nodes,
          presence, credits,
          outcomes (while an earlier boot of its node may run: its renewals)
produces  outcomes (started, claimed, renewed, succeeded, failed, released), replies (chunks), nodes, credits, dead-letters
owns      nothing durable; a crash costs what was running, and its next boot, or leases, bring it back
on failure  Kafka away: goes on generating, keeps outcomes, sends them later. Endpoint away: offers no places until it answers
scales by adding nodes, each with a worker of its own
"""
