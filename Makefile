# Everything on a fresh machine with Python >= 3.11 and make. Targets:
# demo, test, test-all, check, coverage, lint, faults, paper, docs, setup
PYTHON ?= python3
BIN := .venv/bin

.PHONY: setup demo test test-all check coverage faults paper docs lint
.DELETE_ON_ERROR:

setup: .venv/.installed  ## create .venv and install the pinned versions

.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; try make PYTHON=python3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[slurm,ray,release,dev,docs]'
	@$(BIN)/python -m methods.kernels
	@touch $@

demo: setup  ## the default suite on embedded data, then its exhibits: runs/exhibits/index.html
	$(BIN)/python -m benchmark run
	$(BIN)/python -m analysis build --results runs --out runs/exhibits

lint: setup  ## lint, format, types, layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint  ## what a change must pass before it is committed: lint, and the fast tests, or those of TESTS=FOLDERS
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" $(TESTS)

test: setup  ## all tests but the rare ones, three at a time, as many mostly wait
	$(BIN)/python -m pytest -q -n 3 --dist loadfile --durations 40 --no-loadscope-reorder -m "not rare"

test-all: setup  ## install the libraries that tests/libraries tries, then run all tests, the rare ones too
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -r tests/libraries/requirements.txt
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations 15 --no-loadscope-reorder

coverage: setup  ## the share of lines that the fast tests run in their own process: coverage/index.html; half an hour on two cores
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not slow" --cov --cov-report term --cov-report html:coverage $(TESTS)

faults: setup  ## fifty kills in one grid, then the seconds and memory that 10,000 cells take
	BENCH_TEST_KILLS=50 $(BIN)/python -m pytest -q -s tests/benchmark/launch/test_kills.py
	folder=$$(mktemp -d) && $(BIN)/python tests/benchmark/large_grid.py "$$folder"; code=$$?; rm -rf "$$folder"; exit $$code

paper: setup  ## the paper's tables and figures from the measured tables, and paper_figures/index.html
	$(BIN)/python -m analysis build --results paper_figures/results --out paper_figures

docs: setup  ## the pages of docs/ as a site, site/index.html; a warning or a dead link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
