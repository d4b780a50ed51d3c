# `make demo` and `make test` need Python 3.11+ and nothing else of ours; both make .venv first.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Labelled text to measure the bundled models on: see benchmarks/injection/bundled_models.py
DATA ?= data/injection

.PHONY: demo test lint bench serve

demo: $(INSTALLED)  ## train a small model, classify examples/prompts.jsonl, show the decisions
	$(BIN)/python examples/demo.py

test: $(INSTALLED)  ## the tests, under 5 minutes on 2 cores
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(INSTALLED)  ## measure the bundled models: make bench DATA=PATH
	$(BIN)/python -m benchmarks.injection.bundled_models prepare $(DATA) && $(BIN)/python -m benchmarks.injection.bundled_models measure $(DATA)

serve: $(INSTALLED)  ## the default policy over HTTP, on this machine alone
	$(BIN)/guardkit serve

# Made last, so that an interrupted install is tried again; made anew when a dependency changes.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -c constraints.txt -e ".[dev]"
	touch $@
