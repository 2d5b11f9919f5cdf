# Rowhouse: `make` lists what there is.

PYTHON ?= python3
BIN = .venv/bin

.PHONY: help run test quick fuzz thorough seed lint format lock load load-ui bench bench-growth bench-soak bench-tree bench-events bench-notifications bench-tables bench-hostile audit clean
.DEFAULT_GOAL := help

help: ## Show this
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10
	@echo 'run and test take HOST= PORT= DATA_DIR= WORKERS= DATABASE_URL= (docs/operators.md says what each does)'

run: .venv/run ## Serve on http://127.0.0.1:8000, with a private PostgreSQL unless DATABASE_URL names yours
	@exec $(BIN)/gunicorn

test: .venv/test ## Run every test
	@exec $(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

quick: .venv/test ## Run in ten seconds what needs no PostgreSQL: laws, parsers, fields and files
	@exec $(BIN)/python -m pytest -m quick $(ARGS)

fuzz: .venv/test ## Answer 10,000 requests made from the OpenAPI document as it says
	@exec $(BIN)/python -m pytest -m thorough tests/test_fuzzing.py

thorough: .venv/test ## Walk whole kinds that take minutes, the fuzzing among them
	@exec $(BIN)/python -m pytest -m thorough -n 4 --dist loadfile --no-loadscope-reorder $(ARGS)

seed: .venv/run ## Put in sample data: make seed ARGS="--users 100000 --projects 10" (ARGS=--help says more)
	@exec $(BIN)/flask --app app seed $(ARGS)

lint: .venv/test ## Check style, types, SQL, migrations and the container files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/squawk sql/migrations/*.sql
	$(BIN)/hadolint container/Containerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec container/compose.yaml
	$(BIN)/python -m pytest -q tests/house/test_sql.py

format: .venv/test ## Format the Python files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lock: .venv/test ## Take the newest versions of all dependencies
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade requirements.in -o requirements.txt
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --upgrade tests/requirements.in -c requirements.txt -o tests/requirements.txt

REPORT = load/$(shell date +%Y%m%dT%H%M%S)
CROWD = .venv-bench/bin/locust --host $(or $(HOST),http://127.0.0.1:8000) --users $(or $(USERS),30) --spawn-rate 100 --stop-timeout 10

load: .venv-bench/made ## Send the crowd of locustfile.py for a minute, report in load/: HOST= TOKEN= USERS= TIME= MAX_P95= MAX_FAILURES=
	@REPORT=$(REPORT) && export REPORT && exec $(CROWD) --headless --run-time $(or $(TIME),60s) --only-summary --loglevel WARNING \
		--html $$REPORT/report.html

load-ui: .venv-bench/made ## The same, steered in a browser on http://127.0.0.1:8089
	@exec $(CROWD) --web-host 127.0.0.1

bench: .venv-bench/made ## Measure all beside FastAPI, Flask and the limits, some 15 minutes: USERS= GROWN= ROUNDS= SECONDS= KEEP=
	$(BIN)/python -m bench.side_by_side $(if $(USERS),--users $(USERS)) $(if $(GROWN),--grown $(GROWN)) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(KEEP),--keep $(KEEP))

bench-growth: .venv/run ## Measure each hot statement among 10 thousand, a million and 10 million users: KEEP=
	$(BIN)/python -m bench.growth $(KEEP)

bench-soak: .venv/run ## Read three million users through the shared connection while it is killed
	$(BIN)/python -m bench.soak

bench-tree: .venv-bench/made ## Measure the tree of a project beside FastAPI with SQLAlchemy
	$(BIN)/python -m bench.tree
	$(BIN)/python -m bench.tree --large

bench-events: .venv/test ## Measure what history and its seals cost writers, and the channel with 1,000 and 4,000 sockets
	$(BIN)/python -m bench.history
	$(BIN)/python -m bench.seals
	$(BIN)/python -m bench.events

bench-notifications: .venv-bench/made .venv/test ## Measure events from POST to Processed through RabbitMQ; kills and stops it
	$(BIN)/python -m bench.notifications
	$(BIN)/python -m bench.notifications --chaos

bench-tables: .venv/test ## Measure uploads, backups and restores beside PostgreSQL's own tools; kills the service and PostgreSQL
	$(BIN)/python -m bench.tables
	$(BIN)/python -m bench.tables --chaos

bench-hostile: .venv/test ## Measure how honest requests fare beside hostile ones
	$(BIN)/python -m bench.hostile

audit: .venv/test ## Ask the advisory database about the pinned dependencies
	$(BIN)/pip-audit --require-hashes --disable-pip -r requirements.txt

clean: ## Remove the virtual environment and the private data
	rm -rf .venv .venv-bench .data

.venv/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Rowhouse needs Python 3.11 or newer, this is " + sys.version.split()[0])'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python lacks its venv module: apt install python3-venv" >&2; exit 1; }

.venv/run: requirements.txt | .venv/bin/pip
	@echo 'Installing what requirements.txt names ...'
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r requirements.txt
	@touch $@

.venv/test: tests/requirements.txt | .venv/run
	@echo 'Installing what tests/requirements.txt names ...'
	@$(BIN)/pip install -q --disable-pip-version-check --require-hashes -r tests/requirements.txt
	@touch $@

.venv-bench/made: bench/requirements.txt | .venv/run
	@$(PYTHON) -m venv .venv-bench
	@.venv-bench/bin/pip install -q --disable-pip-version-check -r bench/requirements.txt
	@touch $@
