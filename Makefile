# Each target is one command that can also be typed by hand. `make help` lists them; what a newcomer needs comes first.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet --quiet

.DEFAULT_GOAL := help
.PHONY: help venv demo serve console test test-quick coverage check lint types imports dependencies lint-contract lint-console fix chaos fuzz fuzz-events client pictures lock audit release-contracts clean

help: ## List these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Create the environment in .venv; the other commands do it when it is missing

# The build back end is in the lock file too, so that installing the project itself downloads nothing more.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("runcast needs Python 3.11 or newer; %s is %s. Name another: make PYTHON=python3.12" \
	  % (sys.executable, sys.version.split()[0]) if sys.version_info < (3, 11) else 0)'
	@echo "Making the environment in $(VENV) …"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
	@$(PIP) install --require-hashes -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

demo: venv ## Show all of it: create, build and launch on a temporary server
	@$(BIN)/runcast demo

serve: console ## Start the server; Ctrl-C stops it (options: ARGS="--port 9000")
	@$(BIN)/runcast serve $(ARGS)

console: venv ## Build the web pages, if their sources have changed
	@$(BIN)/python console/build.py

# Two files at a time, the long ones first (tests/conftest.py). Each starts processes of its own; with more at a time on two cores, tests that
# measure time fail.
PYTEST := -m pytest --dist loadfile --no-loadscope-reorder
QUICK  := not browser and not builds and not chaos and not slow

test: console ## Run all tests (options: ARGS="-n 0 -k cancel"; -n 0 runs one at a time)
	@$(BIN)/python $(PYTEST) -n 2 $(ARGS)

test-quick: venv ## Run the tests that need less than a minute together
	@$(BIN)/python $(PYTEST) -n 2 -m "$(QUICK)" $(ARGS)

coverage: console ## Run all tests and print the branch coverage, of the processes of servers too
	@$(BIN)/coverage erase
	@COVERAGE_FILE=$(CURDIR)/.coverage $(BIN)/coverage run $(PYTEST) -n 2 $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report

check: lint types imports dependencies lint-contract lint-console ## Check format, types, imports, dependencies and contracts; changes no file

lint: venv
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --quiet --check

types: venv
	@$(BIN)/mypy --no-error-summary

imports: venv
	@$(BIN)/lint-imports --no-logo

# Twice: tests may import what is needed for development only.
dependencies: venv
	@$(BIN)/deptry --no-ansi .
	@$(BIN)/deptry --no-ansi --exclude '\.venv' --ignore DEP002,DEP004 .

# Node comes with the environment; the packages that the tools need are installed into tests/node once.
lint-contract: venv
	@$(BIN)/python tests/node/run.py lint-contract

# Biome and tsc, on the console, its client and tests/node. Installs their npm packages once.
lint-console: venv
	@$(BIN)/python console/build.py check

fix: venv ## Format the code, and repair what the linters can repair
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format
	@$(BIN)/python console/build.py fix

chaos: venv ## Inject faults into a server of its own, and show what it survived (options: ARGS="--only kills --seed 7")
	@PYTHONPATH=tests $(BIN)/python -m chaos $(ARGS)

fuzz: venv ## Send random requests to a server of its own (options: ARGS="--max-examples 500 --seed 7")
	@PYTHONPATH=tests $(BIN)/python -m support.fuzz $(ARGS)

fuzz-events: venv ## Send random events to a server of its own, over both transports (options: ARGS="--examples 500 --seed 7")
	@PYTHONPATH=tests $(BIN)/python -m support.fuzz_events $(ARGS)

client: venv ## Pack the TypeScript client for npm, as dist/runcast-client-VERSION.tgz
	@$(BIN)/python console/build.py pack

pictures: console ## Take the screenshots for README.md
	@PYTHONPATH=tests $(BIN)/python -m support.pictures

lock: venv ## Pin the newest allowed releases in requirements.lock
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --no-emit-index-url --generate-hashes \
	  --custom-compile-command "make lock" --group dev --output-file requirements.lock pyproject.toml

# Not a part of `check`, which gives the same result every day: this asks databases on the network. `--strict`: unknown packages fail, too.
audit: venv ## Look up known vulnerabilities of all pinned packages (needs the network)
	@$(BIN)/uv tool run pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

release-contracts: venv ## Keep copies of the contracts of this version, for the compatibility check
	@$(BIN)/python -c 'import pathlib, shutil, tomllib; \
	  folder = pathlib.Path("openapi/released", tomllib.load(open("pyproject.toml", "rb"))["project"]["version"]); folder.mkdir(parents=True); \
	  [shutil.copy(path, folder) for path in pathlib.Path("openapi").glob("*.yaml")]'

clean: ## Remove the environment and all files that tools have made
	@rm -rf $(VENV) build dist .coverage .coverage.* .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .schemathesis tests/node/node_modules \
	  console/node_modules console/client/dist console/client/src/generated console/src/generated handlers/console
	@find handlers jobs openapi tests -name __pycache__ -prune -exec rm -rf {} +
