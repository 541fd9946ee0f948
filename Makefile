# `make test` needs nothing but Python >= 3.10 with venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: test test-long lint clean

test: $(VENV)/.installed lint
	$(BIN)/python -m pytest

test-long: $(VENV)/.installed
	$(BIN)/python -m pytest -m long

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy handos_model handos_ros training/handos_training

$(VENV)/.installed: pyproject.toml training/pyproject.toml constraints.txt setup.py setup.cfg
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) -e '.[torch,export,cpu,ros-free,dev]'
	$(PIP) -e training
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info training/*.egg-info
