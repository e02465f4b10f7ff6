# make check   verify everything built in       make test    run the tests
# make lint    ruff and pyright                 make sweep   the tests, over everything built in
# make clean   remove what these made
#
# The first of them makes the environment in .venv; it is made anew when pyproject.toml changes.
# Override with, for example: make test PYTHON=python3.12 VENV=/tmp/venv JOBS=4

PYTHON ?= python3
VENV ?= .venv
JOBS ?= 2
# Empty for a plain install, as others have it.
EDITABLE ?= --editable

.DEFAULT_GOAL := help
.PHONY: help check test sweep lint clean
.DELETE_ON_ERROR:

bin := $(VENV)/bin
ready := $(VENV)/.ready

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

check: $(ready)
	$(bin)/handgrad check -j $(JOBS)

test: $(ready)
	$(bin)/pytest -n $(JOBS)

sweep: $(ready)
	$(bin)/pytest -n $(JOBS) --sweep

lint: $(ready)
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	PYTHONPATH=$(VENV)/typed $(bin)/pyright --pythonpath $(bin)/python

clean:
	rm -rf $(VENV) build dist handgrad.egg-info
	rm -rf .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +

# The links are for pyright, which does not find packages that are installed editable.
$(ready): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	  "handgrad needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + \
	  "; give another: make PYTHON=python3.12")'
	@echo 'Setting up $(VENV): once, some minutes'
	$(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --quiet --disable-pip-version-check $(EDITABLE) '.[dev]'
	@mkdir -p $(VENV)/typed/handgrad
	@for room in manual reference compare; do \
	  ln -sfn "$(CURDIR)/$$room" $(VENV)/typed/handgrad/$$room; done
	@touch $@
