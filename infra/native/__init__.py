"""Runs real components on one machine without Docker: Kafka, Redis, a model node, and tutti's services beside them.

| file | subject |
|---|---|
| settings.py, paths.py, errors.py | ports and directories; what can go wrong |
| ports.py, processes.py, waiting.py, http.py, follow.py | is a port free, daemons with pid files, polling, log files |
| install.py, wheels.py, debian.py, fetch.py | where programs and packages come from |
| causes.py | why that failed, in one line |
| kafka.py, topics.py, redis.py, services.py | one component each |
| node.py, ollama_server.py, embedded/ | the model node and its kinds |
| ollama.py, tiny_model.py, gguf.py | `make ollama` |
| stack.py, report.py, cli.py | all of them together: up, down, status, logs |
| cluster.py | a throw-away cluster of processes, for tests and benchmarks |
| venv.sh, wheel.sh | used by the Makefile before there is a Python environment, and to test the wheel |

Data lives under `.tutti/` (survives restarts), downloads under `~/.cache/tutti` (`TUTTI_CACHE`), shared by all checkouts.
"""
