"""A real manager process, what it needs around it, and a service's side to talk to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pika
import psutil

from endpoint.wire.codec import decode
from endpoint.wire.messages import StatusReport
from tests.support.web_service import OWNER, Answer, WebService

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).with_name("user_endpoint_stand_in.py")
TEMPLATE = """\
display_name: {{ mode|default("run") }}
engine:
  type: ThreadPoolEngine
"""


class Wire:
    """The broker as the service sees it: queues of one manager and of its user endpoints. A context manager."""

    def __init__(self, amqp_url: str) -> None:
        self.amqp_url = amqp_url
        self.manager_id = str(uuid.uuid4())
        self._queues: list[str] = []

    def __enter__(self) -> Wire:
        self._connection = pika.BlockingConnection(pika.URLParameters(self.amqp_url))
        self.channel = self._connection.channel()
        self.commands = self.declare(f"commands.{self.manager_id}")
        self.heartbeats = self.declare(f"beats.{self.manager_id}")
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._queues:
            self.channel.queue_delete(name)
        self._connection.close()

    def declare(self, name: str) -> str:
        self.channel.queue_declare(name)
        self._queues.append(name)
        return name

    def registration(self, endpoint_id: str, *, heartbeats: str, url: str | None = None) -> dict[str, Any]:
        """A registration answer for a manager."""
        target = {"exchange": "", "routing_key": heartbeats, "mandatory": True, "properties": {"delivery_mode": 2}}
        queue = {"connection_url": url or self.amqp_url, "exchange": "", "queue": heartbeats}
        return {
            "endpoint_id": endpoint_id,
            "command_queue_info": {"connection_url": url or self.amqp_url, "queue": self.commands},
            "heartbeat_queue_info": queue | {"queue_publish_kwargs": target},
        }

    def creds(self, endpoint_id: str) -> dict[str, Any]:
        """A registration answer for a user endpoint, whose heartbeat queue exists."""
        heartbeats = f"beats.{endpoint_id}"
        if heartbeats not in self._queues:
            self.declare(heartbeats)
        creds = self.registration(endpoint_id, heartbeats=heartbeats)
        del creds["command_queue_info"]
        return creds

    def start_command(self, endpoint_id: str, *, name: str = "", sub: str = OWNER, **changes: Any) -> dict[str, Any]:
        """A start command as the service sends it; `changes` go into its kwargs."""
        return {
            "command": "cmd_start_endpoint",
            "args": [],
            "kwargs": {
                "name": name or f"uep.{self.manager_id}.{endpoint_id}",
                "user_opts": {},
                "user_runtime": {},
                "amqp_creds": self.creds(endpoint_id),
                **changes,
            },
            "globus_username": "owner@example.org",
            "globus_effective_identity": sub,
            "globus_identity_set": [{"sub": sub, "username": "owner@example.org"}],
        }

    def send(self, command: Any, *, timestamp: int | None = None, content_type: str = "application/json") -> None:
        body = command if isinstance(command, bytes) else json.dumps(command).encode()
        stamp = round(time.time()) if timestamp is None else timestamp
        properties = pika.BasicProperties(content_type=content_type, timestamp=stamp)
        self.channel.basic_publish("", self.commands, body, properties)

    def next_state(self, queue: str, timeout: float = 30) -> dict[str, Any]:
        """The `global_state` of the next status report in `queue`."""
        deadline = time.monotonic() + timeout
        for method, _, body in self.channel.consume(queue, inactivity_timeout=deadline - time.monotonic()):
            if method is None:
                break
            self.channel.basic_ack(method.delivery_tag)
            self.channel.cancel()
            report = decode(body)
            assert isinstance(report, StatusReport)
            return dict(report.global_state)
        self.channel.cancel()
        raise AssertionError(f"nothing came on {queue} within {timeout} s")

    def state_of(self, endpoint_id: str, timeout: float = 30) -> dict[str, Any]:
        """What a user endpoint says next, or what is said in its name."""
        return self.next_state(f"beats.{endpoint_id}", timeout)

    def waiting(self, queue: str) -> int:
        count: int = self.channel.queue_declare(queue, passive=True).method.message_count
        return count


class ManagerProcess:
    """`globus-compute-endpoint start ep` in a directory of its own. A context manager that ends it.

    programs: a directory with the `globus-compute-endpoint` that is to run user endpoints; the stand-in by default.
    """

    def __init__(
        self,
        directory: Path,
        service: WebService,
        *,
        config: str = "",
        template: str = TEMPLATE,
        programs: Path | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.compute_dir = directory / "compute"
        self.endpoint_dir = self.compute_dir / "ep"
        self.endpoint_dir.mkdir(parents=True)
        (self.endpoint_dir / "config.yaml").write_text(config)
        (self.endpoint_dir / "user_config_template.yaml.j2").write_text(template)
        path = f"{programs or stand_in_programs(directory)}:/usr/bin:/bin"
        (self.endpoint_dir / "user_environment.yaml").write_text(f"PATH: {path}\n")
        self._environment = {**os.environ, **service.environment, **(environment or {})}
        self._environment["GLOBUS_COMPUTE_USER_DIR"] = str(self.compute_dir)
        self._output = directory / "manager.out"

    def __enter__(self) -> ManagerProcess:
        self.start()
        return self

    def start(self) -> None:
        self.process = subprocess.Popen(
            [str(BIN / "globus-compute-endpoint"), "start", "ep"],
            stdin=subprocess.DEVNULL,
            stdout=self._output.open("ab"),
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
        )

    def __exit__(self, *_: object) -> None:
        children = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for child in children:
            if child.is_running():
                child.kill()

    def wait(self, timeout: float = 30) -> int:
        """The exit status."""
        return self.process.wait(timeout)

    @property
    def output(self) -> str:
        return self._output.read_text()

    @property
    def log(self) -> str:
        return (self.endpoint_dir / "endpoint.log").read_text()


def stand_in_programs(directory: Path) -> Path:
    """A directory whose `globus-compute-endpoint` is the stand-in."""
    programs = directory / "programs"
    programs.mkdir()
    program = programs / "globus-compute-endpoint"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={REPOSITORY} exec {sys.executable} {STAND_IN} "$@"\n')
    program.chmod(0o755)
    return programs


def registering(wire: Wire, **changes: Any) -> WebService:
    """A service that registers the manager of `wire`."""
    answer = wire.registration(wire.manager_id, heartbeats=wire.heartbeats) | changes
    return WebService(lambda _asked, _body: Answer(200, answer))
