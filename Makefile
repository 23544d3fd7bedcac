# Three commands matter: `make demo`, `make site-demo` and `make test`. The rest are their parts.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: demo site-demo test test-site wheels bundle bench bench-faults bench-multi-user bench-blocks bench-test faults lint unit hostile integration compat root site editor newer peers system format reference lock clean

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP_INSTALL := -m pip install --quiet --disable-pip-version-check
PEERS := .venvs/peer-endpoint/.done .venvs/peer-sdk/.done
PYTHONS := .venvs/peer-sdk-newer/.done .venvs/peer-uv/.done# for tests with several versions of Python
PYTEST := $(BIN)/python -m pytest -q
WORKERS := 2
SITE_PYTHONS := 3.11 3.13# of the Debian releases that machines are booted with
WHEELS := $(SITE_PYTHONS:%=dist/wheels/.done-%)
WAITERS := 3# for tests that wait for processes more than they compute

demo: $(VENV)/.done system          ## Hub, endpoint and real tasks on this machine; KEEP=1 leaves them running
	@$(BIN)/python examples/demo/run.py $(if $(KEEP),--keep)

site-demo: $(VENV)/.done dist/wheels/.done-3.11   ## A machine booted, site.yml played, functions as two users; needs root; KEEP=1 leaves it running
	@tests/support/system-packages machines
	@$(BIN)/python examples/site-demo/run.py $(if $(KEEP),--keep)

test: lint unit hostile editor integration faults compat root site bench-test newer   ## Everything that CI runs

lint: $(VENV)/.done .venvs/ansible-lint/.done   ## Style, types, layers, sizes; the roles by the strictest profile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd ansible && PATH=$(CURDIR)/.venvs/ansible-lint/bin:$$PATH ansible-lint --offline -q

unit: $(VENV)/.done                 ## No broker, no processes: seconds
	$(PYTEST) -n $(WORKERS) tests/unit tests/schemas

hostile: $(VENV)/.done $(PEERS)     ## 2,000 sets of hostile options for each template
	$(PYTEST) -n $(WORKERS) tests/hostile

integration: $(VENV)/.done $(PEERS) $(PYTHONS) system   ## A real RabbitMQ, real pools, the programs as processes
	@tests/support/system-packages scheduler
	@tests/support/system-packages containers
	$(PYTEST) -n $(WAITERS) --dist loadfile --no-loadscope-reorder tests/integration --durations 10

faults: $(VENV)/.done               ## A user endpoint under faults: nothing lost, nothing run twice
	@tests/support/system-packages faults
	$(PYTEST) tests/faults --durations 5

compat: $(VENV)/.done $(PEERS) $(PYTHONS) system   ## The official SDK and endpoint beside ours
	$(PYTEST) -n $(WAITERS) --dist loadfile tests/compat --durations 5

root: $(VENV)/.done $(PEERS) system ## A multi-user endpoint with real users, PAM and processes; needs root
	@tests/support/system-packages root
	$(PYTEST) tests/root --durations 5

site: $(VENV)/.done $(PEERS) $(WHEELS) system ## The Ansible roles and plugins, the flake, and one booted machine from nothing to nothing; needs root
	@tests/support/system-packages site
	$(PYTEST) -n $(WORKERS) --dist loadfile --no-loadscope-reorder tests/site/lanes/test_one_host.py tests/site tests/nix --ignore tests/site/lanes/test_two_hosts.py --ignore tests/site/lanes/test_trixie.py --durations 5

test-site: $(VENV)/.done $(PEERS) $(PYTHONS) $(WHEELS) system   ## The same with all machines: two hosts with TLS between them, and Debian 13
	@tests/support/system-packages site
	$(PYTEST) tests/site tests/nix --durations 10

editor: $(VENV)/.done .venvs/editor/.done   ## What an editor shows: a real YAML language server on our files and schemas
	$(PYTEST) tests/editor --durations 5

bench: $(VENV)/.done .venvs/agent/.done .venvs/bench/.done $(PEERS) system   ## Ours beside the official endpoint, in one run
	$(BIN)/python -m bench.run
	$(BIN)/python -m bench.check_config

bench-faults: $(VENV)/.done $(PEERS)   ## Both under faults, at length
	@tests/support/system-packages faults
	$(BIN)/python -m bench.faults

bench-multi-user: $(VENV)/.done .venvs/agent/.done $(PEERS) system   ## A multi-user endpoint beside the official one, as root
	@tests/support/system-packages root
	$(BIN)/python -m bench.multi_user

bench-blocks: $(VENV)/.done .venvs/agent/.done $(PEERS) system   ## Blocks that fail, on a private Slurm, as root: both endpoints
	@tests/support/system-packages scheduler
	$(BIN)/python -m bench.blocks

bench-test: $(VENV)/.done .venvs/agent/.done $(PEERS) system   ## A short benchmark: no task lost, no figure far off its goal
	$(PYTEST) tests/bench --durations 5

