# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LINKS := $(VENV)/collections/ansible_collections/pvefleet/infra
# make test ARGS="tests/unit -k upid"
ARGS ?=
# make demo PORT=9000 PVE_PORT=0: 0 takes any free port
PORT ?= 8080
PVE_PORT ?= 8006
DEMO_ONCE ?=
# Nothing is written outside the checkout: Ansible's temporary files and pip's cache would go to the home directory.
export ANSIBLE_HOME := $(CURDIR)/.cache/ansible
export PIP_CACHE_DIR ?= $(CURDIR)/.cache/pip

.PHONY: help setup test lint ruff mypy ansible-lint docs-lint sanity molecule demo bench docs build clean

help:                ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

setup: $(VENV)/.ready  ## .venv with the service, the collection and what the tests need

# The collection is linked, not copied, so that a change in the working tree is what runs.
$(VENV)/.ready: pyproject.toml hatch_build.py Makefile
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 setup"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "Python's venv module is needed: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	mkdir -p $(LINKS)
	for part in galaxy.yml meta plugins roles playbooks; do ln -sfn ../../../../../$$part $(LINKS)/$$part; done
	$(BIN)/python -c 'import pathlib, sysconfig; pathlib.Path(sysconfig.get_path("purelib"), "pvefleet_collection.pth").write_text(str(pathlib.Path("$(VENV)/collections").resolve()) + "\n")'
	touch $@

test: setup            ## the whole suite on two workers; ARGS="tests/unit -k upid" for a part
	$(BIN)/python -m pytest -n 2 --dist loadfile $(ARGS)

lint: ruff mypy ansible-lint docs-lint sanity  ## all static checks

ruff: setup            ## style and common mistakes
	$(BIN)/ruff check .

mypy: setup            ## types of the service and of what the modules share, strictly
	$(BIN)/mypy -p pvefleet -p ansible_collections.pvefleet.infra.plugins.module_utils

ansible-lint: setup    ## playbooks and roles
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/ansible-lint --offline --profile production --nocolor

docs-lint: setup       ## the modules' documentation, and that its references exist
	@mkdir -p .cache/home
	HOME="$(CURDIR)/.cache/home" PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/antsibull-docs lint-collection-docs --plugin-docs --validate-collection-refs=self --skip-rstcheck .

sanity: setup          ## ansible-test sanity; ARGS="--test pylint" for a part
	tests/sanity.sh $(ARGS)

molecule: setup        ## the roles' scenarios, which are part of the tests; ARGS="-k storage" for a part
	$(BIN)/python -m pytest -n 2 --dist load tests/molecule $(ARGS)

demo: setup            ## a simulated cluster and the service, shown at work; DEMO_ONCE=1 ends by itself
	@$(BIN)/python -m tests.demo --port $(PORT) --pve-port $(PVE_PORT) $(if $(DEMO_ONCE),--once)

bench: setup           ## servers and inventory, beside community.proxmox; ARGS="--servers 5 --guests 100"
	$(BIN)/python -m benchmarks.run $(ARGS)

docs: setup            ## the pages that are printed by programs
	$(BIN)/pvefleet settings > docs/settings.md
	$(BIN)/pvefleet awx export --to docs/awx
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/antsibull-changelog generate

build: setup           ## the wheel and the Galaxy artifact, in dist/
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(BIN)/ansible-galaxy collection build --force --output-path dist .

clean:               ## all that was made here
	rm -rf $(VENV) .cache .demo .ansible .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
