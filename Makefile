# The front door. `make help` lists the targets. Those that need Java or libgomp install them first where they may (see packages).
# BROKERS=n: `make test` runs so many processes with a Kafka each (1 GiB) beside one another; `make chaos` breaks one Kafka of so many brokers.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
unexport PYTHONDONTWRITEBYTECODE  # a process whose modules need compiling takes two to three times as long to start
.PHONY: help venv packages fetch check format test test-proofs test-chaos test-semantic up down status logs demo bench chaos bench-backlog bench-cancel bench-delays bench-recovery bench-takeover bench-idle bench-fleet bench-fleet-live bench-calibrate bench-sizing bench-sink bench-cache bench-meanings bench-versus bench-patterns bench-priority helm-check compose-check ollama lock sbom wheel clean

VENV ?= .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
OWN_FLEET = $(if $(FLEET),--fleet $(FLEET)) $(if $(TRACE),--trace $(TRACE)) $(if $(ROWS),--rows $(ROWS)) $(if $(FASTER),--faster $(FASTER))
ON_KAFKAS = -n $(or $(BROKERS),3) --dist loadfile --no-loadscope-reorder
# The bench that the target is named for. RECORD=1: its runs become the record that later runs are compared with.
MEASURE = @$(BIN)/python -m infra.lab.bench $(@:bench-%=%) --json $(if $(RECORD),infra/lab/records,.tutti)/$(@:bench-%=%)$(if $(FLEET),-own).json $(if $(REPEATS),--repeats $(REPEATS)) $(if $(QUICK),--quick)

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: ## Make the virtual environment from requirements-dev.lock (where Python's venv module is missing: with apt-get, as root).
	@infra/native/venv.sh $(VENV) requirements-dev.lock

packages: venv ## With apt-get, as root: install what `make up` needs here and is missing (Java, Maven, libgomp); else fail with the command. First step of all that start a Kafka.
	@$(BIN)/python -m infra.native.fetch --packages $(if $(NEEDED_BY),--before $(NEEDED_BY))

# Whose first step it is; that step tells what is still missing.
up demo: NEEDED_BY = up
fetch: NEEDED_BY = tests
chaos bench bench-%: NEEDED_BY = kafka
bench-patterns: NEEDED_BY = $(if $(filter-out embedded,$(NODE)),kafka,tests)

fetch: packages ## Download Kafka, llama.cpp and the small model into the cache (345 MB, once).
	@$(BIN)/python -m infra.native.fetch

check: venv ## Quick gate: format, lint, types, import rules, schemas, unit and contract tests.
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/tutti schemas check
	$(PYTEST) -q -n auto --dist worksteal tests/unit
	$(PYTEST) -q -n 3 --dist worksteal tests/contract  # they wait for sockets: three on two cores

format: venv ## Rewrite the code in the one format.
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .

test: fetch check ## All promises: check, then models, simulated clusters (under faults), integration on real components (see packages; Kafka is started for them).
	$(PYTEST) -q -n auto --dist worksteal -k 'not planted_bug' tests/model tests/simulated
	$(PYTEST) -q $(ON_KAFKAS) -m 'not alone and not faults' tests/integration
	$(PYTEST) -q -m 'alone and not faults' tests/integration

test-proofs: fetch ## That the tests would see it: every planted bug of models and simulation; then real processes killed, stopped, taken away, one kind of fault at a time and all under load; and whether the bench works.
	$(PYTEST) -q -n auto -k planted_bug tests/model tests/simulated
	$(PYTEST) -q $(ON_KAFKAS) -m 'faults and not alone' tests/integration
	$(PYTEST) -q -m 'faults and alone' tests/integration
	$(PYTEST) -q tests/chaos tests/load

test-semantic: ## The cache's own embedder on the real sentence-transformers (6 GB, an environment of its own), with a tiny model made there.
	@infra/native/venv.sh .venv-semantic requirements-semantic.lock
	TUTTI_REQUIRE_REAL=semantic .venv-semantic/bin/python -m pytest -q tests/semantic

test-chaos: venv ## Properties with many examples, long searches of the models, the simulated cluster under many seeds (SEEDS=n), a new search for every planted bug.
	TUTTI_EXAMPLES=thorough $(PYTEST) -q -n auto --dist worksteal tests/unit tests/model
	TUTTI_EXAMPLES=thorough $(PYTEST) -q -n auto --timeout 1200 tests/simulated/test_every_door.py
	TUTTI_SEEDS=$(or $(SEEDS),200) TUTTI_SEARCH=1 $(PYTEST) -q -n auto tests/simulated/test_cluster_laws.py tests/simulated/test_mutations.py

up: packages ## Start (see packages) Kafka, Redis, MongoDB or its stand-in, a model node and the services on this machine.
	@$(BIN)/tutti up

down: venv ## Stop them; data stays.
	@$(BIN)/tutti down

status: venv ## What runs, where, and what is simulated.
	@$(BIN)/tutti status

logs: venv ## Follow the logs of everything that runs.
	@$(BIN)/tutti logs --follow

demo: packages ## From nothing (see packages) to a real model's streamed answer, over REST and over Kafka.
	@$(BIN)/python -m infra.demo

