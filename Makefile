# Each target is the script of its name, and sets up what it needs by itself, once, in .venv.
# Other options: make test ARGS="-k producer", PYTHON=python3.12 make test, VENV=/tmp/venv make test

SHELL := /bin/sh

.PHONY: help setup demo test lint bench soak clean

help:
	@echo "make demo    a short tour on a local file, without a server"
	@echo "make test    the tests, on asyncio and trio"
	@echo "make lint    style, types, and who may import whom"
	@echo "make bench   throughput and latency"
	@echo "make soak    consumers under faults, for a long time"
	@echo "make clean   throw .venv and caches away"

setup:
	@scripts/setup $(ARGS)

demo test lint bench soak:
	@scripts/$@ $(ARGS)

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist
