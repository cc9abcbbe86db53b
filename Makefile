# SPDX-FileCopyrightText: 2026 the PVE Fleet contributors
# SPDX-License-Identifier: GPL-3.0-or-later
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LINKS := $(VENV)/collections/ansible_collections/pvefleet/infra
# make test ARGS="tests/unit -k upid"
ARGS ?=

.PHONY: help setup test lint demo bench clean

help:                ## what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST)

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
