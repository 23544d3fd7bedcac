"""A multi-user endpoint as a site runs it: root starts it, a service user manages it, others have functions run."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.support.hubs import Credentials, clean_environment

NAME = "lab"
TEMPLATE = """\
engine:
  type: ThreadPoolEngine
  max_workers: 20
heartbeat_period: 5
shutdown_grace: 5
"""
SDK_USER = Path(__file__).resolve().parents[1] / "root" / "peers" / "sdk_user.py"


class MultiUserEndpoint:
    """One endpoint below `base`, a directory of root's that everybody may look into. A context manager.

    programs: the folder of the installed programs, which every user can run.
    service_user: who the manager runs as. owner: the client identity that it registers with.
    users: client id -> local user's name. policy: what the monitor's policy says beside its service user.
    config: what config.yaml says beside the rest.
    """

    def __init__(
        self,
        base: Path,
        *,
        programs: Path,
        service_user: str,
        hub_env: Mapping[str, str],
        owner: Credentials,
        users: Mapping[str, str],
        policy: Mapping[str, Any],
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.base = base
        self.folder = base / "compute" / NAME
        self.runtime = base / "run"
        self.policy_file = base / "policy.json"
        self.output = base / "monitor.out"
        self.program = programs / "globus-compute-endpoint"
        self.service_user = service_user
        self._owner = owner
        self._users = users
        self._config = dict(config or {})
        self._policy = {"service_user": service_user, "runtime_directory": str(self.runtime), **policy}
        self._env = clean_environment({**hub_env, "GLOBUS_COMPUTE_CREDENTIAL_FILE": str(self.folder / "client.json")})
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self) -> None:
        """Write all of its files."""
        self.folder.mkdir(parents=True)
        pam = self._policy["pam"]
        mapping = self.folder / "identity_mapping_config.json"
        config = {"identity_mapping_config_path": str(mapping), "pam": pam, "heartbeat_period": 5}
        self._write("config.yaml", json.dumps(config | self._config))
        self._write("user_config_template.yaml.j2", TEMPLATE)
        self._write(mapping.name, json.dumps([self._mapping()]))
        self._write("client.json", json.dumps(vars(self._owner)))
        self.policy_file.write_text(json.dumps(self._policy))
        self.policy_file.chmod(0o644)
        shutil.chown(self.folder.parent, self.service_user)
        shutil.chown(self.folder, self.service_user)

    def reconfigure(self, **config: Any) -> None:
        """Change config.yaml for the next start."""
        path = self.folder / "config.yaml"
        path.write_text(json.dumps(json.loads(path.read_text()) | config))

    def _mapping(self) -> dict[str, Any]:
        rules = [{"source": "{id}", "match": client, "output": user} for client, user in self._users.items()]
        return {"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": rules}

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(0o600)
        shutil.chown(path, self.service_user)

    def __enter__(self) -> MultiUserEndpoint:
        self.configure()
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(40)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._end_left()

    def _end_left(self) -> None:
        """End the user endpoints that outlived a monitor that was killed: those of this endpoint, and nothing else."""
        for path in (self.runtime / NAME).glob("*.json"):
            facts = json.loads(path.read_text())
            with contextlib.suppress(psutil.NoSuchProcess):
                process = psutil.Process(facts["pid"])
                if facts["pid"] > 1 and facts["uid"] > 0 and process.ppid() == facts["keeper"]:
                    assert process.uids().real == facts["uid"]
                    process.kill()
                    process.wait(10)

    def start(self, timeout: float = 30) -> None:
        """Start it in the foreground, and wait until it is connected."""
        begin = self.output.stat().st_size if self.output.exists() else 0
        self.process = subprocess.Popen(
            [str(self.program), "--config-dir", str(self.folder.parent), "start", NAME, "--policy", self.policy_file],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=self.output.open("ab"),
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.wait_for(lambda: "Connected." in self.output.read_text()[begin:], timeout)

    def wait_for(self, seen: Callable[[], Any], timeout: float = 30) -> None:
        """Wait until something is so; fails with the logs."""
        deadline = time.monotonic() + timeout
        while not seen():
            if time.monotonic() > deadline:
                raise AssertionError(f"it did not come about within {timeout} s\n{self.logs}")
            if self.process is not None and self.process.poll() is not None and "Connected." not in self.said:
                raise AssertionError(f"the endpoint ended with status {self.process.returncode}\n{self.logs}")
            time.sleep(0.05)

    @property
    def said(self) -> str:
        """What came on the terminal."""
        return self.output.read_text(errors="replace")

    @property
    def log(self) -> str:
        """The manager's log."""
        path = self.folder / "endpoint.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def logs(self) -> str:
        return f"--- terminal\n{self.said}\n--- manager\n{self.log}"

    @property
    def endpoint_id(self) -> str:
        return str(json.loads((self.folder / "endpoint.json").read_text())["endpoint_id"])

    @property
    def manager_pid(self) -> int:
        return int(json.loads((self.folder / "daemon.pid").read_text())["pid"])

    def kill_manager(self) -> int:
        """`kill -9` the manager; the monitor's exit status."""
        assert self.process is not None
        manager = psutil.Process(self.manager_pid)
        assert manager.ppid() == self.process.pid
        manager.kill()
        return self.process.wait(20)

    def kill_monitor(self) -> None:
        """`kill -9` the monitor, and wait until its manager is gone too."""
        assert self.process is not None
        manager = psutil.Process(self.manager_pid)
        self.process.kill()
        self.process.wait()
        psutil.wait_procs([manager], timeout=30)
        assert not manager.is_running(), self.logs

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One command of the program as root, to its end; fails if it fails."""
        done = subprocess.run(
            [str(self.program), "--config-dir", str(self.folder.parent), *arguments],
            env=self._env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}\n{self.logs}"
        return done

    def user_endpoints(self) -> list[dict[str, Any]]:
        """As `status --json` has them."""
        found: list[dict[str, Any]] = json.loads(self.run("status", NAME, "--json").stdout)["user_endpoints"]
        return found


class SdkUser:
    """Somebody with the official SDK, and a client identity at the hub."""

    def __init__(self, python: Path, hub_env: Mapping[str, str], credentials: Credentials) -> None:
        self._python = python
        self._env = clean_environment({**hub_env, **credentials.env})
        self.client_id = credentials.client_id

    def begin(self, scenario: str, endpoint_id: str, *arguments: object) -> subprocess.Popen[str]:
        """Start a scenario."""
        return subprocess.Popen(
            [str(self._python), str(SDK_USER), scenario, endpoint_id, *map(str, arguments)],
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    @staticmethod
    def end(process: subprocess.Popen[str], logs: str = "") -> dict[str, Any]:
        """What a scenario printed."""
        out, err = process.communicate(timeout=110)
        assert process.returncode == 0, f"{out}\n{err}\n{logs}"
        answer: dict[str, Any] = json.loads(out.splitlines()[-1])
        return answer

    def play(self, scenario: str, endpoint: MultiUserEndpoint, *arguments: object) -> dict[str, Any]:
        """Run a scenario against an endpoint."""
        process = self.begin(scenario, endpoint.endpoint_id, *arguments)
        try:
            return self.end(process)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{endpoint.logs}") from None
