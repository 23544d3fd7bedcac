"""A person logs in from the unmodified official programs, at a terminal and with a browser."""

from __future__ import annotations

import re
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.browser import Terminal, log_in
from tests.support.hubs import RunningHub, clean_environment
from tests.support.user_endpoint import BIN

pytestmark = pytest.mark.compat

PASSWORD = "correct horse battery"
PROGRAM = """
from globus_compute_sdk import Client
client = Client()
print("function:", client.register_function(len))
"""


@pytest.fixture(scope="module")
def username(hub: RunningHub) -> str:
    return hub.person("compat-person", PASSWORD)


@pytest.fixture
def env(hub: RunningHub, username: str, tmp_path: Path) -> dict[str, str]:
    return clean_environment({**hub.env, "GLOBUS_COMPUTE_USER_DIR": str(tmp_path / "compute")})


def run(env: dict[str, str], *command: str | Path) -> str:
    done = subprocess.run(command, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_official_sdk_logs_a_person_in_once(env, peer_sdk_python):
    with Terminal([peer_sdk_python, "-c", PROGRAM], env) as terminal:
        log_in(terminal, "compat-person", PASSWORD)
        status = terminal.wait()

    assert status == 0, terminal.output
    assert re.search(r"function: [0-9a-f-]{36}", terminal.output)
    assert "function: " in run(env, peer_sdk_python, "-c", PROGRAM)  # now without a terminal


def test_the_official_sdk_renews_an_access_token_that_is_over(env, hub, username, peer_sdk_python):
    with Terminal([peer_sdk_python, "-c", PROGRAM], env) as terminal:
        log_in(terminal, "compat-person", PASSWORD)
        assert terminal.wait() == 0, terminal.output
    with closing(sqlite3.connect(hub.directory / "hub.db", timeout=30)) as database, database:
        mine = "identity_id = (SELECT id FROM identities WHERE username = ?)"
        ended = database.execute(f"UPDATE tokens SET expires = 0 WHERE {mine}", (username,))
        assert ended.rowcount >= 2

    assert "function: " in run(env, peer_sdk_python, "-c", PROGRAM)
    assert "function: " in run(env, peer_sdk_python, "-c", PROGRAM)


def test_a_login_with_the_official_endpoint_serves_ours_as_well(env, username, peer_endpoint_python):
    official = peer_endpoint_python.parent / "globus-compute-endpoint"
    with Terminal([official, "login"], env) as terminal:
        log_in(terminal, "compat-person", PASSWORD)
        status = terminal.wait()

    assert status == 0, terminal.output
    assert username in run({**env, "COLUMNS": "200"}, official, "whoami")
    assert username in run(env, BIN / "globus-compute-endpoint", "whoami")
    run(env, official, "logout")
    refused = subprocess.run([official, "whoami"], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    assert refused.returncode != 0
