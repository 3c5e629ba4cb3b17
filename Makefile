# A thin task runner: everything here is one command that can also be typed by hand. `make help` lists what there is.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

.DEFAULT_GOAL := help
.PHONY: help venv console client pictures demo serve test chaos check audit lint lint-contract types imports dependencies fix lock release-contracts fuzz fuzz-events clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Make the environment, .venv

# The build back end is in the lock as well, so that installing the project itself fetches nothing more.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("runcast needs Python 3.11 or newer; %s is %s. Name another: make PYTHON=python3.12" \
	  % (sys.executable, sys.version.split()[0]) if sys.version_info < (3, 11) else 0)'
	@echo "Making the environment in $(VENV) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

console: venv ## Build the pages, if their sources have changed since
	@$(BIN)/python console/build.py

client: venv ## Pack the typed client for npm, as dist/runcast-client-VERSION.tgz
	@$(BIN)/python console/build.py pack

pictures: console ## Take the pictures of the page that README.md shows
	@PYTHONPATH=tests $(BIN)/python -m support.pictures

demo: venv ## Show it all: create, build and launch on a server of its own
	@$(BIN)/runcast demo

serve: console ## Start the server and stay (ARGS="--port 9000" passes options)
	@$(BIN)/runcast serve $(ARGS)

# Two files at a time, the long ones first. Each needs processes of its own: more at a time gives none of them enough of the machine.
test: console ## Run every test (ARGS="-n 0 -k cancel" passes options; -n 0: one at a time)
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: venv ## Do every fault to a service of its own, and show what it survived (ARGS="--only kills --seed 7")
	@PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

check: lint types imports dependencies lint-contract ## Fail on anything that is not clean

lint: venv
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check

types: venv
	@$(BIN)/mypy --no-error-summary

imports: venv
	@$(BIN)/lint-imports --no-logo

# Twice: tests may import what is needed for development only.
dependencies: venv
	@$(BIN)/deptry .
	@$(BIN)/deptry --exclude '\.venv' --ignore DEP002,DEP004 .

# Node comes with the environment; the packages that the tools need are installed into tests/node once.
lint-contract: venv
	@$(BIN)/python tests/node/run.py lint-contract

# Not a part of `check`: it asks databases on the network, and `check` says the same tomorrow as today. `--strict`: what they do not know fails, too.
audit: venv ## Ask for known vulnerabilities of all that is pinned (needs the network)
	@$(BIN)/uv tool run pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

fix: venv ## Repair what can be repaired by itself
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

lock: venv ## Pin the newest allowed releases in requirements.lock
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-emit-index-url --generate-hashes \
	  --custom-compile-command "make lock" --group dev --output-file requirements.lock pyproject.toml

release-contracts: venv ## Keep the contracts as those of the release that pyproject.toml names, for clients to be held against
	@$(BIN)/python -c 'import pathlib, shutil, tomllib; \
	  folder = pathlib.Path("openapi/released", tomllib.load(open("pyproject.toml", "rb"))["project"]["version"]); folder.mkdir(parents=True); \
	  [shutil.copy(path, folder) for path in pathlib.Path("openapi").glob("*.yaml")]'

fuzz: venv ## Fuzz a server of its own through the contract (ARGS="--max-examples 500 --seed 7")
	@PYTHONPATH=tests $(BIN)/python -m support.fuzz $(ARGS)

fuzz-events: venv ## Fuzz the events of a server of its own, over both transports (ARGS="--examples 500 --seed 7")
	@PYTHONPATH=tests $(BIN)/python -m support.fuzz_events $(ARGS)

clean: ## Remove the environment and everything that tools left
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .schemathesis tests/node/node_modules \
	  console/node_modules console/client/dist console/client/src/generated console/src/generated handlers/console
	@find handlers jobs openapi tests -name __pycache__ -prune -exec rm -rf {} +
