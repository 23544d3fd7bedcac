"""A private RabbitMQ that can be stopped, killed and started again in place, and users of it that can be taken away."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from urllib.parse import quote

import httpx
import psutil

from endpoint.hub.embedded import EmbeddedBroker
from tests.support.brokers import LoopThread

API_TIMEOUT_S = 20.0
DEATH_S = 20.0


class FaultBroker:
    """A node in `directory`; a context manager.

    options: of Erlang's application `rabbit`, times in the unit that it has (`consumer_timeout`: ms, `heartbeat`: s).
    """

    def __init__(self, directory: Path, options: Mapping[str, int] | None = None) -> None:
        self._directory = directory
        self._options = dict(options or {})
        self._node = EmbeddedBroker(directory)
        self._thread: LoopThread | None = None

    def __enter__(self) -> FaultBroker:
        # For the options that rabbitmq.conf has no name for; the node reads this file where it is there.
        conf = self._directory / "conf"
        conf.mkdir(mode=0o700, parents=True, exist_ok=True)
        terms = ", ".join(f"{{{name}, {value}}}" for name, value in self._options.items())
        (conf / "advanced.config").write_text(f"[{{rabbit, [{terms}]}}].\n")
        self._thread = LoopThread()
        try:
            self.start()
        except BaseException:
            self._thread.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        assert self._thread is not None
        self.stop()
        self._thread.close()

    @property
    def port(self) -> int:
        return self._node.settings.amqp_port

    def url(self, user: str | None = None, password: str | None = None) -> str:
        """The address with the credentials of `user`; of the administrator by default."""
        user, password = (user, password) if user else (self._node.user, self._node.password)
        return self._node.amqp_url.replace("://", f"://{user}:{password}@") + f"/{self._node.vhost}"

    def start(self) -> None:
        """Start the node; returns when it takes connections."""
        assert self._thread is not None
        self._thread.run(self._node.start())

    def stop(self) -> None:
        """Stop the node politely; also what cleans up after `kill`."""
        assert self._thread is not None
        self._thread.run(self._node.stop())

    def kill(self) -> None:
        """Kill the node, without a word to its clients."""
        node = self._node.pids[-1]
        family = [psutil.Process(node), *psutil.Process(node).children(recursive=True)]
        os.kill(node, signal.SIGKILL)
        psutil.wait_procs(family[1:], DEATH_S)  # Erlang's port programs end when their pipe does
        self.stop()

    def add_user(self) -> tuple[str, str]:
        """A new user that may do everything in the virtual host: its name and password."""
        name, password = f"endpoint-{secrets.token_hex(4)}", secrets.token_hex(16)
        everything = {"configure": ".*", "write": ".*", "read": ".*"}
        with self._api() as api:
            api.put(f"/api/users/{name}", json={"password": password, "tags": ""}).raise_for_status()
            api.put(f"/api/permissions/{self._node.vhost}/{name}", json=everything).raise_for_status()
        return name, password

    def revoke(self, user: str) -> None:
        """Delete a user and close its connections."""
        with self._api() as api:
            api.delete(f"/api/users/{user}").raise_for_status()
            _repeat(lambda: _close_connections(api, user), seconds=10)

    def delete_user(self, user: str) -> None:
        """Delete a user if it is still there."""
        with self._api() as api, contextlib.suppress(httpx.HTTPError):
            api.delete(f"/api/users/{user}")

    def _api(self) -> httpx.Client:
        return httpx.Client(
            base_url=self._node.management_url, auth=(self._node.user, self._node.password), timeout=API_TIMEOUT_S
        )


def _close_connections(api: httpx.Client, user: str) -> bool:
    """Ask for the end of the connections of `user`; whether there is none."""
    answer = api.get("/api/connections")
    answer.raise_for_status()
    names = [connection["name"] for connection in answer.json() if connection.get("user") == user]
    for name in names:
        api.delete(f"/api/connections/{quote(name, safe='')}")
    return not names


def _repeat(done: Callable[[], bool], *, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done() and time.monotonic() < deadline:
        time.sleep(0.2)
