"""Tutti beside two durable alternatives on one machine in one run: a workflow library on Postgres (DBOS), a task queue on Redis (SAQ).

    python -m infra.lab.bench versus            (make bench-versus)

Each answers the same POST with an answer that no model gives, in the form that its makers mean for it: DBOS as a library in the process
that serves HTTP (a workflow of one step; nothing is handed over), SAQ with a process that serves HTTP and a worker. What each keeps: DBOS
every transition on disk, tutti in the log, before the answer; SAQ the job in Redis' append-only file within a second.

Systems take turns, each while the others are stopped, as in `make bench`. CPU counts all processes, the store's or broker's too.

    versus      the bench
    stores      Postgres of the machine, Redis as `tutti up` runs it, and an environment of the pinned requirements
    dbos_app    run in that environment
    saq_app     the same
"""
