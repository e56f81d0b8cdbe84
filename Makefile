# `make demo` and `make test` set up everything they need in .venv.
# PYTHON=... chooses another interpreter (3.11 or 3.12).
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for p in python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' 2>/dev/null \
	&& echo $$p && break; done)

# A file's tests stay in one process, for they share what takes long to make. A worker grows to 3 GB.
# Sorted by their number, the longest tests, which are few a file, would come last and alone.
WORKERS ?= $(shell n=$$(nproc); echo $$(( n < 4 ? n : 4 )))
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: help setup demo notebooks test test-all test-fast test-notebooks lint format wheel-check lock clean

help:
	@echo "make demo       install, then the whole job on generated images (page: demo/index.html)"
	@echo "make test       install, lint, type-check, build the wheel and try it elsewhere, test"
	@echo "make test-all   the tests of make test, and those that show the same once more"
	@echo "make test-fast  the tests of a second or so each, in three to four minutes"
	@echo "make notebooks  write notebooks/*.ipynb anew from their sources, notebooks/*.py"
	@echo "make test-notebooks  execute the notebooks, small"
	@echo "make lint       formatting, lint, types, import contracts"
	@echo "make lock       resolve the pinned versions anew"

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed: make PYTHON=/path/to/python3.12"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

setup: $(VENV)/.installed

demo: setup
	$(BIN)/simclr-demo --output=demo --overwrite

test: lint wheel-check
	$(PYTEST) -m "not thorough"

test-all: setup
	$(PYTEST)

# These tests hardly wait: more workers than processors would be slower.
test-fast: setup
	$(PYTEST) -n $(shell nproc) -m "not slow and not thorough"

test-notebooks: setup
	$(PYTEST) -m notebook

notebooks: setup
	$(BIN)/python notebooks/generate.py

lint: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/import_circles.py

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

wheel-check: setup
	rm -rf dist build
	$(BIN)/python -m build --wheel --no-isolation --outdir dist . > /dev/null
	test -x .wheel-venv/bin/python || $(BIN)/python -m venv .wheel-venv
	.wheel-venv/bin/python -m pip install --quiet --disable-pip-version-check -c requirements.lock dist/*.whl
	.wheel-venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/*.whl
	cd dist && ../.wheel-venv/bin/python -P ../tests/wheel_check.py

lock: setup
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra science --extra onnx --extra umap --universal --python-version 3.11 \
		--upgrade --quiet --no-header --output-file requirements.lock

clean:
	rm -rf $(VENV) .wheel-venv build dist demo *.egg-info
