# Everything a stranger types. One virtual environment; a stamp per set of extras, renewed with pyproject.toml.
# Another Python:  make PYTHON=python3.13 VENV=.venv-3.13 test        More arguments:  make test ARGS="-k wire"

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=
DEMO   ?= runs/humaneval
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install -qq --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help demo test coverage soak check format bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.examples  ## grade HumanEval candidates with a pool of workers; Ctrl-C, and again: it goes on
	@$(BIN)/dispatch run examples.humaneval.demo:Demo --config examples/humaneval/run.toml \
	  --work-dir $(DEMO) --resume all $(ARGS) || test $$? -eq 1  # 1: some failed, as they must
	@echo; $(BIN)/dispatch show $(DEMO) 'HumanEval/0: never returns'

test: $(VENV)/.dev  ## the tests, once, on this Python (most of them wait, so three at a time)
	@$(BIN)/python -m pytest -q -n 3 $(ARGS)

coverage: $(VENV)/.dev  ## the tests again, forks and subprocesses measured; under 95 % is a failure
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q -n 3 $(ARGS)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report

soak: $(VENV)/.dev  ## 20,000 shards, while workers are killed, stopped and crashed at random
	@$(BIN)/python -m tests.faults.soak $(ARGS)

check: export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1  # do not ask the network for a newer pyright
check: $(VENV)/.dev  ## format, lint, and both type checkers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.dev  ## put the code in the shape that `check` wants, as far as a machine can
	@$(BIN)/ruff check -q --fix-only .
	@$(BIN)/ruff format -q .

bench: $(VENV)/.bench  ## the numbers we publish, beside our rivals'
	@$(BIN)/python -m benchmarks $(ARGS)

clean:  ## remove the environments and everything that was made
	@rm -rf .venv .venv-* $(VENV) build dist .coverage .coverage.* htmlcov
	@rm -rf runs .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "dispatch needs Python 3.11 or newer, and '$(PYTHON)' is not: name one, as in  make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.examples: pyproject.toml $(VENV)/.made
	@echo "installing dispatch and its examples into $(VENV)"
	@$(PIP) -e '.[cli,examples]'
	@touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.made
	@echo "installing dispatch, its examples and the tools into $(VENV)"
	@$(PIP) -e '.[cli,dev,examples]'
	@touch $@

$(VENV)/.bench: pyproject.toml $(VENV)/.made
	@echo "installing dispatch, the tools and the rivals into $(VENV)"
	@$(PIP) -e '.[bench,cli,dev,examples]'
	@touch $@
