# make run                     the whole way, candles to report (SOURCE=auto|bybit|files|sample|simulated, PROFILE=quick|full, ARGS="--horizon 10")
# make test                    every chapter, then the tests
# make export clean readme     after changing a chapter
# make book                    execute every chapter on the recorded hours in the full profile (half an hour)
# make bench                   what is meant to be fast, beside its straightforward form
# make docs                    render the site (needs Quarto)
SOURCE ?= auto
PROFILE ?= quick
ARGS ?=
BOOK_FILES ?= ../shared/data/market
BOOK_ETT ?= ../shared/data/ett
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
.DEFAULT_GOAL := help
.PHONY: help run test bench export clean readme book docs

help:
	@sed -n 's/^# //p' Makefile

# torch by itself first: pip then keeps the constrained build when the package asks for a range
.venv/run-stamp: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "make: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version)" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(INSTALL) torch
	$(INSTALL) --editable .
	@touch $@

.venv/test-stamp: .venv/run-stamp
	$(INSTALL) --editable '.[dev]'
	@touch $@

run: .venv/run-stamp
	@$(BIN)/sslts run --source $(SOURCE) --profile $(PROFILE) $(ARGS)

# the tests know the sample only: no network, no files, none of the caller's settings; two chapters at a time with one thread each, then two files of tests
test: .venv/test-stamp
	env $$(env | sed -n 's/^\(SSLTS_[A-Za-z0-9_]*\)=.*/-u \1/p') PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 MPLBACKEND=agg \
		SSLTS_SOURCE=sample SSLTS_PROFILE=quick $(BIN)/nbdev-test --n-workers 2 --do-print
	env $$(env | sed -n 's/^\(SSLTS_[A-Za-z0-9_]*\)=.*/-u \1/p') PATH="$(CURDIR)/$(BIN):$$PATH" OMP_NUM_THREADS=1 MPLBACKEND=agg $(BIN)/python -m pytest -n 2 --dist loadfile

bench: .venv/test-stamp
	$(BIN)/python -m pytest benchmarks -s --benchmark-columns=min,median,rounds --benchmark-sort=min

export: .venv/test-stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev-export

clean: .venv/test-stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev-clean

readme: .venv/test-stamp
	$(BIN)/python tools/readme.py

# the study's own run feeds the front page, so that README, chapter and report show the same numbers
book: export
	env PATH="$(CURDIR)/$(BIN):$$PATH" SSLTS_SOURCE=files SSLTS_FILES=$(BOOK_FILES) SSLTS_ETT=$(BOOK_ETT) SSLTS_PROFILE=full \
		nbdev-test --save --do-print --n-workers 1 --cell-timeout 0 --file-re '^[0-9]'
	mkdir -p nbs/results
	run=$$(ls -d runs/*-files | tail -n 1) && cp $$run/headline.csv $$run/differences.csv $$run/scores.png nbs/results/
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev-test --save --n-workers 1 nbs/index.ipynb
	$(MAKE) clean readme

docs: .venv/test-stamp
	PATH="$(CURDIR)/$(BIN):$$PATH" nbdev-docs
