"""Benches: `python -m infra.lab.bench NAME` (make bench-NAME). Each is a function that returns the figures of a run; the rest is said once.

    python -m infra.lab.bench                     tutti beside a bare pass-through, a few minutes
    python -m infra.lab.bench priority --quick    small, once: does it run, is nothing lost
    python -m infra.lab.bench --json new.json --compare old.json     (it is compared with the record without being asked)

    runner        Bench, Lab: repeats, one loop, one Kafka, clusters, errors, the command; report: tables, JSON, records, the exit code
    figures       percentiles, medians, spread, budgets; pure          machine       facts of the machine; what processes have used
    bare          the baseline: raw aiokafka, pydantic messages        systems       bare and tutti beside each other, in turns
    load          closed-loop callers, a burst of queued jobs          arrivals      jobs with known ids, at a rhythm, and their results
    asking        one client whose answers may come from the cache     http_client   what callers are made of

All other files are one bench each; more are in infra/lab/{chaos,fleet,versus}.
"""
