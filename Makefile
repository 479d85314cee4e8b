# `make demo` and `make test` each do all they need on a machine with make and Python 3.11+.

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	2>/dev/null && echo $$python && break; done)
VENV ?= .venv
RUN := $(VENV)/bin
DEMO := runs/demo
# A worker a core, each with one thread: `make test WORKERS=1` for fewer. Workers take tests in the
# order of the files, so that what a file's tests share is made once; the notebooks, which take
# longest, come first, so that no worker is left with one at the end.
WORKERS ?= logical
PARALLEL := -n $(WORKERS) --maxprocesses=8 --dist=worksteal

.PHONY: demo test lint format notebooks clean

demo: $(VENV)/.installed  ## fit a VAE to the digits, evaluate it, leave pictures
	rm -rf $(DEMO)
	$(RUN)/latente train --data digits --latent-dim 2 --epochs 300 --out $(DEMO)
	$(RUN)/latente evaluate $(DEMO) --num-samples 2500
	$(RUN)/latente plot $(DEMO)
	$(RUN)/latente sample $(DEMO)

test: export OMP_NUM_THREADS = 1
test: $(VENV)/.developing  ## all tests but the slow studies, and the notebooks, shortened
	LATENTE_SHORT=1 $(RUN)/python -m pytest -q $(PARALLEL) \
		--nbmake --nbmake-timeout=600 notebooks tests

lint: $(VENV)/.developing  ## what CI checks beside the tests
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/basedpyright --pythonpath $(RUN)/python

format: $(VENV)/.developing
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

notebooks: $(VENV)/.developing  ## run the notebooks in full, and keep their outputs
	$(RUN)/jupyter execute --inplace --timeout=3600 notebooks/*.ipynb

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "latente needs Python 3.11, 3.12 or 3.13: none was found. \
	Install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install -q --upgrade pip

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(RUN)/python -m pip install -q -e .
	@touch $@

$(VENV)/.developing: pyproject.toml | $(VENV)/bin/python
	$(RUN)/python -m pip install -q -e '.[dev]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) runs build *.egg-info
