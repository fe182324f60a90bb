# Each target is the script of its name, and sets up what it needs by itself, once, in .venv.
# Other options: make test ARGS="--pdb -k producer", PYTHON=python3.12 make test, VENV=/tmp/venv make test

SHELL := /bin/sh

.PHONY: help setup demo demo-kafka test lint bench soak services services-down clean

help:
	@echo "make demo        a short tour on a local file, without a server"
	@echo "make demo-kafka  the same tour on a Kafka, which is started for it"
	@echo "make test        the tests, on asyncio and trio"
	@echo "make lint        style, types, and who may import whom"
	@echo "make bench       throughput and latency"
	@echo "make soak        consumers under faults, for a long time"
	@echo "make services    start Kafka and keep it for the next tests; make services-down ends it"
	@echo "make clean       throw .venv and caches away"

setup:
	@scripts/setup $(ARGS)

demo demo-kafka test lint bench soak:
	@scripts/$@ $(ARGS)

services:
	@scripts/services up $(ARGS)

services-down:
	@scripts/services down $(ARGS)

clean: services-down
	rm -rf .services .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache dist
