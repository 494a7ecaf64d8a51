"""Live chaos: a real Kafka and real processes, thousands of jobs, seeded faults; at the end the history checker judges.

    python -m infra.lab.bench chaos --jobs 100000 --seed 7 --json chaos.json        (make chaos JOBS=100000)

The model nodes are simulated; broker, services, network and signals are real. Jobs are singles, chains, some whose node fails now and then,
some with `not_before`, most produced straight onto Kafka, some over REST; each has an id given by its sender, so that one of unknown fate
is sent again without harm.

    plan       which fault strikes whom, in which order; pure, from the seed
    jobs       what is asked for, from the seed; what was sent and what has ended
    load       sends them at a bounded rate, again when the fate is unknown; sees results
    callers    ask over REST as people do, through a balancer, and compare their answers; what they met in an upgrade is a fault
    stage      brokers and cluster, and how each fault is done to them
    odd        records of every odd kind on every topic
    run        the course: load, fault after fault, drain, verify
    crashes    processes that ended by themselves, and what excuses them; pure
    figures    what each fault did to the flow of results; pure
    report     table and JSON; chaos: the bench

Three times are told of every kind of fault:

    no result for      the longest time without any result, from the fault to the next one
    rate back          until results come as fast as before again: at 80 % of the rate of the ten seconds before, in seconds of the clock;
                       single slow seconds and single good ones do not count (figures.py says how)
    in flight ended    until the jobs that were in flight when it struck (acknowledged, due, without a result) had theirs; jobs whose node
                       fails wait for their retries in it, so it is some seconds even without any fault

All hold the length of the fault itself: while a broker is away for 20 s nothing comes. The row `nothing` is the same at a moment without
a fault. At the default rate two cores are not saturated; where they are, the report says so, since it then measures its own backlog.

A service that ends by itself fails the run, unless the broker had been away for a minute or more: then it is listed.
"""
