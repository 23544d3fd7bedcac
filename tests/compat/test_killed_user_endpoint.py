"""A user endpoint that is killed, as the official SDK's user sees it."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from tests.support.hubs import RunningHub, clean_environment
from tests.support.managed import ManagedEndpoint
from tests.support.user_endpoint import BIN

USER = """
import json, os, signal, sys, time
from globus_compute_sdk import Client, Executor

client, endpoint_id = Client(), sys.argv[1]


def process():
    import os
    return os.getpid()


with Executor(endpoint_id=endpoint_id, client=client) as executor:
    first = executor.submit(process).result(60)
os.kill(first, signal.SIGKILL)
while os.path.exists(f"/proc/{first}"):
    time.sleep(0.01)
began = time.monotonic()
with Executor(endpoint_id=endpoint_id, client=client) as executor:
    second = executor.submit(process).result(60)
print(json.dumps({"first": first, "second": second, "took": time.monotonic() - began}))
"""


def test_the_next_submission_after_a_kill_gets_another_user_endpoint(
    hub: RunningHub, peer_sdk_python: Path, tmp_path: Path
) -> None:
    env = hub.client_env("survivor")
    with ManagedEndpoint(BIN / "globus-compute-endpoint", tmp_path, env) as endpoint:
        done = subprocess.run(
            [str(peer_sdk_python), "-c", USER, endpoint.endpoint_id],
            env=clean_environment(env),
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{endpoint.log}"
        answer = json.loads(done.stdout)

    assert answer["first"] != answer["second"]
    assert answer["took"] < 30
