"""A real user endpoint process, the queues of a registration on a real broker, and a client's side to talk to it."""

from __future__ import annotations

import base64
import contextlib
import inspect
import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import dill
import pika

from endpoint.wire.codec import decode, encode
from endpoint.wire.messages import Result, StatusReport, Task, TaskCancel

BIN = Path(sys.executable).parent
THREADS = "engine:\n  type: ThreadPoolEngine\n  max_workers: 2\nheartbeat_period: 5\n"


class Queues:
    """The queues of one endpoint; deleted at the end. A context manager.

    cancels: whether there is one for cancellations beside that for tasks, as with our hub.
    """

    def __init__(self, amqp_url: str, *, endpoint_url: str | None = None, cancels: bool = False) -> None:
        self.endpoint_id = str(uuid.uuid4())
        self._url = amqp_url
        self._endpoint_url = endpoint_url or amqp_url
        self.task, self.result, self.heartbeat = (f"{kind}.{self.endpoint_id}" for kind in ("task", "result", "beat"))
        self.cancels = f"cancels.{self.endpoint_id}" if cancels else ""
        self.exchange = f"exchange.{self.endpoint_id}"
        self._consumers: dict[str, Any] = {}
        self._unclaimed: dict[str, Result] = {}

    def __enter__(self) -> Queues:
        self._connection = pika.BlockingConnection(pika.URLParameters(self._url))
        self.channel = self._connection.channel()
        self.channel.exchange_declare(self.exchange, "direct")
        for name in filter(None, (self.task, self.result, self.heartbeat, self.cancels)):
            self.channel.queue_declare(name)
            self.channel.queue_bind(name, self.exchange, name)
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(pika.exceptions.AMQPError):
            for name in filter(None, (self.task, self.result, self.heartbeat, self.cancels)):
                self.channel.queue_delete(name)
            self.channel.exchange_delete(self.exchange)
            self._connection.close()

    def registration(self) -> dict[str, Any]:
        def info(queue: str, *, publish: bool = True) -> dict[str, Any]:
            target = {
                "exchange": self.exchange,
                "routing_key": queue,
                "mandatory": True,
                "properties": {"delivery_mode": 2},
            }
            doc = {"connection_url": self._endpoint_url, "exchange": self.exchange, "queue": queue}
            return {**doc, "queue_publish_kwargs": target} if publish else doc

        return {
            "endpoint_id": self.endpoint_id,
            "task_queue_info": {
                **info(self.task, publish=False),
                **({"cancel_queue": self.cancels} if self.cancels else {}),
            },
            "result_queue_info": info(self.result),
            "heartbeat_queue_info": info(self.heartbeat),
        }

    def submit(self, function: Any, *args: Any, **kwargs: Any) -> str:
        """Publish a task as the service does; returns its id."""
        task_id = str(uuid.uuid4())
        self.publish(encode(Task(task_id, packed(function, args, kwargs))), headers(task_id))
        return task_id

    def cancel(self, task_id: str) -> None:
        """Say that nobody wants a task: on the queue for that, else on that of tasks."""
        self.channel.basic_publish(self.exchange, self.cancels or self.task, encode(TaskCancel(task_id)))

    def publish(self, body: bytes, message_headers: dict[str, Any] | None) -> None:
        self.channel.basic_publish(self.exchange, self.task, body, pika.BasicProperties(headers=message_headers))

    def result_of(self, task_id: str, timeout: float = 30) -> Result:
        """The result message of one task, acknowledged."""
        deadline = time.monotonic() + timeout
        while task_id not in self._unclaimed:
            message = decode(self._next(self.result, deadline))
            assert isinstance(message, Result)
            self._unclaimed[message.task_id] = message
        return self._unclaimed.pop(task_id)

    def value_of(self, task_id: str, timeout: float = 30) -> Any:
        """What a task returned; fails on an error result."""
        result = self.result_of(task_id, timeout)
        assert result.error_details is None, result.data
        return unpacked(result.data)

    def next_heartbeat(self, timeout: float = 30) -> dict[str, Any]:
        """The `global_state` of the next heartbeat."""
        report = decode(self._next(self.heartbeat, time.monotonic() + timeout))
        assert isinstance(report, StatusReport)
        return dict(report.global_state)

    def waiting(self, queue: str) -> int:
        return self.channel.queue_declare(queue, passive=True).method.message_count

    def unexpected_results(self) -> list[Result]:
        """The results that nobody has asked for, and that come within a moment."""
        while (body := self._take(self.result, 0.3)) is not None:
            message = decode(body)
            assert isinstance(message, Result)
            self._unclaimed[message.task_id] = message
        return list(self._unclaimed.values())

    def _next(self, queue: str, deadline: float) -> bytes:
        body = self._take(queue, max(0.0, deadline - time.monotonic()))
        assert body is not None, f"nothing came on {queue} in time"
        return body

    def _take(self, queue: str, timeout: float) -> bytes | None:
        # One lasting consumer for each queue: to begin and cancel one for each message would be most of its time.
        if queue not in self._consumers:
            self._consumers[queue] = self._connection.channel()
        for method, _properties, body in self._consumers[queue].consume(queue, True, inactivity_timeout=timeout):
            return None if method is None else body
        return None


class UserEndpointProcess:
    """`globus-compute-endpoint _start-user-endpoint` with a start document. A context manager that ends it."""

    def __init__(
        self,
        queues: Queues,
        directory: Path,
        *,
        config: str = THREADS,
        command: list[str] | None = None,
        **document: Any,
    ) -> None:
        self.queues = queues
        self.directory = directory
        self._command = command or [str(BIN / "globus-compute-endpoint")]
        self._document = {
            "amqp_creds": queues.registration(),
            "config": config,
            "ep_info": {"posix_ppid": os.getpid()},
            **document,
        }

    def __enter__(self) -> UserEndpointProcess:
        self.start(pass_fds=tuple(fd for fd in map(self._document.get, ("mem_fd", "audit_fd")) if fd))
        return self

    def start(self, *, pass_fds: tuple[int, ...] = ()) -> None:
        (self.directory / "uep").mkdir(mode=0o700, exist_ok=True)  # as managers do
        self.process = subprocess.Popen(
            [*self._command, "_start-user-endpoint", "uep"],
            stdin=subprocess.PIPE,
            stdout=(self.directory / "stdout").open("ab"),
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                "GLOBUS_COMPUTE_USER_DIR": str(self.directory),
                # Engines start their helpers by the command's name: the one beside the endpoint must be found first.
                "PATH": f"{Path(self._command[0]).parent}:{os.environ['PATH']}",
            },
            pass_fds=pass_fds,
            start_new_session=True,
        )
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(self._document).encode())
        self.process.stdin.close()

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def log(self) -> str:
        files = [self.directory / "uep" / "endpoint.log", self.directory / "stdout"]
        return "\n".join(file.read_text(errors="replace") for file in files if file.exists())


def headers(task_id: str, **more: Any) -> dict[str, Any]:
    return {"task_uuid": task_id, "function_uuid": str(uuid.uuid4()), "resource_specification": "null", **more}


def packed(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """A task buffer; the function travels as its source, since a worker can't import a module of tests."""
    code = f"st\n{function.__name__}:{inspect.getsource(function)}"
    data = ["00\n" + base64.encodebytes(dill.dumps(value)).decode() for value in (args, kwargs)]
    return "".join(f"{len(buffer)}\n{buffer}" for buffer in [code, *data])


def unpacked(data: str) -> Any:
    assert data.startswith("00\n"), data[:40]
    return dill.loads(base64.decodebytes(data[3:].encode()))
