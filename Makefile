# make setup | demo | test | lint | bench; `demo` and `test` set up what they need themselves.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Everything that the tools keep on this machine lies in .srgpt; nothing phones home.
export PREFECT_HOME ?= $(CURDIR)/.srgpt/prefect
export PREFECT_SERVER_ANALYTICS_ENABLED ?= false
export GX_ANALYTICS_ENABLED ?= false
export MLFLOW_DISABLE_TELEMETRY ?= true
export DO_NOT_TRACK ?= 1
export DVC_NO_ANALYTICS ?= 1

.PHONY: help setup triton demo test test-fast lint format bench mlflow prefect schedule constraints clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: .venv/.done .venv-triton/.done ## Make both environments: .venv (everything) and .venv-triton (the server)

triton: .venv-triton/.done ## Make the environment of the local Triton server only

.venv/.done: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	# Only its model builder is used; its dependency onnxruntime would overwrite onnxruntime-gpu.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --constraint constraints.txt onnxruntime-genai
	@touch $@

.venv-triton/.done: infra/triton/requirements.txt
	test -x .venv-triton/bin/python || $(PYTHON) -m venv .venv-triton
	.venv-triton/bin/python -m pip install --quiet --disable-pip-version-check --requirement infra/triton/requirements.txt
	@touch $@

demo: setup ## The whole chain, from procedural scenes to a promoted model on Triton (under 10 minutes on 2 cores)
	$(BIN)/srgpt demo

# Half of the time goes into waiting for processes and servers, so two workers pay even on one core.
test: setup ## All tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

test-fast: .venv/.done ## The tests that take seconds
	$(BIN)/python -m pytest -m "not slow and not triton"

lint: .venv/.done ## Style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.done ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## Every benchmark but learning.py, which takes hours; each ends with one line of JSON
	@set -e; for script in $(filter-out benchmarks/learning.py,$(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script; done

mlflow: .venv/.done ## Open the MLflow UI on http://127.0.0.1:5000
	$(BIN)/mlflow server --backend-store-uri sqlite:///.srgpt/mlflow.db --host 127.0.0.1 --port 5000

prefect: .venv/.done ## Open the Prefect UI on http://127.0.0.1:4200
	$(BIN)/prefect server start

schedule: .venv/.done ## Serve the retraining flow on its schedule (needs `make prefect` running beside it)
	PREFECT_API_URL=$${PREFECT_API_URL:-http://127.0.0.1:4200/api} $(BIN)/python -m flows.serve

constraints: .venv/.done ## Compile constraints.txt anew
	bash infra/compile-constraints.sh

clean: ## Remove what the demo made, but not the environments
	rm -rf data models exports reports .srgpt
