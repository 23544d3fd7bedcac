"""The unmodified official SDK's futures, when their tasks are cancelled through our hub."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.hubs import RunningHub, clean_environment
from tests.support.managed import ManagedEndpoint
from tests.support.user_endpoint import BIN
from tests.support.waiting import runs, wait_for

SCENARIOS = Path(__file__).parent / "peers" / "sdk_scenarios.py"
OURS = BIN / "globus-compute-endpoint"
ONE_PROCESS = "engine:\n  type: ProcessPoolEngine\n  max_workers: 1\n  cancel_grace: 3\nheartbeat_period: 5\n"


@pytest.mark.parametrize("manager", ["ours", "official"])
def test_the_futures_get_the_reason_as_an_exception_and_the_others_their_results(
    hub: RunningHub, peer_sdk_python, peer_endpoint_python, tmp_path, manager
):
    env = hub.client_env(f"canceller-{manager}")
    program = OURS if manager == "ours" else Path(peer_endpoint_python).parent / "globus-compute-endpoint"
    with ManagedEndpoint(program, tmp_path, env, user_bin=BIN, template=ONE_PROCESS) as endpoint:
        done = subprocess.run(
            [str(peer_sdk_python), str(SCENARIOS), "cancelled", endpoint.endpoint_id],
            env=clean_environment(env),
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{endpoint.log}"
        answer = json.loads(done.stdout.splitlines()[-1])

        assert answer["pending"] == {"pending": True, "status": "cancelling"}
        assert {error["type"] for error in answer["errors"]} == {"TaskExecutionFailed"}
        running, *queued = (error["text"] for error in answer["errors"])
        assert "The task was cancelled when it had run for" in running
        assert "its processes did not end within 3 s (SIGTERM), and were killed. [task: TASK_CANCELLED]" in running
        assert len(queued) == 5
        assert all("The task was cancelled before it began. [task: TASK_CANCELLED]" in text for text in queued)
        assert answer["values"] == [1, 3, 5, 7, 9]
        assert "[task: TASK_CANCELLED]" in answer["told_to_client"]
        assert answer["again"] == {"status": 409, "code": "TASK_FINISHED"}
        assert wait_for(lambda: not any(runs(pid) for pid in answer["pids"]))
