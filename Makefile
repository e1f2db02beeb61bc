# `make demo` shows what nfvi does, `make test` checks it; both need only Python 3.11 or newer.
#
#   PYTHON=python3.12     the interpreter that the virtual environment is made with
#   VENV=path             an environment of your own; CONSTRAINTS= (empty) keeps what it has,
#                         a CUDA build of PyTorch for one
#   ARGS='-n 0 -k planar' more arguments for pytest: here no processes beside it, and fewer tests;
#                         for `make tutorials`, names of tutorials

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
OUT ?= out/demo
ARGS ?=

BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	$(addprefix --constraint ,$(CONSTRAINTS))
DEMO := $(VENV)/.nfvi-demo
DEV := $(VENV)/.nfvi-dev

.DEFAULT_GOAL := demo
.PHONY: demo picture test lint format docs tutorials clean

demo: $(DEMO)
	$(BIN)/nfvi fit models/potentials.py:pot1 "planar*8" --nuts --warmup 500 --jobs -1 --seed 1 \
		--out $(OUT)

# The picture in the README is the one that the demo draws.
picture: demo
	cp $(OUT)/comparison.png docs/_static/demo.png

# A process for each core, each with one thread: small flows are bound by the number of operations.
# Neighbouring tests stay together, as they share fits.
test: export OMP_NUM_THREADS ?= 1
test: $(DEV)
	$(BIN)/python -m pytest -n auto --dist worksteal $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DEV)
	$(BIN)/python -m sphinx -W --keep-going --quiet docs docs/_build/html

# The notebooks in docs/tutorials/ are the texts of docs/_tutorials/, run.
tutorials: $(DEV)
	$(BIN)/python docs/_tutorials/build.py $(ARGS)

clean:
	rm -rf out build dist docs/_build docs/_generated
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis

# The stamps are older than what they were installed from when a requirement has changed.
$(DEMO): pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(INSTALL) --editable '.[jobs,models,plots]'
	@touch $@

$(DEV): pyproject.toml $(CONSTRAINTS) | $(BIN)/pip
	$(INSTALL) --editable '.[dev]'
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "nfvi needs Python 3.11 or newer: make PYTHON=/path/to/one"; exit 1; }
	$(PYTHON) -m venv $(VENV)
