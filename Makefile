# The developer interface: make setup | demo | test | lint | bench. PYTHON=python3.12 names the interpreter; without it,
# the one of an environment that is there stays, and the first is made with python3.
SHELL := /bin/bash
.PHONY: setup demo test lint bench

environment = source scripts/env.sh

setup:
	@scripts/setup.sh $(PYTHON)

demo: setup
	@$(environment) && odv demo --output demo_output

test: setup
	@$(environment) && python -m pytest

lint: setup
	@$(environment) && ruff check . && ruff format --check . && mypy

bench: setup
	@$(environment) && for benchmark in synchronizer transport latency generation plan; do \
	  echo "== $$benchmark" && python benchmarks/$$benchmark.py || exit 1; done
