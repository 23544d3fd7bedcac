"""Endpoints as their owners run them: `configure`, then `start`, with our program or the official one."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path

import psutil

from tests.support.hubs import clean_environment

TEMPLATE = """\
engine:
  type: ThreadPoolEngine
  max_workers: {{ workers|default(1) }}
heartbeat_period: 5
"""
# Root would get a multi-user endpoint from the official program. In a user namespace root's files stay within reach.
NOBODY = 65534
AS_ORDINARY_USER = ["unshare", "--user", f"--map-user={NOBODY}", f"--map-group={NOBODY}"] if os.getuid() == 0 else []
SCHEMA = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "properties": {"workers": {"type": "integer", "minimum": 1}},
    "additionalProperties": False,
}


class ManagedEndpoint:
    """One endpoint of a user's, run in the foreground as a child. A context manager.

    program: `globus-compute-endpoint` of ours or of the official package.
    user_bin: the folder that comes first on the PATH of user endpoints, which decides whose they are.
    """

    def __init__(
        self,
        program: Path,
        directory: Path,
        env: dict[str, str],
        *,
        user_bin: Path | None = None,
        extra_config: str = "",
        template: str = TEMPLATE,
    ) -> None:
        self.program = program
        self.directory = directory
        self.folder = directory / "lab"
        self._extra_config = extra_config
        self._template = template
        path = f"{user_bin or program.parent}:{program.parent}:{os.environ['PATH']}"
        self.env = clean_environment(
            {**env, "GLOBUS_COMPUTE_USER_DIR": str(directory), "HOME": str(directory), "PATH": path}
        )

    def __enter__(self) -> ManagedEndpoint:
        self.configure()
        self.start()
        return self

    def configure(self) -> None:
        self.run("configure", "lab")
        (self.folder / "user_config_template.yaml.j2").write_text(self._template)
        (self.folder / "user_config_schema.json").write_text(json.dumps(SCHEMA))
        with (self.folder / "config.yaml").open("a") as config:
            config.write("\n" + self._extra_config)

    def start(self, timeout: float = 60) -> None:
        self.process = subprocess.Popen(
            [*AS_ORDINARY_USER, str(self.program), "start", "lab"],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=(self.directory / "stdout").open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.endpoint_id = self._registered_id(time.monotonic() + timeout)

    def _registered_id(self, deadline: float) -> str:
        """The id, which the official endpoint writes to a file and does not print where nobody watches."""
        while self.process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError, ValueError, KeyError):
                return str(json.loads((self.folder / "endpoint.json").read_text())["endpoint_id"])
            time.sleep(0.1)
        said = (self.directory / "stdout").read_text()
        raise AssertionError(f"the endpoint did not register; it said:\n{said}\n{self.log}")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of the program, to its end; fails if it fails."""
        done = subprocess.run(
            [*AS_ORDINARY_USER, str(self.program), *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(45)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    @property
    def log(self) -> str:
        """The logs of the manager and of all its user endpoints."""
        return "\n".join(
            f"--- {file}\n{file.read_text(errors='replace')}" for file in self.directory.glob("*/endpoint.log")
        )

    def user_endpoint_environments(self) -> list[Path]:
        """The virtual environments of the user endpoints that run now, told by the libraries that they have loaded."""
        found = []
        for child in psutil.Process(self.process.pid).children():
            loaded = [Path(entry.path) for entry in child.memory_maps() if "site-packages" in entry.path]
            found += [path.parents[path.parts[::-1].index("lib")] for path in loaded[:1]]
        return found
