# make demo          a chat page on http://127.0.0.1:8000 (HOST=, PORT=, DATA= change it)
# make test          all checks and tests, in three processes (WORKERS= changes it; 0: one after the other)
# make bench         the benchmarks' table
# make crash         20,000 points of the crash simulator (POINTS=, SEED=)
# make soak          kill -9 rounds of a whole server under load (ROUNDS=)
# make soak-streams  the same under producers and readers of Durable Streams
# make clean         remove .venv and caches; data stays
#
# Each makes .venv by itself the first time.

HOST ?= 127.0.0.1
PORT ?= 8000
DATA ?= data
POINTS ?= 20000
SEED ?= 1
JOBS ?= 2
ROUNDS ?= 20
WORKERS ?= 3
PYTHON ?= python3

export PYTHON

BIN := .venv/bin

.PHONY: demo test check bench crash soak soak-streams clean

demo: .venv/installed-demo
	@$(BIN)/perdure demo --host $(HOST) --port $(PORT) --data $(DATA)

test: check
	$(BIN)/pytest -n $(WORKERS) --dist loadfile
	@scripts/left_out

check: .venv/installed-test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/installed-test
	$(BIN)/python -m benchmarks

crash: .venv/installed-test
	$(BIN)/python -m perdure.testing.crash --points $(POINTS) --seed $(SEED) --jobs $(JOBS)

soak: .venv/installed-test
	$(BIN)/python -m tests.soak --rounds $(ROUNDS)

soak-streams: .venv/installed-test
	$(BIN)/python -m tests.soak.streams --rounds $(ROUNDS)

.venv/installed-demo: pyproject.toml scripts/install
	@scripts/install demo
	@touch $@

# Everything that the demo needs is in it.
.venv/installed-test: pyproject.toml scripts/install scripts/dependency_group.py
	@scripts/install test
	@touch .venv/installed-demo $@

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
