"""Runs real components on one machine without Docker: Kafka, Redis, a model node, and tutti's services beside them.

| file | subject |
|---|---|
| settings.py, paths.py | ports, directories |
| ports.py, processes.py, waiting.py, install.py | is a port free, daemons with pid files, polling, system packages |
| kafka.py, redis.py, node.py, embedded/, ollama.py, simulator.py | one component each |
| stack.py, report.py, cli.py | all of them together: up, down, status, logs |

Data lives under `.tutti/` (survives restarts), downloads under `~/.cache/tutti` (`TUTTI_CACHE`), shared by all checkouts.
"""
