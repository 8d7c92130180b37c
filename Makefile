# make run                     the whole way, candles to report (SOURCE=auto|bybit|files|sample|simulated, PROFILE=quick|full, ARGS="--horizon 10")
# make check                   after every change: export, clean, lint, and the tests that are not slow (two minutes)
# make test                    lint, every chapter, then all tests
# make faults                  every input that once failed: given, wanted (one minute)
# make lint                    long lines, unused and undefined names, in notebooks and package
# make export clean            after changing a chapter: the modules and the picture of their imports
# make book                    execute every chapter on the recorded hours in the full profile, then the front page
# make readme                  README.md from the front page
# make bench                   what is meant to be fast, beside its plain form, and beside the last commit's ratios (five minutes)
# make page                    the page of a live model and the report of a run in Chromium without a screen, which has to be there: SHOTS=<folder> for pictures
# make docs                    render the site (needs Quarto)
SOURCE ?= auto
PROFILE ?= quick
ARGS ?=
BOOK_FILES ?= ../shared/data/market
BOOK_ETT ?= ../shared/data/ett
BOOK_UCR ?=
SHOTS ?= page-screenshots
PYTHON ?= python3
BIN := .venv/bin
# byte code is written by the first import: hardly more than a third of what is installed is ever imported
PIP := $(BIN)/pip install --quiet --quiet --no-compile --disable-pip-version-check
INSTALL := $(PIP) --constraint constraints.txt
unexport PYTHONDONTWRITEBYTECODE
TOOLS := PATH="$(CURDIR)/$(BIN):$$PATH"
# none of the caller's settings, and one thread: the same bits everywhere
ALONE := env $$(env | sed -n 's/^\(SSLTS_[A-Za-z0-9_]*\)=.*/-u \1/p') $(TOOLS) OMP_NUM_THREADS=1 SSLTS_THREADS=1 MPLBACKEND=agg
# a sixth of the time of two workers goes into waiting for what was started, so two cores have work for three
PYTEST := $(ALONE) $(BIN)/python -m pytest -n 3
.DEFAULT_GOAL := help
.PHONY: help run check test faults lint bench export clean readme book docs page
.NOTPARALLEL:

help:
	@sed -n 's/^# make/make/p' Makefile

# today's pip first (Python's own takes three times as long to choose versions), then torch by itself: pip
# keeps the constrained build when the package asks for a range
.venv/torch-stamp: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip
	$(INSTALL) torch
	@touch $@

.venv/run-stamp: .venv/torch-stamp pyproject.toml
	$(INSTALL) --editable .
	@touch $@

.venv/test-stamp: .venv/torch-stamp pyproject.toml
	$(INSTALL) --editable '.[dev]'
	@touch .venv/run-stamp $@

run: .venv/run-stamp
	@$(BIN)/sslts run --source $(SOURCE) --profile $(PROFILE) $(ARGS)

check: export clean lint
	$(PYTEST) --dist loadfile -m "not slow"

# the tests know the sample only: no network, no files; two chapters at a time, then three files of tests
test: lint
	$(ALONE) SSLTS_SOURCE=sample SSLTS_PROFILE=quick $(BIN)/nbdev-test --n-workers 2 --do-print
	$(PYTEST) --dist loadfile --no-loadscope-reorder

faults: .venv/test-stamp
	$(PYTEST) tests/test_faults_*.py

lint: .venv/test-stamp
	$(BIN)/ruff check --quiet

bench: .venv/test-stamp
	$(ALONE) $(BIN)/python benchmarks/bench.py $(ARGS)

export: .venv/test-stamp
	$(TOOLS) nbdev-export
	$(BIN)/python tools/house.py

clean: .venv/test-stamp
	$(TOOLS) nbdev-clean

readme: .venv/test-stamp
	$(BIN)/python tools/readme.py

# the chapters record their figures in nbs/results/, and the front page reads them there
book: export
	$(ALONE) SSLTS_SOURCE=files SSLTS_FILES=$(BOOK_FILES) SSLTS_ETT=$(BOOK_ETT) SSLTS_UCR=$(BOOK_UCR) SSLTS_PROFILE=full \
		$(BIN)/nbdev-test --save --do-print --n-workers 1 --cell-timeout 0 --file-re '^[0-9]'
	$(ALONE) $(BIN)/nbdev-test --save --n-workers 1 nbs/index.ipynb
	$(MAKE) clean readme

# nothing is installed: neither the environment of `make test` nor a browser (CHROMIUM names one that is not on the path)
page:
	@test -x $(BIN)/python || { echo "make: no $(BIN), which \`make test\` makes" >&2; exit 1; }
	$(ALONE) $(BIN)/python tests/browser_page.py $(SHOTS)
	$(ALONE) $(BIN)/python tests/browser_report.py $(SHOTS)

# every warning, foreign host and dead link of the built site is shown, and is an error;
# not by nbdev-docs, which keeps what Quarto says to itself
docs: .venv/test-stamp
	$(TOOLS) nbdev-proc-nbs >docs.log 2>&1 || { tail -40 docs.log; exit 1; }
	$(BIN)/python tools/prepare.py _proc
	cd _proc && quarto render --no-cache >>../docs.log 2>&1 || { tail -40 ../docs.log; exit 1; }
	rm -rf _docs && mv _proc/_docs _docs
	$(BIN)/python tools/pages.py docs.log _docs