# What runs in the Python of somebody else's choice: workers, engines, endpoints. The rest has its unit tests there.
NEWER := $(foreach part,engine worker user manager,tests/integration/test_$(part)_*.py)
newer: .venvs/newer/.done $(PEERS) $(PYTHONS) system           ## The same code on a newer Python
	.venvs/newer/bin/python -m pytest -q -n $(WORKERS) tests/unit tests/schemas
	.venvs/newer/bin/python -m pytest -q -n $(WAITERS) --dist loadfile $(NEWER) --durations 5

system:                             ## What is not a Python package: RabbitMQ, Open MPI, a compiler
	@tests/support/system-packages

format: $(VENV)/.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/.done            ## Write what is made from the schemas: docs/reference, the schemas for editors
	$(BIN)/python -m endpoint.config.generated
	$(BIN)/python -m endpoint.user.diagram docs/tasks.md

wheels: $(WHEELS)                   ## dist/wheels: the locked packages of agent and hub, as a host without internet gets them

PLATFORMS := $(foreach age,manylinux2014 manylinux_2_17 manylinux_2_28,--platform $(age)_$(shell uname -m)) --platform any
dist/wheels/.done-%: requirements/agent.txt requirements/hub.txt | $(VENV)/.done
	@echo "Fetching the locked wheels for Python $* ..."
	@mkdir -p dist/wheels
	@$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps --only-binary :all: \
		--implementation cp --python-version $* $(PLATFORMS) --dest dist/wheels -r requirements/agent.txt -r requirements/hub.txt
	@touch $@

bundle: $(VENV)/.done               ## dist/compute-endpoint-VERSION-PYTHON-PLATFORM.tar.gz: all that a site without internet needs
	@$(BIN)/python requirements/bundle.py

lock:                               ## Write the locked requirement files anew (needs uv)
	requirements/lock.sh

$(VENV)/.done: requirements/all.txt pyproject.toml
	@echo "Setting up $(VENV) (locked packages) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "Python 3.10 or newer is needed; say: make PYTHON=python3.11 ...")'
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements/all.txt
	@$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

.venvs/newer/.done: requirements/all.txt pyproject.toml
	@python=$$(tests/support/newer-python $(PYTHON)); echo "Setting up .venvs/newer with $$($$python --version) ..."; $$python -m venv --clear .venvs/newer
	@.venvs/newer/bin/python $(PIP_INSTALL) --require-hashes -r requirements/all.txt
	@.venvs/newer/bin/python $(PIP_INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

.venvs/agent/.done: requirements/agent.txt pyproject.toml $(VENV)/.done
	@echo "Setting up .venvs/agent (what an endpoint's host has) ..."
	@$(PYTHON) -m venv --clear .venvs/agent
	@.venvs/agent/bin/python $(PIP_INSTALL) --require-hashes -r requirements/agent.txt
	@$(BIN)/python -c 'from hatchling.build import build_editable; build_editable(".venvs/agent")'
	@.venvs/agent/bin/python $(PIP_INSTALL) --no-deps --no-index .venvs/agent/*.whl
	@touch $@

.venvs/ansible-lint/.done: requirements/ansible-lint.txt
	@echo "Setting up .venvs/ansible-lint (what judges the roles) ..."
	@$(PYTHON) -m venv --clear .venvs/ansible-lint
	@.venvs/ansible-lint/bin/python $(PIP_INSTALL) --require-hashes -r requirements/ansible-lint.txt
	@touch $@

.venvs/bench/.done: requirements/bench.txt
	@echo "Setting up .venvs/bench (what draws the chart) ..."
	@$(PYTHON) -m venv --clear .venvs/bench
	@.venvs/bench/bin/python $(PIP_INSTALL) --require-hashes -r requirements/bench.txt
	@touch $@

peers: $(PEERS) $(PYTHONS)          ## The official packages, each in an environment of its own

.venvs/peer-%/.done: requirements/peer-%.txt
	@echo "Setting up .venvs/peer-$* (official packages) ..."
	@$(PYTHON) -m venv --clear .venvs/peer-$*
	@.venvs/peer-$*/bin/python $(PIP_INSTALL) --require-hashes -r requirements/peer-$*.txt
	@touch $@

.venvs/peer-sdk-newer/.done: requirements/peer-sdk.txt
	@python=$$(tests/support/newer-python $(PYTHON)); echo "Setting up .venvs/peer-sdk-newer (the official SDK) with $$($$python --version) ..."; $$python -m venv --clear .venvs/peer-sdk-newer
	@.venvs/peer-sdk-newer/bin/python $(PIP_INSTALL) --require-hashes -r requirements/peer-sdk.txt
	@touch $@

.venvs/editor/.done: requirements/editor/package-lock.json
	@tests/support/system-packages editor
	@echo "Setting up .venvs/editor (locked packages) ..."
	@rm -rf .venvs/editor && mkdir -p .venvs/editor
	@cp requirements/editor/package.json requirements/editor/package-lock.json .venvs/editor/
	@cd .venvs/editor && npm ci --silent --ignore-scripts --no-audit --no-fund --omit=dev
	@touch $@

clean:                              ## Remove what the other targets made
	rm -rf .venv .venvs .demo build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
