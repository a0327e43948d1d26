# make demo: from nothing to a report of a real chest CT.  make test: the whole suite.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
export PYTHONUTF8 = 1

.PHONY: demo test lint viewer clean

demo: .venv/.core
	$(BIN)/spicula sample
	$(BIN)/spicula analyze "$$($(BIN)/python -c 'from spicula.datasets.sample import fetch_sample; print(fetch_sample()[0].dicom)')" --out demo-findings

test: .venv/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

viewer:
	cd viewer && npm ci --no-audit --no-fund && npm run build

lint: .venv/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "error: $(PYTHON) is older than Python 3.11. Hint: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv || \
	  { echo "error: no venv module. Hint: on Debian, apt-get install python3-venv" >&2; exit 1; }

.venv/.core: pyproject.toml constraints.txt | .venv/bin/python
	SPICULA_NO_PAGE=1 $(PIP) install -q -c constraints.txt -e .
	@touch $@

.venv/.test: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install -q -c constraints.txt -e '.[train,evaluate,test]'
	@touch $@ .venv/.core

.venv/.lint: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) install -q -c constraints.txt -e '.[train,evaluate,test,lint]'
	@touch $@ .venv/.core .venv/.test

clean:
	rm -rf .venv demo-findings dist build .mypy_cache .ruff_cache
