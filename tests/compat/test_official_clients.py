"""The unmodified official SDK, our hub, and endpoints: ours, the official one, and one of each.

Every scenario is a program of a user's, run by the SDK's own interpreter (`peers/sdk_scenarios.py`).
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hubs import RunningHub, clean_environment
from tests.support.managed import ManagedEndpoint
from tests.support.user_endpoint import BIN

SCENARIOS = Path(__file__).parent / "peers" / "sdk_scenarios.py"
OURS = BIN / "globus-compute-endpoint"
MANAGERS_AND_USERS = ["ours", "official", "our manager, official user endpoint", "official manager, our user endpoint"]

Play = Callable[[str, ManagedEndpoint], dict[str, Any]]


@pytest.fixture(scope="module")
def client_env(hub: RunningHub) -> dict[str, str]:
    """The environment of one user, who owns the endpoints and submits to them."""
    return hub.client_env("scientist")


@pytest.fixture(scope="module")
def official_program(peer_endpoint_python: Path) -> Path:
    return Path(peer_endpoint_python).parent / "globus-compute-endpoint"


@pytest.fixture(scope="module", params=MANAGERS_AND_USERS)
def endpoint(request, official_program, client_env, tmp_path_factory) -> Iterator[ManagedEndpoint]:
    """A started endpoint of each kind in turn."""
    manager = official_program if request.param.startswith("official") else OURS
    user_program = official_program if request.param in ("official", MANAGERS_AND_USERS[2]) else OURS
    directory = tmp_path_factory.mktemp("endpoint")
    with ManagedEndpoint(manager, directory, client_env, user_bin=user_program.parent) as started:
        started.user_environment = user_program.resolve().parents[1]
        yield started


@pytest.fixture
def play(peer_sdk_python, client_env) -> Play:
    """Run a scenario against an endpoint; returns what it printed."""

    def run(scenario: str, endpoint: ManagedEndpoint) -> dict[str, Any]:
        done = subprocess.run(
            [str(peer_sdk_python), str(SCENARIOS), scenario, endpoint.endpoint_id],
            env=clean_environment(client_env),
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{endpoint.log}"
        return json.loads(done.stdout.splitlines()[-1])

    return run


def test_the_executor_gets_results_and_exceptions(play, endpoint):
    answer = play("executor_runs_functions", endpoint)

    assert answer["values"] == [number + 1 for number in range(20)]
    assert "KeyError" in answer["error"]
    assert "lost key" in answer["error"]
    assert answer["ids_differ"]


def test_the_user_endpoint_is_of_the_package_that_was_meant(play, endpoint):
    play("source_code", endpoint)

    environments = endpoint.user_endpoint_environments()

    assert environments
    assert {environment.resolve() for environment in environments} == {endpoint.user_environment}


def test_the_client_gets_results_one_by_one_and_in_batches(play, endpoint):
    answer = play("client_runs_functions", endpoint)

    assert answer["result"] == 7
    assert answer["status"] == "success"
    assert answer["batch"] == answer["batch_result"] == [10, 11, 12]
    assert "lost key" in answer["error"]


def test_different_configurations_reach_different_user_endpoints_and_equal_ones_the_same(play, endpoint):
    first, second, first_again = play("two_configurations", endpoint)["pids"]

    assert first == first_again
    assert first != second


def test_tasks_of_a_group_can_be_loaded_again(play, endpoint):
    assert play("reload_tasks", endpoint)["again"] == [5, 6, 7]


def test_shell_functions_run_and_tell_their_status(play, endpoint):
    answer = play("shell_function", endpoint)

    assert (answer["stdout"], answer["returncode"]) == ("spoken\n", 0)
    assert answer["stderr"].startswith("to-stderr\n")  # behind it the SDK warns that tasks share a directory
    assert answer["bad"] == 3


def test_source_code_can_be_registered_and_run(play, endpoint):
    assert play("source_code", endpoint)["value"] == 42


def test_a_megabyte_goes_in_and_out(play, endpoint):
    assert play("megabyte", endpoint)["same"]


def test_a_result_over_the_limit_is_an_error_that_says_so(play, endpoint):
    assert "MaxResultSizeExceeded" in play("result_too_large", endpoint)["error"]


def test_the_endpoint_is_online_and_listed(play, endpoint):
    answer = play("endpoint_is_known", endpoint)

    assert answer == {"status": "online", "listed": True, "metadata": "lab"}


def test_a_template_that_fails_is_a_422_with_its_reason_in_the_future(play, endpoint):
    answer = play("refused_configuration", endpoint)

    assert "422" in answer["error"]
    assert "many" in answer["error"]


def test_every_serialization_strategy_is_understood(play, endpoint):
    values = play("every_strategy", endpoint)["values"]

    assert len(values) == 21
    assert set(values.values()) == {42}, values


def test_a_function_that_is_not_on_the_list_is_refused_at_submit(play, client_env, official_program, tmp_path):
    allowed = "0b8a4e6e-5b0f-4f7e-9d2e-6c4e3f1a2b3c"
    for number, program in enumerate((OURS, official_program)):
        directory = tmp_path / str(number)
        directory.mkdir()
        with ManagedEndpoint(
            program, directory, client_env, extra_config=f"allowed_functions:\n  - {allowed}\n"
        ) as limited:
            answer = play("refused_submit", limited)

        assert (answer["status"], answer["code"]) == (403, "FUNCTION_NOT_PERMITTED")
        assert answer["function"] in answer["text"]
