# make install   the set-up that the others depend on; TORCH_INDEX chooses a build of torch:
#                make install TORCH_INDEX=https://download.pytorch.org/whl/cpu
# make study     a study of the embedded synthetic world, from search to test
# make check     what to run before a commit: linter, types, contracts, quick tests (under a minute)
# make test      what CI runs: `make check` with all tests (under ten minutes)
# make bench     the measurements of docs/performance.md; ONLY=step,store chooses sections
# make graph     docs/architecture.svg, the import graph of the floors

PYTHON ?= python3
TORCH_INDEX ?=
JOBS ?= auto
VENV := .venv
BIN := $(VENV)/bin
# Processes share the cores better than the threads of each of them would.
PARALLEL := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --maxprocesses 8 --dist worksteal

.PHONY: install study check test bench graph lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt torch \
		$(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		--editable '.[dev]'
	@touch $@

study: install
	$(BIN)/python studies/mlkd_search.py --test

check: lint
	$(PARALLEL) -m "not ray and not slow"

# Tests that start a Ray have the machine to themselves.
test: lint
	$(PARALLEL) -m "not ray"
	$(BIN)/python -m pytest -m ray

bench: install
	$(BIN)/python tests/benchmarks/run.py $(if $(ONLY),--only $(ONLY)) $(if $(OUT),--out $(OUT))

graph: install
	$(BIN)/python docs/architecture.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
