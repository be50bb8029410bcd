# Two commands from a fresh machine: `make demo` and `make test`. Both need Python >= 3.11 (with venv), make and a package index.

PYTHON ?= python3
VENV := .venv
PEERS := .venv-peers
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
WORKERS ?= 2
# Files in the order of their names: journeys begin early, and what is left for the end is quick and evenly shared.
SHARED := -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# Each server that a test starts would compile every module anew where bytecode isn't written: that was a third of its start.
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help demo test test-long check format lint types contracts docs wheel bench locks clean

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Overair needs Python 3.11 or newer; this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)

# The project itself goes in without its dependencies: those come from the lock, with hashes.
$(VENV)/.runtime: locks/runtime.txt locks/build.txt pyproject.toml | $(BIN)/python
	$(INSTALL) -r locks/build.txt
	$(INSTALL) -r locks/runtime.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.development: locks/development.txt $(VENV)/.runtime
	$(INSTALL) -r locks/development.txt
	@touch $@

demo: $(VENV)/.runtime ## install, start a server and three devices, ship images good, tampered with and crashing; then a Uptane vehicle, and keys that go offline
	$(BIN)/python -m overair.cli.main demo

test: $(VENV)/.development ## install and run every test (one short profile of each heavy one)
	$(BIN)/python -m pytest $(SHARED) -m "not long"

# A coverage-guided fuzzer, for the machines that it is built for; elsewhere this installs nothing, and its tests say so.
$(VENV)/.fuzz: locks/fuzz.txt $(VENV)/.development
	$(INSTALL) -r locks/fuzz.txt
	@touch $@

test-long: $(VENV)/.fuzz ## every test at full counts
	$(BIN)/python -m pytest $(SHARED) --timeout 1800

check: format lint types contracts docs ## format, lint, strict types, import contracts, docs tests

format: $(VENV)/.development
	$(BIN)/ruff format --check .

lint: $(VENV)/.development
	$(BIN)/ruff check .

types: $(VENV)/.development
	$(BIN)/mypy

contracts: $(VENV)/.development
	$(BIN)/lint-imports

docs: $(VENV)/.development
	$(BIN)/python -m pytest tests/docs

wheel: $(VENV)/.development ## build dist/*.whl
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .

# What is measured beside us stays out of our own environment.
$(PEERS)/.installed: locks/peers.txt $(VENV)/.development
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/peers.txt
	@touch $@

bench: $(VENV)/.development $(PEERS)/.installed ## measure beside peers, some minutes; writes bench/RESULTS.md
	$(BIN)/python -m bench

locks: $(VENV)/.development ## resolve the locks again (needs uv on the path)
	uv pip compile -q locks/build.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o locks/build.txt
	uv pip compile -q pyproject.toml --extra server --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o locks/runtime.txt
	uv pip compile -q pyproject.toml --extra server --extra postgres --extra pkcs11 --extra kms --group quality --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -c locks/runtime.txt -o locks/development.txt
	uv pip compile -q locks/peers.in --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header -o locks/peers.txt

clean: ## remove what was built
	rm -rf dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
