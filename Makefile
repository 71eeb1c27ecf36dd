# make demo   everything from a fresh clone to a talking face on http://127.0.0.1:8000
# make setup  .venv with the `visavis` command, and the web page
# make test   formatting, lint, types, import rules, tests, browser tests
# make bench  what this machine can do;  make eval  how good the model is
# make adapters  the LiveKit and Pipecat adapters against the real packages, as make test does too
# make lint   the checks without the tests;  make clean  undo it all
# make gpu-check  kernels, the 14B model's parts and the embedded model on the GPU here

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PORT ?= 8000
# The lock was made with 3.11, so that it is tried first; any from 3.11 on may do.
ifndef PYTHON
PYTHON := $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
endif
# The landmark detector has wheels for these only.
PYTHON_LANDMARKS = $(shell for p in python3.11 python3.12; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
PYTEST ?= -q
EVAL ?=
BENCH ?=

WEB := clients/web
# The folders, too: a file that was removed changes what is built as well.
WEB_SOURCES := $(shell find $(WEB)/src $(WEB)/public $(WEB)/*.json $(WEB)/*.ts $(WEB)/*.mjs $(WEB)/*.html \
	-not -name '*.test.ts' 2>/dev/null)
NPM := $(BIN)/python scripts/web.py
RUNTIME := $(VENV)/.done-runtime
DEV := $(VENV)/.done-dev
ADAPTERS := .venv-adapters/.done
MODULES := $(WEB)/node_modules/.done
PAGE := $(WEB)/dist/index.html

.PHONY: setup demo test lint bench gpu-check eval adapters train-setup lock protocol reference clean
.DELETE_ON_ERROR:

setup: $(RUNTIME) $(PAGE)

$(RUNTIME): requirements/lock.txt pyproject.toml clients/python/pyproject.toml scripts/setup_venv.py
	@test -n "$(PYTHON)" || { echo "setup: no Python 3.11 or newer found; on Debian: apt-get install python3 python3-venv" >&2; exit 1; }
	$(PYTHON) scripts/setup_venv.py $(VENV) requirements/lock.txt \
		--editable . --editable clients/python \
		--check "torch, cv2, av, simplejpeg, soxr, ai_edge_litert.interpreter"
	@touch $@

# The tests also cover training and the GPU kernels (in Triton's interpreter), and `visavis eval`
# renders its own speech.
$(DEV): $(RUNTIME) requirements/dev.txt requirements/train.txt requirements/gpu.txt
	$(PYTHON) scripts/setup_venv.py $(VENV) requirements/dev.txt requirements/train.txt requirements/gpu.txt \
		--check "pytest, mypy, playwright, onnxruntime, hibari, piper, tensorboard"
	@touch $@

$(MODULES): $(WEB)/package-lock.json | $(RUNTIME)
	$(NPM) ci --no-audit --no-fund
	@touch $@

$(PAGE): $(MODULES) $(WEB_SOURCES)
	$(NPM) run build
	@touch $@

demo: setup
	@echo "demo: the page is http://127.0.0.1:$(PORT) (Ctrl-C ends the server)"
	$(BIN)/visavis serve --port $(PORT) --open

lint: $(DEV) $(MODULES)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(NPM) run check

# Chromium only matters to the browser tests, which say so and skip without it. Unit tests run side
# by side, a core each; the others talk to servers in real time and have the machine for themselves.
test: setup $(DEV) $(ADAPTERS) lint
	$(NPM) test
	$(BIN)/python scripts/setup_venv.py $(VENV) --apt chromium=chromium
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST) -n auto --maxprocesses 8 --dist loadfile tests/unit
	$(BIN)/python -m pytest $(PYTEST) --ignore tests/unit

bench: $(RUNTIME)
	$(BIN)/visavis bench $(BENCH)

# The LiveKit and Pipecat adapters of the Python client against the real packages.
adapters: $(DEV) $(ADAPTERS)
	$(BIN)/python -m pytest -q tests/e2e/test_adapters.py

# After the other environment: both build the same package in its folder.
$(ADAPTERS): requirements/adapters.txt clients/python/pyproject.toml | $(RUNTIME)
	@test -n "$(PYTHON)" || { echo "adapters: no Python 3.11 or newer found" >&2; exit 1; }
	$(PYTHON) scripts/setup_venv.py .venv-adapters requirements/adapters.txt --no-compile \
		--editable clients/python --check "livekit.agents, pipecat, visavis_client, pytest"
	@touch $@

# Says so and fails without a GPU. The lock has PyTorch for CPUs: name a Python whose PyTorch has CUDA,
# which needs nothing of this project installed: make gpu-check GPU_PYTHON=python3 GPU_CHECK="--minutes 5"
GPU_PYTHON ?= $(BIN)/python
GPU_CHECK ?=
gpu-check: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(RUNTIME))
	$(GPU_PYTHON) scripts/gpu_check.py $(GPU_CHECK)

# What the training stages need besides Python packages: a synthesiser and word lists.
train-setup: $(DEV)
	@command -v espeak-ng >/dev/null && test -e /usr/share/dict/polish || { \
		echo "train-setup: apt-get install espeak-ng wamerican wngerman wfrench wspanish witalian wportuguese wdutch wpolish" >&2; exit 1; }

eval: $(DEV) .venv-landmarks/.done
	$(BIN)/visavis eval $(EVAL)

.venv-landmarks/.done: requirements/landmarks.txt
	@test -n "$(PYTHON_LANDMARKS)" || { echo "eval: MediaPipe 0.10.14 needs Python 3.11 or 3.12" >&2; exit 1; }
	$(PYTHON_LANDMARKS) scripts/setup_venv.py .venv-landmarks requirements/landmarks.txt \
		--check "mediapipe, cv2, dlib"
	@touch $@

lock:
	$(BIN)/python scripts/lock.py

# The clients' protocol types, from the server's definition of the protocol.
protocol:
	$(BIN)/python scripts/generate_protocol.py

# The Python client's reference, from its docstrings.
reference:
	$(BIN)/python scripts/generate_sdk_reference.py

clean:
	rm -rf $(VENV) .venv-landmarks .venv-adapters $(WEB)/node_modules $(WEB)/dist $(WEB)/build build *.egg-info src/*.egg-info \
		clients/python/*.egg-info clients/python/build clients/conformance/build .mypy_cache .ruff_cache .pytest_cache \
		.hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
