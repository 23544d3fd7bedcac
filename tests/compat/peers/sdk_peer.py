"""The official packages behind a pipe: reads one JSON request a line, answers one JSON line.

Runs with the Python of the peer environment, and so imports nothing of ours.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from globus_compute_common import messagepack
from globus_compute_common.messagepack import message_types
from globus_compute_sdk import MPIFunction, ShellFunction
from globus_compute_sdk.errors import TaskExecutionFailed
from globus_compute_sdk.serialize import ComputeSerializer, concretes
from globus_compute_sdk.serialize.facade import parse_allowlist

MESSAGES = {cls.Meta.message_type: cls for cls in message_types.ALL_MESSAGE_CLASSES}


def add_and_multiply(first: int, second: int = 2) -> dict:
    return {"sum": first + second, "product": first * second}


def divide(number: int) -> float:
    return number / 0


CALLABLES: dict[str, Any] = {
    "add_and_multiply": add_and_multiply,
    "divide": divide,
    "shell": ShellFunction("echo from {place}; exit 3", walltime=30),
    "mpi": MPIFunction("echo ranks"),
}


def pack_message(kind: str, data: dict) -> str:
    return messagepack.pack(MESSAGES[kind].model_validate(data)).decode("latin-1")


def unpack_message(body: str) -> dict:
    message = messagepack.unpack(body.encode("latin-1"))
    return {"kind": message.message_type, "data": message.model_dump(mode="json")}


def serialize_callable(strategy: str, name: str) -> str:
    return getattr(concretes, strategy)().serialize(CALLABLES[name])


def serialize_value(strategy: str, expression: str) -> str:
    return getattr(concretes, strategy)().serialize(eval(expression))


def repr_of(buffer: str) -> str:
    return repr(ComputeSerializer().deserialize(buffer))


def call(buffer: str, args: list, kwargs: dict) -> str:
    return repr(ComputeSerializer().deserialize(buffer)(*args, **kwargs))


def pack_buffers(buffers: list[str]) -> str:
    return ComputeSerializer.pack_buffers(buffers)


def unpack_buffers(packed: str) -> list[str]:
    return ComputeSerializer.unpack_buffers(packed)


def unpack_task_buffer(packed: str, args: list) -> str:
    function, its_args, its_kwargs = ComputeSerializer().unpack_and_deserialize(packed)
    return repr(function(*its_args, **its_kwargs))


def allowlist(names: list[str]) -> list[str]:
    return sorted(strategy.__name__ for strategy in parse_allowlist(names))


def selectable() -> list[str]:
    return [strategy.__name__ for strategy in concretes.SELECTABLE_STRATEGIES]


def identifiers() -> dict[str, str]:
    return {type(one).__name__: key for key, one in concretes.SerializationStrategy._CACHE.items()}


def shown_failure(body: str) -> str:
    """What a user of the SDK reads when a future's exception is the one that this result makes."""
    result = messagepack.unpack(body.encode("latin-1"))
    assert result.is_error
    return str(TaskExecutionFailed(result.data, "0"))


def environment() -> dict:
    from globus_compute_sdk.sdk.utils import get_env_details

    return get_env_details()


def version_warning(details: dict) -> str | None:
    from globus_compute_sdk.sdk.utils import check_version

    return check_version(details)


def run_official_worker(body: str, task_id: str, run_dir: str) -> str:
    from globus_compute_endpoint.engines.helper import execute_task

    return execute_task(body.encode("latin-1"), task_id, None, run_dir=run_dir).decode("latin-1")


def main() -> None:
    answers = sys.stdout
    sys.stdout = sys.stderr
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = {"value": globals()[request["do"]](*request["with"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
