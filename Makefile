# Two commands matter: `make demo` and `make test`. Both set up what they need, from a clean clone on a bare machine
# with python3 (3.11 or later) and, where official releases can't be downloaded, go.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
# --kind: those that `make kind` needs too.
TOOLS  ?=
# On a busy machine a wait may run out: who fails has a second try, and the summary names it (RERUN); who fails twice
# has failed.
SECOND_TRY := --reruns=1
# Two labs side by side: most of a test's time is waiting.
EMBEDDED := --numprocesses=2 --dist=loadgroup $(SECOND_TRY)

.DEFAULT_GOAL := help
.PHONY: help demo test kind lint check build package clean

help: ## What there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

$(READY): requirements-dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or later is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 has no venv module; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "Installing the locked Python packages into $(VENV) (about a minute) ..."
	@$(BIN)/pip install --quiet --require-hashes --requirement requirements-dev.lock
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

demo: $(READY) ## The article's application, running on a local control plane
	$(BIN)/velagen demo

test: $(READY) ## All tests, on the embedded control plane too; examples and bad input on each release of KubeVela
	$(BIN)/velagen tools install $(TOOLS)
	$(BIN)/pytest -m "not kind and not embedded" --numprocesses=2 --dist=worksteal
	$(BIN)/pytest -m embedded $(EMBEDDED)
	$(BIN)/pytest -m both --kubevela other $(EMBEDDED)

kind: $(READY) ## The tests on real kind clusters: real pods, real model servers; builds images where none can be pulled
	$(BIN)/pytest -m "kind and not engine" --numprocesses=2 --dist=loadfile --no-loadscope-reorder $(SECOND_TRY) --durations=20
	$(BIN)/pytest -m engine

lint: $(READY) ## Style, types, and which package imports which
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

check: $(READY) ## The committed addon is what its sources say, and passes its own checks, as do the examples
	$(BIN)/velagen build --check
	$(BIN)/velagen check

build: $(READY) ## Writes addon/ from metadata.yaml, schemas/ and definitions/
	$(BIN)/velagen build

package: $(READY) ## The addon as a tgz with a registry index, in dist/
	$(BIN)/velagen package

clean: ## Removes what was built here; the caches under ~/.cache/velagen stay
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
