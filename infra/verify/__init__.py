"""History checker: reads what a cluster wrote and reports every violation of laws 1-3 (ARCHITECTURE, laws).

    tutti verify                          everything that Kafka still holds
    tutti verify --since 2h --settled     the last two hours, and everything must have ended by now

    laws       the kinds of violation, each with its law and its meaning
    report     counts, violations with their first examples
    history    one home: `job-events` folded by the rule of valid events, `outcomes` held against it
    checker    the whole: jobs against histories, results against settle events; pure, fed with records
    reading    from Kafka, in the order that makes a running cluster look consistent

A home at a time is in memory (about 0.8 kB a job), and of the whole cluster one entry a result (about 0.3 kB). Nothing is written.
"""
