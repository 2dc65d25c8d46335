# Two commands: `make run` starts everything on this machine, `make test` shows that it works.
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
# In three processes, each with servers and a browser of its own: the tests wait as much as they work.
THREE_AT_A_TIME := --numprocesses 3 --dist worksteal
# The app is started hundreds of times: what Python compiled is kept, whatever the machine's settings say.
unexport PYTHONDONTWRITEBYTECODE
.PHONY: run test soak bench lint

run: .venv/app
	@exec $(BIN)/python app.py

test: .venv/tests lint
	@bash tests/system-packages
	$(BIN)/python -m pytest -m "not soak" $(THREE_AT_A_TIME)
	$(BIN)/python -m pytest -m "not soak" $(THREE_AT_A_TIME) --database postgresql

soak: .venv/tests
	@bash tests/system-packages
	$(BIN)/python -m pytest -m soak
	$(BIN)/python -m pytest -m soak --database postgresql

bench: .venv/app
	@bash tests/system-packages
	$(BIN)/python -m benchmark

lint: .venv/tests
	$(BIN)/ruff check .
	$(BIN)/lint-imports --config pyproject.toml

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Purge needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1). Say PYTHON=python3.11 make ..."; exit 1; }
	@$(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "Python cannot make virtual environments here. On Debian and Ubuntu: apt install python3-venv"; exit 1; }

# Installed again only when what is wanted has changed.
.venv/app: .venv/bin/python requirements.txt
	@echo "Installing what Purge needs, once ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

.venv/tests: .venv/app tests/requirements.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r tests/requirements.txt
	@touch $@
