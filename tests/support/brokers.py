"""An embedded broker for tests that are not asyncio themselves: it runs in a loop of its own, in a thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from endpoint.hub.embedded import EmbeddedBroker

T = TypeVar("T")


class LoopThread:
    """An event loop in a thread that lives until `close()`; the kernel ends children of a thread that ends."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="test-broker")
        self._thread.start()

    def run(self, coroutine: Coroutine[Any, Any, T], timeout: float = 130) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@dataclass
class RunningBroker:
    """What a test needs to know of the broker.

    amqp_url: with the admin's credentials and the virtual host, ready to connect; amqp_base: without both.
    """

    directory: Path
    amqp_base: str
    management_url: str
    user: str
    password: str
    vhost: str
    pids: list[int]

    @property
    def amqp_url(self) -> str:
        return self.amqp_base.replace("://", f"://{self.user}:{self.password}@") + f"/{self.vhost}"

    def serve_arguments(self, directory: Path, *, vhost: str) -> list[str]:
        """The arguments with which `compute-hub serve` uses this broker, and a database in `directory`."""
        password_file = directory / "broker-password"
        password_file.write_text(self.password)
        return [
            f"--amqp-url={self.amqp_base}/{vhost}",
            f"--management-url={self.management_url}",
            f"--broker-user={self.user}",
            f"--broker-password-file={password_file}",
            f"--database={directory / 'hub.db'}",
        ]


class ThreadedBroker:
    """Start an embedded broker in `directory`, and stop it."""

    def __init__(self, directory: Path) -> None:
        self._broker = EmbeddedBroker(directory)
        self._thread = LoopThread()

    def start(self) -> RunningBroker:
        try:
            self._thread.run(self._broker.start())
        except BaseException:
            self._thread.close()
            raise
        return RunningBroker(
            directory=self._broker.directory,
            amqp_base=self._broker.amqp_url,
            management_url=self._broker.management_url,
            user=self._broker.user,
            password=self._broker.password,
            vhost=self._broker.vhost,
            pids=self._broker.pids,
        )

    def stop(self) -> None:
        self._thread.run(self._broker.stop())
        self._thread.close()
