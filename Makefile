# Everything a fresh machine needs: Python >= 3.11 and make. Start with `make demo` or `make test`.

PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# On Linux plain torch is the CUDA build, several gigabytes. To get another build:
#   make demo TORCH_INDEX=<address of an index of torch wheels>
TORCH_INDEX ?=
INDEX = $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
N ?= 16
SERVE ?= 1
PORT ?= 8050
LECTURE_PORT ?= 8060

# Threads that wait without spinning, and one core left for the browser.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test study mutate lint bench weights docs lecture screenshots clean

help:
	@echo "make demo    record the comparison with the shipped weights, write the report, serve the dashboard"
	@echo "make test    run all tests       make lint    ruff, mypy, import rules"
	@echo "make study   long studies        make bench   benchmarks, as ratios"
	@echo "make mutate  change one place of each function and see whether a test notices (15 minutes)"
	@echo "make weights make the shipped network and its run again (1.5 hours on two cores)"
	@echo "make docs    build the lessons, slides and pages"
	@echo "make lecture show them           make screenshots  pictures of the dashboard for them"
	@echo "make clean   remove what was made"

# ------------------------------------------------------------------ set-up

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: make demo PYTHON=/path/to/python3.11"; exit 1; }
	@echo "== making a virtual environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing diffviz and what it needs (about a minute; torch is large)"
	@$(PIP) $(INDEX) -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing diffviz with its test tools (about a minute; torch is large)"
	@$(PIP) $(INDEX) -e ".[test]"
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-docs: pyproject.toml constraints.txt | $(BIN)/python
	@echo "== installing diffviz with its documentation tools"
	@$(PIP) $(INDEX) -e ".[docs]"
	@touch $@ $(VENV)/.installed

$(VENV)/.chromium: $(VENV)/.installed-test
	@if $(BIN)/python -m tests.browser; then :; \
	elif [ "$$(id -u)" = 0 ] && grep -qs '^ID=debian' /etc/os-release; then \
		echo "== installing Chromium for the browser tests"; \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends \
			chromium fonts-dejavu-core fonts-noto-cjk >/dev/null; \
	else \
		echo "== installing Chromium for the browser tests"; \
		$(BIN)/playwright install chromium || \
			echo "!! no Chromium: the browser tests will be skipped"; \
	fi
	@touch $@

# ------------------------------------------------------------------ the two commands

demo: $(VENV)/.installed
	@mkdir -p demo
	@echo "== recording $(N) samples of three arms with the shipped weights"
	@$(BIN)/diffviz record --n $(N) --out demo/run.nc
	@echo "== writing the report"
	@$(BIN)/diffviz report demo/run.nc --out demo/report.html --json demo/numbers.json \
		$(if $(wildcard docs/_build/html/index.html),--lessons ../docs/_build/html)
	@echo "The run is demo/run.nc. Open demo/report.html in a browser."
	@if [ "$(SERVE)" = 0 ]; then :; else \
		$(BIN)/diffviz dashboard demo/run.nc --port $(PORT); fi

test: $(VENV)/.installed-test $(VENV)/.chromium
	@echo "== running all tests"
	@$(BIN)/python -m pytest -n 2 --dist worksteal -q

# ------------------------------------------------------------------ the rest

study: $(VENV)/.installed-test $(VENV)/.chromium
	@HYPOTHESIS_PROFILE=study $(BIN)/python -m pytest -m slow -n 2 -q --timeout 3600

mutate: $(VENV)/.installed-test
	@$(PIP) $(INDEX) -e ".[mutate]"
	@rm -rf mutants
	@$(BIN)/python -m tests.mutate

lint: $(VENV)/.installed-test
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/deptry .

bench: $(VENV)/.installed-test $(VENV)/.chromium
	@DIFFVIZ_BENCH=docs/performance.md $(BIN)/python -m pytest -m bench tests/bench_speed.py -q \
		--timeout 1200 --benchmark-columns=min,median,rounds --benchmark-sort=name
	@echo "The table is in docs/performance.md."

weights: $(VENV)/.installed
	@$(BIN)/python weights/make.py

docs: $(VENV)/.installed-docs
	@echo "== running the cells, building pages and slides in English and Chinese (some minutes)"
	@$(BIN)/python docs/build.py
	@echo "make lecture shows them, or open docs/_build/html/index.html in a browser."

lecture:
	@test -f docs/_build/html/index.html || { echo "nothing is built yet: make docs"; exit 1; }
	@echo "Pages and slides are at http://127.0.0.1:$(LECTURE_PORT)/  (Ctrl-C ends)"
	@$(PYTHON) -m http.server $(LECTURE_PORT) --bind 127.0.0.1 --directory docs/_build/html \
		>/dev/null 2>&1

# Of a run that is recorded for it, or of one that is there: make screenshots RUN=demo/run.nc
screenshots: $(VENV)/.installed-test $(VENV)/.chromium
	@$(BIN)/python -m tests.screenshots $(RUN)

clean:
	rm -rf demo docs/_build dist build mutants