bench: packages ## Measure against the bare pass-through and its budgets (all bench targets: REPEATS=n, medians of them; RECORD=1 keeps them for comparison; QUICK=1: only whether it works, never kept).
	$(MEASURE)

bench-recovery: packages ## Kill a planner with JOBS=10000 live jobs; the next one must have them in 3 s.
	$(MEASURE) $(if $(JOBS),--jobs $(JOBS))

bench-takeover: packages ## 20 jobs of 2 s, 5 at once, and a kill -9 after 5 s: when the last one ends.
	$(MEASURE)

bench-idle: packages ## CPU of the cluster while nothing is asked of it.
	$(MEASURE)

bench-sizing: packages ## What fleets of 3, 30, 300 simulated nodes cost the services that look at them, and a choice among them.
	$(MEASURE)

bench-priority: packages ## Classes and tenants on a saturated cluster, with JOBS=100000 jobs queued (SCENARIO=hidden: only that one; BYTES=n of each there).
	$(MEASURE) $(if $(JOBS),--jobs $(JOBS)) $(if $(BYTES),--bytes $(BYTES)) $(if $(SCENARIO),--scenario $(SCENARIO))

bench-versus: packages ## Beside durable alternatives on this machine: a workflow library on Postgres, a task queue on Redis (each if it is there).
	$(MEASURE)

bench-patterns: packages ## Every pattern on a real small model (NODE=embedded, ollama, simulator; MODEL=name; QUESTIONS=n): calls, tokens, critical path, gain.
	$(MEASURE) $(if $(NODE),--node $(NODE)) $(if $(MODEL),--model $(MODEL)) $(if $(QUESTIONS),--questions $(QUESTIONS))

bench-fleet: venv ## Policies for nodes on a simulated fleet, on recorded arrivals, in virtual time (FLEET=yaml TRACE=csv ROWS=n FASTER=x: of your own).
	$(MEASURE) $(OWN_FLEET)

bench-fleet-live: packages ## The same fleets in real time before tutti, and ollama-herd beside it (HERD=folder of its programs): loads, first tokens, a killed server.
	$(MEASURE) $(OWN_FLEET) $(if $(HERD),--herd $(HERD)) --kill 12

bench-calibrate: packages ## Measure a real Ollama (make ollama), and compare what the fleet simulator says of it with what it does.
	$(MEASURE) --spec .tutti/measured.yaml

bench-cancel: packages ## Cancel 50 running streams in each of three ways; the node must see it within 100 ms.
	$(MEASURE)

bench-delays: packages ## JOBS=100000 delayed records; how late they are, and that a kill -9 of the delay service loses none.
	$(MEASURE) $(if $(JOBS),--jobs $(JOBS))

bench-sink: packages ## Events a second that the sink folds and stores, of JOBS=30000 (STORE=url of MongoDB's protocol; else mongod or a stand-in).
	$(MEASURE) $(if $(JOBS),--jobs $(JOBS)) $(if $(STORE),--store $(STORE))

bench-cache: packages ## Time of hits over REST and Kafka, what asking adds to a miss, no tenant is served another's answer; then bench-meanings.
	$(MEASURE)
	@$(MAKE) --no-print-directory bench-meanings

bench-backlog: packages ## Queue JOBS=1000000 jobs of BYTES=0 more than a few words; every service's memory must stay flat.
	$(MEASURE) $(if $(JOBS),--jobs $(JOBS)) $(if $(BYTES),--bytes $(BYTES))

bench-meanings: packages ## Semantic hits of the cache with a real embedder (make ollama): latency, false hits of near misses, paraphrases served.
	$(MEASURE)

chaos: packages ## Break a real cluster under JOBS=100000 jobs (SEED=n, RATE=n a second, BROKERS=3: of Kafka, FAULTS="upgrade kill": only these), check that nothing is lost.
	$(MEASURE) $(if $(JOBS),--jobs $(JOBS)) $(if $(SEED),--seed $(SEED)) $(if $(RATE),--rate $(RATE)) $(if $(BROKERS),--brokers $(BROKERS)) $(addprefix --fault ,$(FAULTS))

helm-check: fetch ## Judge the Helm chart: lint, schemas, a real API server, KEDA's triggers on a real Kafka (tools are built once; needs Go >= 1.26; openssl by apt-get).
	@$(BIN)/python -m infra.lab.make kubernetes
	TUTTI_REQUIRE_REAL=$${TUTTI_REQUIRE_REAL:-kafka,redis},kubernetes $(PYTEST) -q tests/helm

compose-check: venv ## Judge docker-compose.yml by running it, on images made here (root; a Docker engine and mmdebstrap, else Debian's are installed by apt-get; minutes once).
	@$(BIN)/python -m infra.lab.make compose
	TUTTI_REQUIRE_REAL=$${TUTTI_REQUIRE_REAL:-kafka,redis},docker $(PYTEST) -q -s tests/compose

ollama: venv ## Install a real Ollama with small models into the cache (needs Go >= 1.26; gcc by apt-get; unpacks Debian's llama.cpp).
	@$(BIN)/python -m infra.lab.make ollama

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
