# make nightly    set up and run the whole main job (simulated ticks)
# make nightly DATA=../shared/data/binance    the same on real ticks
# make test       set up and pass the tests
VENV ?= .venv
DATA ?=
JOBS ?= 2
BIN := $(VENV)/bin
export VENV

.PHONY: help setup nightly test check lint types imports docs unit library bench bench-repeat bench-data bench-triton bench-overhead swap-load story story-oncall up down chaos ui audit clean
help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## make .venv from requirements.lock
$(VENV)/.ready: requirements.lock pyproject.toml infra/setup.sh
	infra/setup.sh

nightly: setup ## set up and run the nightly retraining (DATA=URI for real ticks)
	$(BIN)/tickline nightly $(if $(DATA),--data $(DATA))

test: setup ## set up and run every check
	@started=$$(date +%s) && $(MAKE) --no-print-directory lint types imports docs unit && \
	$(BIN)/python -m tests.summary $$started

check: setup lint types imports docs library ## style, types, imports, pages, tests without servers

lint: setup ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## strict types
	$(BIN)/mypy

imports: setup ## import directions
	$(BIN)/lint-imports

docs: setup ## the pages as a site in site/; a dead link or an unknown name fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

unit: setup ## all tests, in JOBS processes, with coverage
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --junitxml=.pytest_cache/tests.xml \
		--cov --cov-report=

library: setup ## tests of the pure library
	$(BIN)/python -m pytest -n $(JOBS) -q -m "not servers and not slow" tests/model_code

bench: setup ## every engine side by side (DATA=URI for real ticks)
	$(BIN)/tickline bench $(if $(DATA),--data $(DATA))

bench-repeat: setup ## the same five times: how well do they agree?
	$(BIN)/tickline bench --repeat 5 $(if $(DATA),--data $(DATA))

bench-data: setup ## speed of features and validation
	$(BIN)/python -m tests.bench.bench_features $(if $(DATA),--data $(DATA))
	$(BIN)/python -m tests.bench.bench_validation

bench-triton: setup ## what the server costs at batch 1, and where the time goes
	$(BIN)/python -m tests.bench.bench_triton

bench-overhead: setup ## what Prefect and MLflow cost a nightly (DATA=URI for real ticks)
	$(BIN)/python -m tests.bench.bench_overhead $(if $(DATA),--data $(DATA))

swap-load: setup ## swaps and rollbacks of a real Triton under 8 clients, 50,000 requests
	$(BIN)/python -m tests.bench.swap_load

story: setup ## night, approval, swap, refusal, rollback on real servers (DATA=URI for real ticks)
	$(BIN)/python -m flows.demos.promotion $(if $(DATA),--data $(DATA))

up: setup ## start the stack: Prefect, worker, MLflow, Triton (WITH=redis,kafka for more)
	$(BIN)/tickline up $(if $(WITH),--with $(WITH))

down: setup ## stop the stack
	$(BIN)/tickline down

story-oncall: setup ## kill a nightly's worker in training, recover (DATA=URI for real ticks)
	$(BIN)/python -m flows.demos.oncall $(if $(DATA),--data $(DATA))

chaos: setup ## every planted fault; prints the table of docs/reliability.md (TABLE=FILE writes it)
	CHAOS=all CHAOS_TABLE=$(TABLE) $(BIN)/python -m pytest tests/chaos

ui: setup ## open Prefect's and MLflow's pages
	$(BIN)/tickline ui

audit: setup ## look the locked packages up among known vulnerabilities
	infra/audit.sh

clean: ## remove the environment and caches, never results
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage
