"""A real `compute-hub serve`, and how clients reach it."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

READY = "Ready: "


class HubProcess:
    """`compute-hub serve ARGS` as a subprocess; `url` is known when the constructor returns."""

    def __init__(
        self, arguments: list[str], *, log: Path, timeout: float = 60, env: Mapping[str, str] | None = None
    ) -> None:
        self.log = log
        self.process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", sys.executable, "-m", "endpoint.cli.hub", "serve", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log.open("ab"),
            start_new_session=True,
            env={**os.environ, **(env or {})},
        )
        try:
            self.url = self._read_url(time.monotonic() + timeout)
        except BaseException:
            self.stop()
            raise

    def _read_url(self, deadline: float) -> str:
        assert self.process.stdout is not None
        seen = b""
        while not (b"\n" in seen and READY.encode() in seen.splitlines(keepends=True)[-1]):
            readable, _, _ = select.select([self.process.stdout], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self.process.stdout.fileno(), 65536) if readable else b""
            seen += chunk
            if not chunk:
                raise AssertionError(f"compute-hub isn't ready; it said:\n{seen.decode()}\n{self.log.read_text()}")
        return seen.decode().rsplit(READY, 1)[1].split()[0]

    def stop(self, timeout: float = 30) -> int:
        if self.process.poll() is None:
            self.process.terminate()
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            assert self.process.stdout is not None
            self.process.stdout.close()


@dataclass(frozen=True)
class Credentials:
    """A client identity of a hub."""

    client_id: str
    client_secret: str

    @property
    def env(self) -> dict[str, str]:
        return {"GLOBUS_COMPUTE_CLIENT_ID": self.client_id, "GLOBUS_COMPUTE_CLIENT_SECRET": self.client_secret}


@dataclass(frozen=True)
class RunningHub:
    """A hub that answers at `url`.

    env: add it to a process's environment and official and our own clients in it talk to this hub. The official ones
    insist on `http://localhost:5000`; `http_proxy` brings them to the right port.
    """

    url: str
    directory: Path
    process: HubProcess

    @property
    def env(self) -> dict[str, str]:
        return hub_environment(self.url)

    def client(self, name: str) -> Credentials:
        """Make a client identity."""
        command = [sys.executable, "-m", "endpoint.cli.hub", "client", "create", name]
        done = subprocess.run(
            [*command, "--directory", str(self.directory), "--json"], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        document = json.loads(done.stdout)
        return Credentials(document["client_id"], document["client_secret"])

    def person(self, name: str, password: str) -> str:
        """Make an account; returns its username."""
        command = [sys.executable, "-m", "endpoint.cli.hub", "user", "create", name, "--domain", "hub.example"]
        done = subprocess.run(
            [*command, "--password-stdin", "--directory", str(self.directory), "--json"],
            input=password + "\n",
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["username"])

    def client_env(self, name: str) -> dict[str, str]:
        """`env`, and the credentials of a new client identity."""
        return {**self.env, **self.client(name).env}


def hub_environment(url: str) -> dict[str, str]:
    """The variables with which unmodified official clients, and ours, use the hub at `url`."""
    return {
        "GLOBUS_SDK_ENVIRONMENT": "local",
        "GLOBUS_SDK_SERVICE_URL_AUTH": f"{url}/",  # without the slash, official clients ask for a wrong redirect
        "GLOBUS_SDK_SERVICE_URL_COMPUTE": url,
        "http_proxy": url,
        "no_proxy": "",
        "NO_PROXY": "",
    }


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without anything of Globus, with `extra`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GLOBUS_")}
    return {**kept, **extra}
