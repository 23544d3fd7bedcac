"""The official user endpoint and ours over raw AMQP, side by side: what one answers, the other answers."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.wire.codec import encode
from endpoint.wire.messages import Result, Task
from tests.support.user_endpoint import BIN, Queues, UserEndpointProcess, headers, packed

ALLOWED = "0b8a4e6e-5b0f-4f7e-9d2e-6c4e3f1a2b3c"
REFUSED = "5d1c7f0e-8c7b-4f43-9a77-1f2a3b4c5d6e"


@pytest.fixture
def queues(broker) -> Iterator[Queues]:
    with Queues(broker.amqp_url) as made:
        yield made


@pytest.fixture(params=["ours", "official"])
def running(request, queues, peer_endpoint_python, tmp_path) -> Iterator[UserEndpointProcess]:
    """A user endpoint that may run one function only."""
    folder = BIN if request.param == "ours" else Path(peer_endpoint_python).parent
    command = [str(folder / "globus-compute-endpoint")]
    with UserEndpointProcess(queues, tmp_path, command=command, allowed_functions=[ALLOWED]) as endpoint:
        assert queues.next_heartbeat()["active"] is True, endpoint.log
        yield endpoint


def add(a, b):
    return a + b


def fail():
    raise LookupError("nothing there")


def ask(queues: Queues, function: object, *args: object, function_id: str = ALLOWED) -> Result:
    task_id = str(uuid.uuid4())
    queues.publish(encode(Task(task_id, packed(function, args, {}))), headers(task_id, function_uuid=function_id))
    return queues.result_of(task_id)


def test_the_endpoints_own_refusal_of_a_function_has_the_same_code_and_words(running, queues):
    result = ask(queues, add, 1, 2, function_id=REFUSED)

    assert result.error_details.code == "FUNCTION_NOT_ALLOWED"
    assert result.data == f"Function {REFUSED} not permitted on endpoint {queues.endpoint_id}"


def test_a_results_details_name_the_workers_environment(running, queues):
    result = ask(queues, add, 1, 2)

    assert result.error_details is None
    assert {"os", "python_version", "dill_version", "globus_compute_sdk_version", "endpoint_id"} <= set(result.details)
    assert result.details["dill_version"] == "0.3.9"
    assert [transition.state.value for transition in result.task_statuses] == ["execution-start", "execution-end"]


def test_a_failing_function_has_the_same_code_and_the_users_traceback(running, queues):
    result = ask(queues, fail)

    assert result.error_details.code == "RemoteExecutionError"
    assert "LookupError: nothing there" in result.data
