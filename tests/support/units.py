"""Endpoints as units of a booted machine's systemd, with the unit files that sites get."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from endpoint.units import CLIENT_DIRECTORY as CONFIGURED
from endpoint.units import COMPUTE_DIR, EndpointUnit, endpoint_unit, unit_name
from tests.support.hubs import Credentials
from tests.support.installed import Installed
from tests.support.machines import Machine
from tests.support.multi_user import TEMPLATE

NAME = "lab"
UNIT = unit_name(NAME)
FOLDER = f"{COMPUTE_DIR}/{NAME}"
PAM = """\
account  required  pam_nologin.so
account  required  pam_unix.so
session  optional  pam_keyinit.so force revoke
session  required  pam_limits.so
session  required  pam_env.so
"""
PAM_FILE = "/etc/pam.d/globus-compute-endpoint"
PATIENCE_S = 60.0


def unit_file(program: Path | str) -> str:
    """The unit as the role would write it."""
    client = f"{CONFIGURED}/{NAME}"
    return endpoint_unit(
        EndpointUnit(
            name=NAME,
            kind="multi-user",
            scope="system",
            program=str(program),
            compute_dir=COMPUTE_DIR,
            client_id_file=f"{client}.client_id",
            client_secret_file=f"{client}.client_secret",
        )
    )


class OneUserEndpoint:
    """An endpoint of one user on a machine, in the user's own directory, as a unit.

    owns: the unit is one of the user's own service manager.
    """

    def __init__(self, machine: Machine, program: Installed, name: str, user: str, *, owns: bool) -> None:
        self.machine = machine
        self.program = program.program
        self.name = name
        self.user = user
        self.owns = owns
        self.unit = unit_name(name)
        self.compute_dir = f"/home/{user}/.globus_compute"
        self.folder = f"{self.compute_dir}/{name}"

    def set_up(self, hub_env: Mapping[str, str], owner: Credentials) -> None:
        """The user, the endpoint's files, its client identity, and a drop-in with no patience."""
        self._hub_env = [f"{name}={value}" for name, value in hub_env.items()]
        self.machine.run("useradd", "--create-home", "--shell", "/bin/bash", self.user)
        self.machine.write(f"{self.folder}/config.yaml", json.dumps({"heartbeat_period": 5}), 0o600)
        self.machine.write(f"{self.folder}/user_config_template.yaml.j2", TEMPLATE, 0o600)
        beside = f"{self.folder}/" if self.owns else f"{CONFIGURED}/{self.name}."
        self.machine.write(f"{beside}client_id", owner.client_id + "\n", 0o600)
        self.machine.write(f"{beside}client_secret", owner.client_secret + "\n", 0o600)
        units = f"/home/{self.user}/.config/systemd/user" if self.owns else "/etc/systemd/system"
        self.machine.write(f"{units}/{self.unit}.d/site.conf", "[Service]\nWatchdogSec=5\nRestartSec=0.2\n")
        self.machine.run("chown", "-R", f"{self.user}:", f"/home/{self.user}")

    def boot_command(self, *words: str, check: bool = True) -> str:
        """`enable-on-boot` or `disable-on-boot`, by the user or by root; where the hub is, is in the environment."""
        program = [*self._hub_env, self.program, "--config-dir", self.compute_dir, *words, self.name]
        who = ["runuser", "-u", self.user, "--"] if self.owns else []
        return self.machine.run(*who, "env", *program, check=check, timeout=120)

    def systemctl(self, *words: str, check: bool = True) -> str:
        """One command about the unit, to the manager that has it."""
        if not self.owns:
            return self.machine.run("systemctl", *words, self.unit, check=check, timeout=120)
        uid = self.machine.run("id", "-u", self.user).strip()
        who = ["runuser", "-u", self.user, "--", "env", f"XDG_RUNTIME_DIR=/run/user/{uid}", "systemctl", "--user"]
        return self.machine.run(*who, *words, self.unit, check=check, timeout=120)

    def show(self, *properties: str) -> dict[str, str]:
        """Properties of the unit."""
        said = self.systemctl("show", f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in said.splitlines())

    @property
    def pid(self) -> int:
        return int(self.show("MainPID")["MainPID"])

    @property
    def logs(self) -> str:
        return self.machine.run("journalctl", "--no-pager", "--output=cat", f"GLOBUS_COMPUTE_ENDPOINT={self.name}")

    @property
    def endpoint_id(self) -> str:
        return str(
            json.loads((self.machine.root / self.folder.lstrip("/") / "endpoint.json").read_text())["endpoint_id"]
        )

    def wait_until_runs(self, *, not_as: int = 0) -> int:
        """Wait until the unit is active, as another process than `not_as`; its process."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            shown = self.show("SubState", "MainPID")
            pid = int(shown["MainPID"])
            if shown["SubState"] == "running" and pid not in (0, not_as):
                return pid
            assert time.monotonic() < deadline, f"{shown}\n{self.logs}"
            time.sleep(0.1)


class UnitEndpoint:
    """The endpoint `lab` on a machine. `users`: client id -> local user's name; they are made here."""

    def __init__(self, machine: Machine, program: Installed) -> None:
        self.machine = machine
        self.program = program.program

    def set_up(self, hub_env: Mapping[str, str], owner: Credentials, users: Mapping[str, str]) -> None:
        """All that an administrator does before the first `systemctl start`."""
        machine = self.machine
        machine.run("useradd", "--system", "--create-home", "globus-compute")
        for name in users.values():
            machine.run("useradd", "--create-home", "--shell", "/bin/bash", name)
        machine.write(PAM_FILE, PAM)
        machine.write(f"{CONFIGURED}/policy.json", "{}")
        machine.write(f"{CONFIGURED}/{NAME}.client_id", owner.client_id + "\n", 0o600)
        machine.write(f"{CONFIGURED}/{NAME}.client_secret", owner.client_secret + "\n", 0o600)
        mapping = f"{FOLDER}/identity_mapping_config.json"
        pam = {"enable": True, "service_name": "globus-compute-endpoint"}
        config = {"identity_mapping_config_path": mapping, "pam": pam, "heartbeat_period": 5}
        machine.write(f"{FOLDER}/config.yaml", json.dumps(config), 0o600)
        machine.write(f"{FOLDER}/user_config_template.yaml.j2", TEMPLATE, 0o600)
        rules = [{"source": "{id}", "match": client, "output": user} for client, user in users.items()]
        document = {"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": rules}
        machine.write(mapping, json.dumps([document]), 0o600)
        machine.run("chown", "-R", "globus-compute:", COMPUTE_DIR)
        machine.write(f"/etc/systemd/system/{UNIT}", unit_file(self.program))
        variables = "".join(f'Environment="{name}={value}"\n' for name, value in hub_env.items())
        # A drop-in, as a site makes it: where the web service is, and no patience.
        changed = f"[Service]\nWatchdogSec=5\nRestartSec=0.2\n{variables}"
        machine.write(f"/etc/systemd/system/{UNIT}.d/site.conf", changed)
        machine.run("systemctl", "daemon-reload")

    def systemctl(self, *words: str, check: bool = True) -> str:
        """One command about the unit."""
        try:
            return self.machine.run("systemctl", *words, UNIT, check=check, timeout=120)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.journal()}") from None

    def show(self, *properties: str) -> dict[str, str]:
        """Properties of the unit."""
        said = self.systemctl("show", f"--property={','.join(properties)}")
        return dict(line.split("=", 1) for line in said.splitlines())

    def journal(self) -> str:
        return self.machine.run("journalctl", "--no-pager", "--output=cat", "--unit", UNIT)

    def entries(self, **fields: str) -> list[dict[str, Any]]:
        """Entries of the journal with these fields."""
        matches = [f"{name}={value}" for name, value in fields.items()]
        said = self.machine.run("journalctl", "--no-pager", "--output=json", *matches)
        return [json.loads(line) for line in said.splitlines() if line.startswith("{")]

    @property
    def endpoint_id(self) -> str:
        return str(json.loads((self.machine.root / FOLDER.lstrip("/") / "endpoint.json").read_text())["endpoint_id"])

    @property
    def logs(self) -> str:
        return self.journal()

    @property
    def monitor_pid(self) -> int:
        return int(self.show("MainPID")["MainPID"])

    @property
    def manager_pid(self) -> int:
        return int(json.loads((self.machine.root / FOLDER.lstrip("/") / "daemon.pid").read_text())["pid"])

    def user_endpoints(self) -> dict[str, dict[str, Any]]:
        """As `status --json` has them, by user."""
        said = self.machine.run(self.program, "--config-dir", COMPUTE_DIR, "status", NAME, "--json")
        return {one["user"]: one for one in json.loads(said)["user_endpoints"]}

    def proc(self, pid: int, name: str) -> str:
        """A file in /proc of a process in the machine."""
        return self.machine.run("cat", f"/proc/{pid}/{name}")

    def signal(self, name: str, pid: int) -> None:
        """Send a signal to a process in the machine, which has no program for that."""
        self.machine.run("sh", "-c", f"kill -{name} {pid}")

    def is_alive(self, pid: int) -> bool:
        """Whether a process is there."""
        return "No such" not in self.machine.run("ls", "-d", f"/proc/{pid}", check=False)

    def keeper_of(self, pid: int) -> int:
        """The parent of a user endpoint."""
        return int(self.proc(pid, "stat").rpartition(")")[2].split()[1])

    def wait_for(self, seen: Callable[[], Any], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not seen():
            assert time.monotonic() < deadline, f"{what}\n{self.journal()}"
            time.sleep(0.1)
