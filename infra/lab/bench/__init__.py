"""Measures tutti against a bare pass-through of the same five hops, in the same run, on the same machine.

    python -m infra.lab.bench                     everything, a few minutes
    python -m infra.lab.bench --quick             small counts, for CI: does it run, is nothing lost
    python -m infra.lab.bench --json new.json --compare old.json     (it is compared with the record without being asked)

Absolute figures differ from machine to machine; what counts is the ratio to bare: of what is answered in process to bare, of what goes
over a node to the bare that calls the same node (`bare_node`). Runs of the systems are interleaved and repeated, each while the others
are stopped; medians are reported. The model is simulated: an in-process backend, or the simulated Ollama at zero latency. Nothing here
measures a model.

    bare         the baseline: raw aiokafka, pydantic messages, one process a service
    cluster      the real services, each a process, on topics with a prefix of their own
    load         closed-loop HTTP callers, a burst of queued jobs, streams
    scenarios    what is measured, one function each
    budgets      the budgets of ARCHITECTURE.md
    report       tables, JSON

What `make bench` does not measure has commands of its own: recovery, takeover, priority, cancel, delays, backlog. Each repeats (--repeats),
prints median, least and most of every figure and the verdict on its budgets, and writes JSON: machine, date, commit, options, all runs.

    figures      percentiles, medians, spread, budgets; pure
    outcome      what each of them prints and writes, their common options, their exit code
    local        broker and cluster
    machine      facts without which a figure means nothing
    records      runs that are kept (`infra/lab/records/`; RECORD=1 of the Makefile writes them), and how a later one differs
"""
