# `make search` is the demo of two minutes, `make fashion` a longer one with a trained champion, `make test` runs the tests.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
ARGS   ?=

.DEFAULT_GOAL := help
.PHONY: help install search fashion elastic test bench chaos lint ui

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## create .venv and install raysearch with the tested versions

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

search: $(STAMP)  ## search the best small transformer for handwritten digits; ARGS="--seed 1" adds options
	$(BIN)/python experiments/search.py digits $(ARGS)

fashion: $(STAMP)  ## clothes: search within 5-8 M MACs, champion fine-tuned, beside random, uniform and largest; an hour or so; goes on
	$(BIN)/python benchmarks/fashion.py $(ARGS)

elastic: $(STAMP)  ## a pretrained network made elastic, beside four other ways to a network of its cost; 40 minutes; goes on
	$(BIN)/python benchmarks/elastic.py $(ARGS)

test: $(STAMP)  ## run the tests; ARGS="-k space" selects
	$(BIN)/python -m pytest --numprocesses 2 $(ARGS)

bench: $(STAMP)  ## measure speed, data, memory, orchestration, racing, latency, algorithms and utilisation on this machine; docs/benchmarks.md explains
	for name in speed data memory orchestration racing latency algorithms utilisation; do $(BIN)/python benchmarks/$$name.py $(ARGS) || exit 1; done

chaos: $(STAMP)  ## random faults against real searches for half an hour: the result must be the undisturbed one; ARGS="--minutes 8 --seed 1"
	$(BIN)/python benchmarks/chaos.py $(ARGS)

lint: $(STAMP)  ## ruff, pyright (strict) and the import layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

ui: $(STAMP)  ## open the MLflow record of the searches in runs/; ARGS="URI --port 5001" names another store or port
	$(BIN)/python experiments/ui.py $(ARGS)
