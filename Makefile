# Two commands do everything: `make repro` and `make test`. Each sets up its own .venv when needed.
SHELL := bash
.SHELLFLAGS := -o pipefail -c
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready

export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# DVC's default site cache is a world-writable folder that holds pickles (CVE-2025-69872).
export DVC_SITE_CACHE_DIR ?= $(CURDIR)/.scratch/dvc-site-cache
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help

.PHONY: help
help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sort | awk -F ':.*## ' '{printf "%-12s %s\n", $$1, $$2}'

$(READY): pyproject.toml setup.py constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python %d.%d found, 3.11 or newer needed: make PYTHON=python3.11 ..." % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "1/3 Making $(VENV)"
	@test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@echo "2/3 Finding the packages at the versions of constraints.txt; the first time they are downloaded"
	@$(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]' 2>&1 | awk ' \
		/^Collecting|^Requirement already/ { if (++n % 50 == 0) print "    " n " packages" } \
		/^Installing collected/ { print "3/3 Installing them, which takes a few minutes" } \
		/^Successfully installed/ { print "    done: " NF - 2 " packages in $(VENV)" } \
		/^ *(ERROR|error)/ { failed = 1 } failed; { fflush() }'
	@touch $@

.PHONY: setup
setup: $(READY) ## Make .venv from constraints.txt

.PHONY: repro
repro: $(READY) ## Run the whole pipeline (FOLDER=... your own micrographs, MANIFEST=... what is known of them, BENIGN=... to count false alarms on)
ifdef FOLDER
	@semforensics list-folder "$(FOLDER)" data/folder_listing.csv $(if $(MANIFEST),--manifest "$(MANIFEST)")
endif
ifdef BENIGN
	@semforensics list-benign "$(BENIGN)" data/benign_listing.csv
endif
	@$(if $(FOLDER),SEMFORENSICS_FOLDER="$(FOLDER)") $(if $(BENIGN),SEMFORENSICS_BENIGN="$(BENIGN)") python tools/repro.py

# Bytecode is kept, whatever the environment says: many tests start a Python of their own.
.PHONY: test
test: $(READY) ## Run the tests
	PYTHONDONTWRITEBYTECODE= pytest -n 2 --dist worksteal

.PHONY: test-slow
test-slow: $(READY) ## Run the tests that take minutes
	pytest -m "slow and not gpu" --timeout 3600

.PHONY: lint
lint: $(READY) ## Check style and types
	ruff format --check .
	ruff check .
	mypy

.PHONY: preset
preset: ## Copy a preset to params.yaml: make preset NAME=thesis
	@test -f "presets/$(NAME).yaml" || { echo "make preset NAME=...: no preset is called \"$(NAME)\"; there are: $(basename $(notdir $(wildcard presets/*.yaml)))" >&2; exit 2; }
	cp "presets/$(NAME).yaml" params.yaml

.PHONY: constraints
constraints: ## Resolve the versions anew (needs uv)
	uv pip compile --universal --python-version 3.11 pyproject.toml --all-extras --no-header --no-annotate -o constraints.txt
