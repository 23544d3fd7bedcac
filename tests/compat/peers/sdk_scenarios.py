"""What a user does, with the official SDK alone; run by the SDK's own interpreter.

    python sdk_scenarios.py SCENARIO ENDPOINT_ID

Prints one JSON object. The environment says which service to talk to and who asks.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import uuid

import globus_compute_sdk.serialize as strategies
from globus_compute_sdk import Client, Executor, ShellFunction
from globus_compute_sdk.errors import TaskExecutionFailed
from globus_sdk import GlobusAPIError

WAIT_S = 90
CODE = (
    "DillCode",
    "DillCodeSource",
    "DillCodeTextInspect",
    "PureSourceDill",
    "PureSourceTextInspect",
    "CombinedCode",
    "AllCodeStrategies",
)
DATA = ("DillDataBase64", "JSONData", "AllDataStrategies")


def add(a, b=0):
    return a + b


def who():
    import os

    return {"pid": os.getpid(), "parent": os.getppid(), "task": os.environ["GC_TASK_UUID"]}


def parent_of_engine():
    """The user endpoint's process, whichever engine runs this (threads here)."""
    import os

    return os.getpid()


def explode():
    raise KeyError("lost key")


def blow_up_size():
    return "x" * (11 * 1024 * 1024)


def stay(note):
    import json
    import os
    import signal
    import subprocess
    import time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    with open(note + ".part", "w") as file:
        json.dump([os.getpid(), child.pid], file)
    os.rename(note + ".part", note)
    while True:
        time.sleep(1)


def executor_runs_functions(endpoint_id):
    with Executor(endpoint_id=endpoint_id) as executor:
        futures = [executor.submit(add, number, b=1) for number in range(20)]
        failing = executor.submit(explode)
        values = [future.result(WAIT_S) for future in futures]
        try:
            failing.result(WAIT_S)
            error = None
        except TaskExecutionFailed as caught:
            error = str(caught)
        ids = [future.task_id for future in futures]
    return {"values": values, "error": error, "ids_differ": len(set(ids)) == len(ids)}


def client_runs_functions(endpoint_id):
    client = Client()
    function_id = client.register_function(add)
    first = client.run(3, 4, endpoint_id=endpoint_id, function_id=function_id)
    batch = client.create_batch()
    for number in range(3):
        batch.add(function_id, args=(number,), kwargs={"b": 10})
    sent = client.batch_run(endpoint_id, batch)
    ids = sent["tasks"][str(function_id)]
    failing = client.run(endpoint_id=endpoint_id, function_id=client.register_function(explode))
    try:
        wait_for(client, failing)
        error = None
    except TaskExecutionFailed as caught:
        error = str(caught)
    return {
        "result": wait_for(client, first),
        "status": client.get_task(first)["status"],
        "batch": [wait_for(client, task_id) for task_id in ids],
        "batch_result": [client.get_batch_result(ids)[task_id]["result"] for task_id in ids],
        "error": error,
    }


def wait_for(client, task_id):
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return client.get_result(task_id)
        except TaskExecutionFailed:
            raise
        except Exception as pending:
            if "pending" not in str(pending).lower() and type(pending).__name__ != "TaskPending":
                raise
            if time.monotonic() > deadline:
                raise
        time.sleep(0.2)


def two_configurations(endpoint_id):
    """Two templates' worth of user_endpoint_config: two user endpoints; the first one again: the same process."""
    pids = []
    for config in ({"workers": 1}, {"workers": 2}, {"workers": 1}):
        with Executor(endpoint_id=endpoint_id, user_endpoint_config=config) as executor:
            pids.append(executor.submit(parent_of_engine).result(WAIT_S))
    return {"pids": pids}


def reload_tasks(endpoint_id):
    group_id = uuid.uuid4()
    with Executor(endpoint_id=endpoint_id, task_group_id=group_id) as executor:
        sent = [executor.submit(add, number, b=5) for number in range(3)]
        for future in sent:
            future.result(WAIT_S)
    with Executor(endpoint_id=endpoint_id, task_group_id=group_id) as executor:
        again = {future.task_id: future.result(WAIT_S) for future in executor.reload_tasks()}
    return {"again": [again.get(future.task_id) for future in sent]}


def shell_function(endpoint_id):
    with Executor(endpoint_id=endpoint_id) as executor:
        good = executor.submit(ShellFunction("echo {word}; echo to-stderr >&2"), word="spoken")
        bad = executor.submit(ShellFunction("exit 3"))
        good, bad = good.result(WAIT_S), bad.result(WAIT_S)
    return {"stdout": good.stdout, "stderr": good.stderr, "returncode": good.returncode, "bad": bad.returncode}


