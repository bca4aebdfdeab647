# Everything that a person or CI does here, by name; `make help` lists it. Needs Python >= 3.11, make and git.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup demo test screenshots docs chaos check up bench host browser targets fmt lint types layers compose-check containers lock clean

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
# The recipes find temporal, bao and PostgreSQL's programs where setup put them.
WITH := PATH="$(BIN):$$PATH"

# The shop's jobs run with an interpreter of their own, never with the worker's.
JUSTENOUGH_JOB_PATH ?= $(CURDIR)/.venv-shop/bin:/usr/bin:/bin
export JUSTENOUGH_JOB_PATH

# Python keeps what it compiles, whatever the caller's environment says: the tests start hundreds of interpreters.
export PYTHONDONTWRITEBYTECODE :=

# More for pytest: make test ARGS="tests/domain/ledger -x"
ARGS ?=
# More for uv: make lock LOCK_ARGS=--upgrade
LOCK_ARGS ?=
UV_LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --quiet $(LOCK_ARGS)

help: ## List these targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: host $(VENV)/.ready .venv-shop/.ready .venv-shop/.sdk ## Install everything into .venv and .venv-shop (quick when nothing changed)

demo: setup ## Run the example jobs on real servers, show it live, prove every revocation (DEMO_OPEN=1: launch dozens more, leave the servers running)
	@$(WITH) $(BIN)/justenough demo

test: setup browser targets ## Run the whole test suite, real servers included (ARGS="tests/domain/ledger -x")
	@$(WITH) $(BIN)/python -m pytest -n 6 --dist loadscope --no-loadscope-reorder $(ARGS)

screenshots: setup browser ## Make the images of docs/images: run the open demo, and look at its pages
	@$(WITH) JUSTENOUGH_SCREENSHOTS=$(CURDIR)/docs/images $(BIN)/python -m pytest -q -m screenshots tests/demo $(ARGS)

docs: setup ## Write the generated parts of the docs anew: reference tables from the code, pictures from their text
	@$(BIN)/python docs/generate.py
	@$(BIN)/python docs/draw.py

chaos: setup ## Kill, stop and cut everything at the worst moment; its short form is in `make test` too (LONG=1: hours of outage as well)
	@$(WITH) $(BIN)/python -m pytest -n 3 --dist loadfile $(if $(LONG),-m "long or not long") tests/chaos $(ARGS)

check: setup lint types layers compose-check test ## What CI runs: format, lint, types, layers, compose, tests

up: setup ## Run the embedded stack, worker and console in the foreground
	@$(WITH) $(BIN)/justenough up

bench: setup ## Measure against the hand-written floor, in the same run
	@$(WITH) $(BIN)/python -m bench

host browser targets:
	@deploy/setup.sh $@

$(VENV)/.ready: requirements-dev.lock pyproject.toml deploy/setup.sh
	@deploy/setup.sh main

.venv-shop/.ready: examples/shop/requirements.txt deploy/setup.sh $(VENV)/.ready
	@deploy/setup.sh shop

.venv-shop/.sdk: $(wildcard sdk/justenough_job/*.py) sdk/pyproject.toml sdk/README.md .venv-shop/.ready
	@deploy/setup.sh sdk

fmt: setup ## Format and mend what can be mended
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lint: setup ## Check formatting and lint rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .

types: setup ## Check types (mypy strict, tests too)
	@$(BIN)/mypy
	@cd sdk && $(BIN)/mypy

layers: setup ## Check who may import whom
	@$(BIN)/lint-imports

compose-check: ## Have Compose read docker-compose.yml
	@deploy/compose-check.sh

containers: setup ## Run docker-compose.yml in a Docker daemon of its own, and kill its worker (minutes, root on Linux; KEEP=FOLDER: keep the images)
	@deploy/containers-check.sh

lock: setup ## Lock the dependencies by hash (LOCK_ARGS=--upgrade)
	@$(UV_LOCK) pyproject.toml -o requirements.lock
	@$(UV_LOCK) --extra embedded --group dev -c requirements.lock pyproject.toml -o requirements-dev.lock
	@$(UV_LOCK) --group build -c requirements-dev.lock -o requirements-build.lock
	@$(UV_LOCK) -c requirements.lock examples/shop/requirements.in -o examples/shop/requirements.txt

clean: ## Remove what setup and the tools made (the embedded stack's data stays: justenough down, then rm -r .justenough)
	@rm -rf .venv .venv-shop dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
