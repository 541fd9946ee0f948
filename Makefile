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

# One process a package: the readers of one fork workers, which the inference libraries and the DDS
# threads of the others do not survive.
SUITES := test/handos_model test/handos_ros 'test/handos_training test/tools test/test_boundaries.py'

# With the coverage of all of them and of the processes that they start; the floor is in
# pyproject.toml.
test: $(VENV)/.installed lint
	$(BIN)/coverage erase
	set -e; for suite in $(SUITES); do $(BIN)/coverage run -m pytest $$suite; done
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-long: $(VENV)/.installed
	set -e; for suite in $(SUITES); do $(BIN)/python -m pytest -m long $$suite; done

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy handos_model handos_ros training/handos_training

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml setup.py setup.cfg | $(BIN)/python
	$(PIP) --no-compile -e '.[onnx,ros-free]'
	touch $@

$(VENV)/.installed: pyproject.toml training/pyproject.toml constraints.txt setup.py setup.cfg | $(BIN)/python
	$(PIP) torch
	$(PIP) -e '.[torch,export,cpu,ros-free,view,dev]'
	$(PIP) -e 'training[imagenet]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info training/*.egg-info
