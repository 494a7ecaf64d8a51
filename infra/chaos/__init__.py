"""Live chaos: a real Kafka and real processes, thousands of jobs, seeded faults; at the end the history checker judges.

    python -m infra.chaos --jobs 100000 --seed 7 --json chaos.json        (make chaos JOBS=100000)

The model nodes are simulated; broker, services, network and signals are real. Jobs are singles, chains, some whose node fails now and then,
some with `not_before`, most produced straight onto Kafka, some over REST; each has an id given by its sender, so that one of unknown fate
is sent again without harm.

    plan       which fault strikes whom, in which order; pure, from the seed
    jobs       what is asked for, from the seed; what was sent and what has ended
    load       sends them at a bounded rate, again when the fate is unknown; sees results
    stage      broker and cluster, and how each fault is done to them
    run        the course: load, fault after fault, drain, verify
    figures    recovery times, throughput; pure
    report     table and JSON

Recovery of a fault is measured on the jobs that were in flight when it struck (acknowledged by Kafka, due, and without a result): from
the fault to the job's result. So it holds the length of the fault itself: jobs of a broker that is away for 20 s take at least that.
The row `nothing` is the same measure at a moment without any fault.
"""
