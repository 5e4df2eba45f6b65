# Every target makes its own environment: `make demo` or `make test` on a fresh clone is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEVKIT := nuscenes-devkit==1.2.0

.PHONY: install demo test lint bench clean

install: $(STAMP)

$(STAMP): setup.py pyproject.toml requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sparse3d needs Python 3.10 or newer; name one with make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable ".[dev]" --constraint requirements/constraints.txt
	$(BIN)/python -m pip install --no-deps $(DEVKIT)
	@touch $@

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install
	$(BIN)/python tools/benchmark_ops.py

clean:
	rm -rf $(VENV) work_dirs data/synthetic
