# `make demo` and `make test` need nothing but Python >= 3.10 with venv.
PYTHON ?= python3
VENV   ?= .venv
SOURCE ?=
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-long lint clean

# Without torch: ONNX Runtime and the embedded runtime are enough to run the shipped weights.
demo: $(VENV)/.runtime
	$(BIN)/handos demo $(if $(SOURCE),--source '$(SOURCE)')

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest

test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -m long

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy handos_model handos_ros training/handos_training

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml setup.py setup.cfg | $(BIN)/python
	$(PIP) -e '.[onnx,ros-free]'
	touch $@

$(VENV)/.installed: pyproject.toml training/pyproject.toml constraints.txt setup.py setup.cfg | $(BIN)/python
	$(PIP) torch
	$(PIP) -e '.[torch,export,cpu,ros-free,view,dev]'
	$(PIP) -e training
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info training/*.egg-info
