# install: the environment; demo: the main example; test, check: what CI runs; bench: make bench NAME=store
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NAME ?= store

.PHONY: install demo test check bench clean

install: $(VENV)/installed

# torch is named with its exact version in the same command as all else: a range could bring a build of several GB.
$(VENV)/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 -e '.[train,web,import,export,examples,dev]'
	touch $@

demo: install
	$(BIN)/thalweg tune examples/imdb.toml

test: install
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The peers of the benchmarks are installed only here.
bench: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch==2.13.0 -e '.[train,web,examples,bench]'
	$(BIN)/python benchmarks/$(NAME)/run.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis
