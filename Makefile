# Everything that a person does here. `make` and `make help` list it.
# ARGS goes to the command: make demo ARGS=--json, make test ARGS="tests/hsm -k pki".
# EXTRAS=emulators adds to what is installed what the tests want besides and a user does not need.

PYTHON_BIN := .venv/bin/python
ROOMS := protocol codecs hsm terminals routing switch ext
ARGS ?=
EXTRAS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test simulate fuzz chaos rotate-drill lint types build bench clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: ## Install what is missing: system packages, .venv, pinned packages, compiled modules; EXTRAS=emulators
	@sh deploy/setup.sh $(EXTRAS)

demo: setup ## Trade one season through a real switch, real terminals and real back ends
	@.venv/bin/fengshou demo $(ARGS)

test: setup ## Run the tests
	@$(PYTHON_BIN) -m pytest -n 2 $(ARGS)

simulate: setup ## Run 200 seeds of the simulated network, or ARGS="--seeds 1-5000"
	@.venv/bin/fengshou simulate $(ARGS)

fuzz: setup ## Fuzz what reads a peer's bytes, the compiled modules under AddressSanitizer too; ARGS="--seconds 600"
	@$(PYTHON_BIN) -m tests.fuzz $(ARGS)
	@$(PYTHON_BIN) -m tests.fuzz --sanitize $(ARGS)

chaos: setup ## Kill processes and break connections under load, many times more than the tests do
	@FENGSHOU_CHAOS=40 $(PYTHON_BIN) -m pytest tests/switch/test_kills.py tests/switch/test_chaos.py --timeout 3600 $(ARGS)

rotate-drill: setup ## Rotate every kind of key, ten times over, while terminals trade; ARGS="-x"
	@FENGSHOU_ROTATIONS=10 $(PYTHON_BIN) -m pytest tests/switch/test_rotation.py -k every_key --timeout 3600 $(ARGS)

lint: setup ## Ruff: rules and format
	@$(PYTHON_BIN) -m ruff check .
	@$(PYTHON_BIN) -m ruff format --check .

# From build/, because at the root ./codecs would stand for the standard library's.
types: setup ## Strict mypy
	@ln -sfn ../../bench build/namespace/bench
	@cd build && ../$(PYTHON_BIN) -m mypy --config-file ../pyproject.toml $(addprefix namespace/fengshou/,$(ROOMS)) namespace/bench

build: setup ## A wheel in dist/
	@$(PYTHON_BIN) -m pip wheel -q --disable-pip-version-check --no-build-isolation --no-deps -w dist .

bench: setup ## Measure each stage and the whole switch; keep the figures in bench/results/
	@$(PYTHON_BIN) -m bench $(ARGS)

clean: ## Remove what was built, the virtual environment too
	@rm -rf .venv build dist var *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks
	@find . -name '*.so' -delete -o -name __pycache__ -prune -exec rm -rf {} +