def source_code(endpoint_id):
    source = "def triple(x):\n    return 3 * x\n"
    with Executor(endpoint_id=endpoint_id) as executor:
        function_id = executor.register_source_code(source, "triple")
        return {"value": executor.submit_to_registered_function(function_id, args=(14,)).result(WAIT_S)}


def every_strategy(endpoint_id):
    """One batch for each pair of strategies, the result asked for in the data strategy."""
    sent = {}
    for code in CODE:
        for data in DATA:
            serializers = {"strategy_code": getattr(strategies, code)(), "strategy_data": getattr(strategies, data)()}
            client = Client(
                code_serialization_strategy=serializers["strategy_code"],
                data_serialization_strategy=serializers["strategy_data"],
            )
            function_id = client.register_function(add)
            batch = client.create_batch(result_serializers=[f"globus_compute_sdk.serialize.{data}"])
            batch.add(function_id, args=(20,), kwargs={"b": 22})
            sent[f"{code}/{data}"] = client.batch_run(endpoint_id, batch)["tasks"][str(function_id)][0]
    client = Client()
    return {"values": {name: wait_for(client, task_id) for name, task_id in sent.items()}}


def result_too_large(endpoint_id):
    with Executor(endpoint_id=endpoint_id) as executor:
        try:
            executor.submit(blow_up_size).result(WAIT_S)
        except TaskExecutionFailed as caught:
            return {"error": str(caught)}
    return {"error": None}


def megabyte(endpoint_id):
    data = bytes(range(250)) * 4000
    with Executor(endpoint_id=endpoint_id) as executor:
        return {"same": executor.submit(add, data, b=b"!").result(WAIT_S) == data + b"!"}


def refused_submit(endpoint_id):
    """What a submit that the service refuses looks like: its status and its text."""
    client = Client()
    function_id = client.register_function(add)
    batch = client.create_batch()
    batch.add(function_id, args=(1,))
    try:
        client.batch_run(endpoint_id, batch)
    except GlobusAPIError as refused:
        return {"status": refused.http_status, "code": refused.code, "text": refused.text, "function": function_id}
    return {"status": 200}


def refused_configuration(endpoint_id):
    with Executor(endpoint_id=endpoint_id, user_endpoint_config={"workers": "many"}) as executor:
        future = executor.submit(add, 1)
        try:
            future.result(WAIT_S)
        except Exception as caught:
            return {"error": str(caught), "type": type(caught).__name__}
    return {"error": None}


def cancelled(endpoint_id):
    """The endpoint has one worker, in a process of this machine."""
    note = os.path.join(tempfile.mkdtemp(), "note")
    client = Client()
    with Executor(endpoint_id=endpoint_id, client=client) as executor:
        running = executor.submit(stay, note)
        wait_until(lambda: os.path.exists(note))
        queued = [executor.submit(add, number) for number in range(10)]
        wait_until(lambda: all(future.task_id for future in queued))
        for future in [*queued[::2], running]:
            client._compute_web_client.v3.post(f"/v3/tasks/{future.task_id}/cancel")
        pending = client.get_task(running.task_id)  # it does not listen to SIGTERM, so it is still there
        errors = [failure_of(future) for future in [running, *queued[::2]]]
        values = [future.result(WAIT_S) for future in queued[1::2]]
        try:
            client._compute_web_client.v3.post(f"/v3/tasks/{running.task_id}/cancel")
        except GlobusAPIError as error:
            again = {"status": error.http_status, "code": error.code}
        try:
            client.get_task(running.task_id)
        except TaskExecutionFailed as error:
            told_to_client = str(error)
    with open(note) as file:
        pids = json.load(file)
    return {
        "pending": {name: pending[name] for name in ("pending", "status")},
        "errors": errors,
        "values": values,
        "told_to_client": told_to_client,
        "again": again,
        "pids": pids,
    }


def failure_of(future):
    error = future.exception(WAIT_S)
    return {"type": type(error).__name__, "text": str(error)}


def wait_until(condition):
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def endpoint_is_known(endpoint_id):
    client = Client()
    deadline = time.monotonic() + WAIT_S  # the first heartbeat may still be on its way
    while client.get_endpoint_status(endpoint_id)["status"] != "online" and time.monotonic() < deadline:
        time.sleep(0.5)
    return {
        "status": client.get_endpoint_status(endpoint_id)["status"],
        "listed": endpoint_id in [endpoint["uuid"] for endpoint in client.get_endpoints()],
        "metadata": client.get_endpoint_metadata(endpoint_id).get("name"),
    }


def main():
    _, scenario, endpoint_id = sys.argv
    answer = globals()[scenario](endpoint_id)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
