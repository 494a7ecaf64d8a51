# The front door. `make help` lists the targets; each installs what it needs.
# BROKERS=n: `make test` runs so many processes with a Kafka each (1 GiB) beside one another; `make chaos` breaks one Kafka of so many brokers.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # a process whose modules need compiling takes two to three times as long to start
.PHONY: help venv check format test test-proofs test-chaos test-semantic up down status logs demo bench chaos bench-backlog bench-cancel bench-delays bench-recovery bench-takeover bench-idle bench-fleet bench-fleet-live bench-calibrate bench-sizing bench-sink bench-cache bench-meanings bench-versus bench-priority helm-check compose-check ollama lock sbom wheel clean

VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
REPEATED = $(if $(REPEATS),--repeats $(REPEATS))
OWN_FLEET = $(if $(FLEET),--fleet $(FLEET)) $(if $(TRACE),--trace $(TRACE)) $(if $(ROWS),--rows $(ROWS)) $(if $(FASTER),--faster $(FASTER))
TESTS ?=
# RECORD=1: a bench's runs become the record that later runs are compared with.
runs = $(if $(RECORD),infra/lab/records,.tutti)/$(1).json

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: ## Make the virtual environment from requirements-dev.lock.
	@infra/native/venv.sh $(VENV) requirements-dev.lock

check: venv ## Quick gate: format, lint, types, import rules, schemas, unit and contract tests.
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/tutti schemas check
	$(PYTEST) -q -n auto --dist worksteal tests/unit
	$(PYTEST) -q -n auto --dist worksteal tests/contract

format: venv ## Rewrite the code in the one format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .

test: check ## All promises: check, then models, simulated clusters, integration on real components (Kafka is started for them).
	@$(BIN)/python -m infra.native.fetch
	$(PYTEST) -q -n auto -k 'not planted_bug' tests/model tests/simulated
	$(PYTEST) -q -n $(or $(BROKERS),3) --dist loadgroup --no-loadscope-reorder -m 'not alone' tests/integration
	$(PYTEST) -q -m alone tests/integration

test-proofs: venv ## That the tests would see it: every planted bug of models and simulation; then all kinds of faults under load on a real Kafka.
	$(PYTEST) -q -n auto -k planted_bug tests/model tests/simulated
	@$(BIN)/python -m infra.native.fetch
	$(PYTEST) -q tests/chaos

test-semantic: ## The cache's own embedder on the real sentence-transformers (6 GB, an environment of its own), with a tiny model made there.
	@infra/native/venv.sh .venv-semantic requirements-semantic.lock
	TUTTI_REQUIRE_REAL=semantic .venv-semantic/bin/python -m pytest -q tests/semantic

test-chaos: venv ## Properties with many examples, long searches of the models, the simulated cluster under many seeds (SEEDS=n), a new search for every planted bug.
	TUTTI_EXAMPLES=thorough $(PYTEST) -q -n auto --dist worksteal tests/unit tests/model
	TUTTI_EXAMPLES=thorough $(PYTEST) -q -n auto --timeout 1200 tests/simulated/test_every_door.py
	TUTTI_SEEDS=$(or $(SEEDS),200) TUTTI_SEARCH=1 $(PYTEST) -q -n auto tests/simulated/test_cluster_laws.py tests/simulated/test_mutations.py

up: venv ## Start Kafka, Redis, MongoDB or its stand-in, a model node and the services on this machine.
	@$(BIN)/tutti up

down: venv ## Stop them; data stays.
	@$(BIN)/tutti down

status: venv ## What runs, where, and what is simulated.
	@$(BIN)/tutti status

logs: venv ## Follow the logs of everything that runs.
	@$(BIN)/tutti logs --follow

demo: venv ## From nothing to a real model's streamed answer, over REST and over Kafka.
	@$(BIN)/python -m infra.demo

bench: venv ## Measure against the bare pass-through and its budgets (all bench targets: REPEATS=n, medians of them; RECORD=1 keeps them for comparison).
	@$(BIN)/python -m infra.lab.bench $(REPEATED) --json $(call runs,bench)

