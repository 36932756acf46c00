# Needs python3 (3.11 or later) and make; `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
COMPILE := $(BIN)/uv pip compile pyproject.toml --quiet --universal \
	--python-version 3.11 --no-emit-index-url --no-header --upgrade
DEMO := pes truncated_es tbptt
TWO := --numprocesses 2 --dist loadgroup

.DEFAULT_GOAL := help
.PHONY: help install dev demo test slow nightly chaos cluster-test bench check format lock clean

help:  ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' Makefile

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or later is needed; name one: make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) lacks venv or ensurepip (package python3-venv)"; exit 1; }
	$(PYTHON) -m venv .venv || { rm -rf .venv; exit 1; }

.venv/.installed: requirements.lock pyproject.toml | .venv/bin/python
	$(PIP) install --quiet -r requirements.lock
	$(PIP) install --quiet --no-deps -e .
	@touch $@

.venv/.dev: requirements-dev.lock .venv/.installed
	$(PIP) install --quiet -r requirements-dev.lock
	@touch $@

install: .venv/.installed  ## Install the package and what it needs into .venv.

dev: .venv/.dev  ## Install what the tests and checks need as well.

demo: .venv/.installed  ## Meta-train on digits with three estimators; compare them.
	rm -rf runs/demo
	set -e; for name in $(DEMO); do \
	  $(BIN)/pes run configs/digits/$$name.yaml --run-dir runs/demo/$$name; \
	done
	$(BIN)/pes compare $(DEMO:%=runs/demo/%)

test: .venv/.dev  ## Run the quick tests, on two cores.
	$(BIN)/python -m pytest $(TWO)

slow: .venv/.dev  ## Run the tests that take minutes.
	$(BIN)/python -m pytest $(TWO) -m slow || [ $$? -eq 5 ]

nightly: .venv/.dev  ## Run the longest tests; having none is no failure.
	$(BIN)/python -m pytest $(TWO) -m nightly || [ $$? -eq 5 ]

chaos: .venv/.dev  ## Break hosts under a run in every way; needs root, 25 minutes.
	$(BIN)/python -m pytest -m chaos
	$(BIN)/python -m tests.chaos

cluster-test: .venv/.dev  ## Submit jobs to three hosts; needs root, 6 minutes.
	$(BIN)/python -m pytest -m cluster

bench: .venv/.dev  ## Measure what copies of the blocks cost where nothing fails.
	$(BIN)/python -m tests.bench.safety

check: .venv/.dev  ## Check format, lint, types and layers; run the quick tests.
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(MAKE) test

format: .venv/.dev  ## Format the code.
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

lock: .venv/.dev  ## Pin the newest versions that pyproject.toml allows.
	$(PIP) install --quiet uv
	$(COMPILE) --output-file requirements.lock
	$(COMPILE) --extra dev --extra data --extra control \
	  --output-file requirements-dev.lock
	$(COMPILE) --extra cuda --constraint requirements.lock \
	  --output-file deploy/requirements-cuda.lock
	! grep -nE '://|^-' requirements.lock requirements-dev.lock \
	  deploy/requirements-cuda.lock

clean:  ## Remove what the tools left; .venv and runs stay.
	rm -rf .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find pes_cluster tests -name __pycache__ -type d -prune -exec rm -rf {} +
