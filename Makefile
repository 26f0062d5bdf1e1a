# make setup      the environment in .venv, with the versions that were tested
# make demo       the main study on the default model: table, figure, page
# make check      formatter, linter, type checker, import contract
# make test       every test but the slow ones;  make test-slow  the slow ones
# make notebooks  run the notebooks and keep their outputs

PYTHON ?= python3
BIN := .venv/bin
TEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=2 --dist=load
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

.PHONY: setup demo check format test test-slow notebooks clean

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; PYTHON=... names another one" >&2; exit 1; }
	@echo "installing into .venv (a few minutes the first time)" >&2
	@$(PYTHON) -m venv .venv
	@$(PIP) install --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	@$(BIN)/python -m experiments.head_redundancy

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright --project pyproject.toml
	$(BIN)/lint-imports

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: setup
	$(TEST) -m "not slow"

test-slow: setup
	$(TEST) -m slow --durations=20

notebooks: setup
	$(BIN)/python tests/notebooks/keep.py

clean:
	rm -rf .venv runs
