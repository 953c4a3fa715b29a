# Everything below needs only Python 3.10 to 3.13 with venv, and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.PHONY: grid report test docs lint clean
grid: $(READY)
	$(BIN)/python benchmarks/run_grid.py $(ARGS)

report: $(READY)
	$(BIN)/python benchmarks/report.py $(ARGS)

# Files go to the two workers as they are listed, and those of tests/faults, which take longest, come first.
test: $(READY)
	$(BIN)/python -m ruff check .
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)
	rm -rf work_dirs/grids/smoke
	$(BIN)/python benchmarks/run_grid.py --grid smoke

# The site, into docs/_build/html: a warning is an error, and so is a link to what is not there.
docs: $(READY)
	$(BIN)/python -m pip install --prefer-binary -q -c constraints.txt -e .[docs]
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo $(CURDIR)/docs/_build/html/index.html

lint: $(READY)
	$(BIN)/python -m ruff check .

# An environment that already has the full mmcv keeps it: mmcv-lite would overwrite its module.
$(READY): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' \
	  || { echo "$(PYTHON) is not Python 3.10 to 3.13; name one with: make PYTHON=python3.12 ..."; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	if $(BIN)/python -m pip show -q mmcv >/dev/null 2>&1; then extras=test; else extras=lite,test; fi; \
	  $(BIN)/python -m pip install --prefer-binary -q -c constraints.txt -e ".[$$extras]"
	touch $@

clean:
	rm -rf $(VENV)