bench-recovery: venv ## Kill a planner with JOBS=10000 live jobs; the next one must have them in 3 s.
	@$(BIN)/python -m infra.lab.bench.recovery --jobs $(or $(JOBS),10000) $(REPEATED) --json $(call runs,recovery)

bench-takeover: venv ## 20 jobs of 2 s, 5 at once, and a kill -9 after 5 s: when the last one ends.
	@$(BIN)/python -m infra.lab.bench.takeover $(REPEATED) --json $(call runs,takeover)

bench-idle: venv ## CPU of the cluster while nothing is asked of it.
	@$(BIN)/python -m infra.lab.bench.idle $(REPEATED) --json $(call runs,idle)

bench-sizing: venv ## What fleets of 3, 30, 300 simulated nodes cost the services that look at them, and a choice among them.
	@$(BIN)/python -m infra.lab.bench.sizing $(REPEATED) --json $(call runs,sizing)

bench-priority: venv ## Classes and tenants on a saturated cluster, with JOBS=100000 jobs queued (SCENARIO=hidden: only that one; BYTES=n of each there).
	@$(BIN)/python -m infra.lab.bench.priority --jobs $(or $(JOBS),100000) --bytes $(or $(BYTES),0) $(if $(SCENARIO),--scenario $(SCENARIO)) $(REPEATED) --json $(call runs,priority)

bench-versus: venv ## Beside durable alternatives on this machine: a workflow library on Postgres, a task queue on Redis (each if it is there).
	@$(BIN)/python -m infra.lab.versus $(REPEATED) --json $(call runs,versus)

bench-patterns: venv ## Every pattern on a real small model (NODE=embedded, ollama, simulator; MODEL=name; QUESTIONS=n): calls, tokens, critical path, gain.
	@$(BIN)/python -m infra.lab.bench.patterns $(if $(NODE),--node $(NODE)) $(if $(MODEL),--model $(MODEL)) $(if $(QUESTIONS),--questions $(QUESTIONS)) $(REPEATED) --json $(call runs,patterns)

bench-fleet: venv ## Policies for nodes on a simulated fleet, on recorded arrivals, in virtual time (FLEET=yaml TRACE=csv ROWS=n FASTER=x: of your own).
	@$(BIN)/python -m infra.lab.fleet $(OWN_FLEET) $(REPEATED) --json $(call runs,fleet$(if $(FLEET),-own))

bench-fleet-live: venv ## The same fleets in real time before tutti, and ollama-herd beside it (HERD=folder of its programs): loads, first tokens, a killed server.
	@$(BIN)/python -m infra.lab.fleet.live $(OWN_FLEET) $(if $(HERD),--herd $(HERD)) --kill 12 $(REPEATED) --json $(call runs,fleet-live)

bench-calibrate: venv ## Measure a real Ollama (make ollama), and compare what the fleet simulator says of it with what it does.
	@$(BIN)/python -m infra.lab.fleet.calibrate --spec .tutti/measured.yaml $(REPEATED) --json $(call runs,calibrate)

bench-cancel: venv ## Cancel 50 running streams in each of three ways; the node must see it within 100 ms.
	@$(BIN)/python -m infra.lab.bench.cancel $(REPEATED) --json $(call runs,cancel)

bench-delays: venv ## JOBS=100000 delayed records; how late they are, and that a kill -9 of the delay service loses none.
	@$(BIN)/python -m infra.lab.bench.delays --jobs $(or $(JOBS),100000) $(REPEATED) --json $(call runs,delays)

bench-sink: venv ## Events a second that the sink folds and stores (STORE=url of MongoDB's protocol; else mongod or a stand-in).
	@$(BIN)/python -m infra.lab.bench.sink --jobs $(or $(JOBS),30000) $(if $(STORE),--store $(STORE)) $(REPEATED) --json $(call runs,sink)

