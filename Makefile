# The developer interface: make setup | demo | test | lint | bench. PYTHON=python3.12 names the interpreter; without it,
# the one of an environment that is there stays, and the first is made with python3.
SHELL := /bin/bash
.PHONY: setup demo test lint bench

environment = source scripts/env.sh

setup:
	@scripts/setup.sh $(PYTHON)

demo: setup
	@$(environment) && odv demo --output demo_output

# What keeps time has both cores to itself; all else runs in two processes of one thread each.
timed = test/ros test/launch test/test_setup.py \
  $(patsubst %,test/cli/test_%.py,bench demo doctor keyframe launcher play replay stand_in_messages)
test: setup
	@$(environment) && status=0; \
	OMP_NUM_THREADS=1 python -m pytest -n 2 --dist loadfile test $(timed:%=--ignore=%) || status=1; \
	python -m pytest $(timed) || status=1; \
	exit $$status

lint: setup
	@$(environment) && ruff check . && ruff format --check . && mypy

bench: setup
	@$(environment) && for benchmark in synchronizer transport latency generation plan; do \
	  echo "== $$benchmark" && python benchmarks/$$benchmark.py || exit 1; done
