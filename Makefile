# Every target makes its own environment: `make demo` or `make test` on a fresh clone is enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEVKIT := nuscenes-devkit==1.2.0

DEMO := configs/demo/pillar_demo.py
DEMO_DIR := work_dirs/demo
DEMO_DATA := data/synthetic/sparse3d_val.arrow

.PHONY: install demo test lint docs bench clean

install: $(STAMP)

$(STAMP): setup.py pyproject.toml requirements/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sparse3d needs Python 3.10 or newer; name one with make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable ".[dev,deploy]" --constraint requirements/constraints.txt
	$(BIN)/python -m pip install --no-deps $(DEVKIT)
	@touch $@

# Writes the synthetic data set, trains on it by the clock, tests on held-out scenes, and draws what was found.
demo: install $(DEMO_DATA)
	$(BIN)/python tools/train.py $(DEMO) --work-dir $(DEMO_DIR)
	$(BIN)/python tools/test.py $(DEMO) $(DEMO_DIR) --work-dir $(DEMO_DIR) --show-dir $(DEMO_DIR)
	@echo "pictures, the 3D page (scene.html), the checkpoint and the log are in $(DEMO_DIR)/"

$(DEMO_DATA): | install
	$(BIN)/python tools/create_data.py synthetic --root data/synthetic --force \
		--scenes 160 --val-scenes 40 --frames 2 --sweeps 1 --image-scale 0.25

test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Pages with the API; a warning is an error.
docs: install
	$(BIN)/python -m pip install --quiet --editable ".[docs]" --constraint requirements/constraints.txt
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: install
	$(BIN)/python tools/benchmark_ops.py --samples 600

clean:
	rm -rf $(VENV) build work_dirs data/synthetic