bench-cache: venv ## Time of hits over REST and Kafka, what asking adds to a miss, no tenant is served another's answer; then bench-meanings.
	@$(BIN)/python -m infra.lab.bench.cache $(REPEATED) --json $(call runs,cache)
	@$(BIN)/python -m infra.lab.bench.meanings $(REPEATED) --json $(call runs,meanings)

bench-backlog: venv ## Queue JOBS=1000000 jobs of BYTES=0 more than a few words; every service's memory must stay flat.
	@$(BIN)/python -m infra.lab.bench.backlog --jobs $(or $(JOBS),1000000) --bytes $(or $(BYTES),0) $(REPEATED) --json $(call runs,backlog)

bench-meanings: venv ## Semantic hits of the cache with a real embedder (make ollama): latency, false hits of near misses, paraphrases served.
	@$(BIN)/python -m infra.lab.bench.meanings $(REPEATED) --json $(call runs,meanings)

chaos: venv ## Break a real cluster under JOBS=100000 jobs (SEED=n, RATE=n a second, BROKERS=3: of Kafka, FAULTS="upgrade kill": only these), check that nothing is lost.
	@$(BIN)/python -m infra.native.fetch
	@$(BIN)/python -m infra.lab.chaos --jobs $(or $(JOBS),100000) $(if $(SEED),--seed $(SEED)) $(if $(RATE),--rate $(RATE)) $(if $(BROKERS),--brokers $(BROKERS)) $(addprefix --fault ,$(FAULTS)) --json $(call runs,chaos)

helm-check: venv ## Judge the Helm chart: lint, schemas, a real API server, KEDA's triggers on a real Kafka (tools are built once; needs Go >= 1.26).
	@$(BIN)/python -m infra.lab.kubernetes
	@$(BIN)/python -m infra.native.fetch
	TUTTI_REQUIRE_REAL=$${TUTTI_REQUIRE_REAL:-kafka,redis},kubernetes $(PYTEST) -q tests/helm

compose-check: venv ## Judge docker-compose.yml by running it, on images made here (root; a Docker engine, else Debian's is installed; minutes once).
	@$(BIN)/python -m infra.lab.compose
	TUTTI_REQUIRE_REAL=$${TUTTI_REQUIRE_REAL:-kafka,redis},docker $(PYTEST) -q -s tests/compose

ollama: venv ## Install a real Ollama with small models into the cache (needs Go >= 1.26).
	@$(BIN)/python -m infra.lab.ollama_build

lock: ## Resolve the lock files again (needs uv).
	@command -v uv >/dev/null || { echo "uv is missing; install it with: pipx install uv" >&2; exit 1; }
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --python-version 3.11 pyproject.toml -o requirements.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --python-version 3.11 --extra dev --extra native --extra mdns --extra mcp --extra oidc --extra otel --extra plot --extra sealing -c requirements.lock pyproject.toml -o requirements-dev.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --python-version 3.11 --extra mcp --extra oidc --extra otel --extra sealing -c requirements-dev.lock pyproject.toml -o requirements-image.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --python-version 3.11 --extra embedded -c requirements.lock pyproject.toml -o requirements-embedded.lock
	uv pip compile -q --universal --generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
	  --python-version 3.11 --extra dev --extra semantic -c requirements-dev.lock pyproject.toml -o requirements-semantic.lock

sbom: venv ## What is shipped, as CycloneDX, from the lock file (SCAN=1: ask for advisories where their source answers).
	@$(BIN)/python -m infra.lab.sbom $(if $(SCAN),--scan)

wheel: venv ## Build the wheel, install it into a fresh environment, and see whether `tutti` runs from it.
	@infra/native/wheel.sh $(BIN)/python

clean: ## Stop everything, remove data, caches of tools and the virtual environment (downloads stay).
	@[ ! -d $${TUTTI_HOME:-.tutti}/run ] || { $(BIN)/tutti --version >/dev/null 2>&1 || $(MAKE) --no-print-directory venv; $(BIN)/tutti down --clean; }
	rm -rf $(VENV) .tutti .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
