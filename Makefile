# make nightly    set up and run the whole main job (simulated ticks)
# make nightly DATA=../shared/data/binance    the same on real ticks
# make test       set up and pass the tests
VENV ?= .venv
DATA ?=
JOBS ?= 3
RATE ?= 200
DURATION ?= 300
BURST ?= 4
IMAGE ?= tickline:0.1.0
TICKS ?= 1000000
MILLIONS ?= 1,10,100
REFERENCE ?= 1,10
PICTURES ?=
BIN := $(VENV)/bin
export VENV

.PHONY: help setup nightly walkforward test check lint types imports docs unit library bench bench-repeat bench-data bench-scale bench-triton bench-overhead swap-load story story-oncall story-two-hosts story-live moved-home up down chaos live-load live-soak live-faults serving-faults pages image ui audit clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/.ready ## create .venv from requirements.lock
$(VENV)/.ready: requirements.lock pyproject.toml infra/setup.sh
	infra/setup.sh

nightly: setup ## set up and run the nightly retraining (DATA=URI for real ticks)
	$(BIN)/tickline nightly $(if $(DATA),--data $(DATA))

test: setup ## set up and run every check
	@started=$$(date +%s) && $(MAKE) --no-print-directory -j2 --output-sync lint types imports docs && \
	$(MAKE) --no-print-directory unit && \
	$(BIN)/python -m tests.summary $$started

check: setup lint types imports docs library ## check style, types, imports and docs; run the library's tests

lint: setup ## check style and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## check types, strictly
	$(BIN)/mypy

imports: setup ## check import directions
	$(BIN)/lint-imports

docs: setup ## build the docs in site/; fail on a dead link or an unknown name
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

unit: setup ## run all tests in JOBS processes, with coverage
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder \
		--junitxml=.pytest_cache/tests.xml --cov --cov-report=

library: setup ## run the tests of the pure library
	$(BIN)/python -m pytest -n $(JOBS) -q -m "not servers and not slow" tests/model_code

walkforward: setup ## judge the models on dates they have not seen (DATA=URI for real ticks)
	$(BIN)/tickline walkforward $(if $(DATA),--data $(DATA))

bench: setup ## measure every engine side by side (DATA=URI for real ticks)
	$(BIN)/tickline bench $(if $(DATA),--data $(DATA))

bench-repeat: setup ## run bench five times and report how well they agree
	$(BIN)/tickline bench --repeat 5 $(if $(DATA),--data $(DATA))

bench-data: setup ## measure the speed of features and validation
	$(BIN)/python -m tests.bench.bench_features $(if $(DATA),--data $(DATA))
	$(BIN)/python -m tests.bench.bench_validation

bench-scale: setup ## time and memory of validation and features, 1 to 100 million ticks (DATA, MILLIONS, REFERENCE)
	$(BIN)/python -m tests.bench.bench_scale --millions $(MILLIONS) --reference $(REFERENCE) $(if $(DATA),--data $(DATA))

bench-triton: setup ## measure the server's overhead at batch 1, part by part
	$(BIN)/python -m tests.bench.bench_triton

bench-overhead: setup ## measure Prefect's and MLflow's overhead in a nightly (DATA=URI for real ticks)
	$(BIN)/python -m tests.bench.bench_overhead $(if $(DATA),--data $(DATA))

live-load: setup ## measure the live path on real processes (DATA, RATE=200, DURATION=300 s, BURST=4)
	$(BIN)/python -m flows.demos.live_load --rate $(RATE) --duration $(DURATION) --burst $(BURST) $(if $(DATA),--data $(DATA))

live-soak: setup ## a million recorded ticks through the live path as fast as possible (DATA, TICKS)
	$(BIN)/python -m flows.demos.live_soak --ticks $(TICKS) $(if $(DATA),--data $(DATA))

live-faults: setup ## inject faults into the live path; print their table (TABLE=FILE writes it)
	CHAOS=live CHAOS_TABLE=$(TABLE) $(BIN)/python -m pytest -n 0 tests/live_faults

serving-faults: setup ## bad requests, stopped and killed processes of Triton beside 8 sound clients (DATA=PATH)
	$(BIN)/python -m flows.demos.serving_faults $(if $(DATA),--data $(DATA))

swap-load: setup ## swap and roll back a real Triton under 8 clients, 50,000 requests
	$(BIN)/python -m tests.bench.swap_load

story: setup ## demo: nightly, approval, swap, rejection, rollback, emergency on real servers (DATA=URI for real ticks)
	$(BIN)/python -m flows.demos.promotion $(if $(DATA),--data $(DATA))

up: setup ## start the stack: Prefect, worker, MLflow, Triton (WITH=redis,kafka for more)
	$(BIN)/tickline up $(if $(WITH),--with $(WITH))

down: setup ## stop the stack
	$(BIN)/tickline down

story-oncall: setup ## demo: kill a nightly's worker during training, recover (DATA=URI for real ticks)
	$(BIN)/python -m flows.demos.oncall $(if $(DATA),--data $(DATA))

story-two-hosts: setup ## demo: kill a nightly's worker on one host, recover and promote on another (DATA=URI for real ticks)
	$(BIN)/python -m flows.demos.two_hosts $(if $(DATA),--data $(DATA))

story-live: setup ## demo: live decisions, a version swapped in under the stream, drift, retraining (DATA=PATH)
	$(BIN)/python -m flows.demos.live --data $(DATA)

moved-home: setup ## demo: copy a home, hide the first, run a night in the copy from cache
	$(BIN)/python -m flows.demos.moved_home

chaos: setup ## inject every fault; print the table of docs/reliability.md (TABLE=FILE writes it)
	CHAOS=all CHAOS_TABLE=$(TABLE) $(BIN)/python -m pytest tests/chaos

pages: setup ## open every page in Chromium, take the walks of docs/walks.md (PICTURES=docs/images writes pictures)
	PICTURES=$(PICTURES) $(BIN)/python -m pytest -n 0 tests/pages

image: ## build the image; it carries the commit (IMAGE=NAME:TAG)
	docker build -f infra/compose/Dockerfile -t $(IMAGE) \
		--build-arg TICKLINE_COMMIT=$$(git describe --always --dirty --abbrev=40 --exclude '*') .

ui: setup ## serve Prefect's and MLflow's web pages
	$(BIN)/tickline ui

audit: setup ## check the locked packages for known vulnerabilities
	infra/audit.sh

clean: ## remove the environment and caches, never results
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage
