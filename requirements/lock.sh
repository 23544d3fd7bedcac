#!/bin/sh
# Writes the locked requirement files from pyproject.toml. Needs uv (pip install uv).
# --universal: one file serves every supported Python; the others are constrained by all.txt so that versions agree.
set -eu
cd "$(dirname "$0")/.."
compile_for() { python=$1; shift; uv pip compile --quiet --universal --python-version "$python" --generate-hashes --no-emit-index-url --no-header "$@"; }
compile() { compile_for 3.10 "$@"; }
compile --extra hub --extra sdk --extra site --extra kubernetes --extra test pyproject.toml -o requirements/all.txt
compile -c requirements/all.txt pyproject.toml -o requirements/agent.txt
compile -c requirements/all.txt --extra sdk pyproject.toml -o requirements/worker.txt
compile -c requirements/all.txt --extra hub pyproject.toml -o requirements/hub.txt
compile -c requirements/all.txt --extra site pyproject.toml -o requirements/site.txt
compile requirements/peer-endpoint.in -o requirements/peer-endpoint.txt
compile requirements/peer-sdk.in -o requirements/peer-sdk.txt
compile requirements/peer-uv.in -o requirements/peer-uv.txt
compile requirements/bench.in -o requirements/bench.txt
# It has no version for Python 3.10 that goes with the ansible-core there.
compile_for 3.11 -c requirements/all.txt requirements/ansible-lint.in -o requirements/ansible-lint.txt
