"""Runs real components on one machine without Docker: Kafka, Redis, a model node, and tutti's services beside them.

| file | subject |
|---|---|
| settings.py, paths.py, errors.py | ports and directories; what can go wrong |
| ports.py, processes.py, waiting.py, http.py, follow.py | is a port free, daemons with pid files, polling, log files |
| install.py, wheels.py, fetch.py | where programs and packages come from; apt-get is told, and called for make targets only |
| causes.py | why that failed, in one line |
| kafka.py, brokers.py, topics.py, redis.py, mongo.py | one component each |
| services.py, keeper.py | the services, which are started again when they end |
| node.py, ollama_server.py, embedded/ | the model node and its kinds |
| stack.py, report.py, cli.py, announcing.py | all of them together: up, down, status, logs; told to the network |
| join/ | this machine as a node of somebody's cluster |
| cluster.py | the one way to start a throw-away cluster of processes: tests, benches, chaos |
| venv.sh, wheel.sh | used by the Makefile before there is a Python environment, and to test the wheel |

Data lives under `.tutti/` (survives restarts), downloads under `~/.cache/tutti` (`TUTTI_CACHE`), shared by all checkouts.
"""
