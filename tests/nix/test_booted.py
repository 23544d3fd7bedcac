"""A booted Debian 13 with the newer Nix: it builds the flake, and the units of our modules run there."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.support.brokers import RunningBroker
from tests.support.hubs import hub_environment
from tests.support.nix_machines import FLAKE, NIXPKGS, NixMachine, nix_machine

pytestmark = pytest.mark.timeout(300)
LAB = "5b3f0bd4-5ef5-4f0b-b53b-6f1f5d2f8c01"
ALICE = "5b3f0bd4-5ef5-4f0b-b53b-6f1f5d2f8c03"
# The modules' system on a machine of the tests: its hub uses the broker of the run, since the machine has none.
MODULE = """{{
  services.compute-hub = {{
    enable = true;
    brokerPasswordFile = "/etc/secrets/broker";
    settings = {{
      listen.port = {port};
      database = "/var/lib/compute-hub/hub.db";
      broker = {{
        amqp_url = "{amqp}/nix";
        management_url = "{management}";
        user = "{user}";
        password_file = "/run/credentials/compute-hub.service/broker_password";
      }};
    }};
  }};
  services.globus-compute-endpoint = {{
    hub = "http://localhost:{port}";
    endpoints.lab = {{
      kind = "multi-user";
      settings.heartbeat_period = 5;
      template.data = {{
        engine = {{ type = "ThreadPoolEngine"; max_workers = 2; }};
        heartbeat_period = 5;
        shutdown_grace = 1;
      }};
      identityMapping = [ {{
        DATA_TYPE = "expression_identity_mapping#1.0.0";
        mappings = [ {{ source = "{{username}}"; match = "(.*)@lab\\\\.example"; output = "{{0}}"; }} ];
      }} ];
      pam.stack = [ "account required pam_unix.so" "session required pam_limits.so" "session required pam_env.so" ];
      limitsPerUser.tasks_max = 300;
      clientId = "{client}";
      clientSecretFile = "/etc/secrets/lab";
    }};
  }};
}}"""


@pytest.fixture(scope="module")
def hub_port() -> int:
    """A port that is free: the machine has this one's network."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def machine() -> Iterator[NixMachine]:
    with nix_machine() as booted:
        yield booted


def test_newer_nix_lists_what_the_flake_has_and_runs_its_program(machine: NixMachine) -> None:
    shown = json.loads(machine.nix("--quiet", "flake", "show", "--json").splitlines()[-1])

    assert set(shown) >= {"apps", "checks", "devShells", "formatter", "nixosModules", "overlays", "packages"}
    assert "(compute-endpoint)" in machine.nix("run", ".#endpoint", "--", "version")


def test_units_of_the_modules_run_a_function_as_its_user(
    machine: NixMachine, broker: RunningBroker, hub_port: int
) -> None:
    url, host = f"http://localhost:{hub_port}", machine.machine
    secrets = {name: str(uuid4()) for name in ("lab", "alice")}
    host.run("useradd", "--create-home", "--shell", "/bin/bash", "alice")
    for name, secret in {**secrets, "broker": broker.password}.items():
        host.write(f"/etc/secrets/{name}", secret + "\n", 0o600)

    # What NixOS would make of the modules' values.
    where = {"amqp": broker.amqp_base, "management": broker.management_url, "user": broker.user}
    module = MODULE.format(port=hub_port, client=LAB, **where)
    host.write("/srv/module.nix", module)
    places = f"nixpkgs = {NIXPKGS}; flake = {FLAKE}; module = /srv/module.nix;"
    system = machine.build(f"(import {FLAKE}/tests/nix/system.nix {{ {places} }}).toplevel")
    host.run("cp", "--recursive", "--no-dereference", "--no-target-directory", f"{system}/etc", "/etc")
    host.run("systemd-sysusers")
    host.run("systemd-tmpfiles", "--create")
    host.run("systemctl", "daemon-reload")

    host.run("systemctl", "start", "compute-hub.service", timeout=120)
    programs = {
        name: host.run("sed", "-n", 's/^ExecStart="\\([^"]*\\)".*/\\1/p', f"/etc/systemd/system/{unit}").strip()
        for name, unit in (("hub", "compute-hub.service"), ("endpoint", "globus-compute-endpoint@lab.service"))
    }
    for name, identity in (("lab", LAB), ("alice", ALICE)):
        words = f"client create {name} --id {identity} --username {name}@lab.example --secret-stdin"
        host.run("sh", "-c", f"{programs['hub']} {words} --database /var/lib/compute-hub/hub.db < /etc/secrets/{name}")
    host.run("systemctl", "start", "globus-compute-endpoint@lab.service", timeout=120)

    told = host.run(
        *("env", *(f"{name}={value}" for name, value in hub_environment(url).items())),
        *(programs["endpoint"], "--config-dir", "/var/lib/globus-compute-endpoint", "health", "lab", "--json"),
        *("--client-id", ALICE, "--client-secret-file", "/etc/secrets/alice", "--user", "alice"),
        timeout=150,
        check=False,
    )

    assert '"healthy": true' in told, told + host.run("journalctl", "--no-pager", "--output=cat", "--lines=60")
    task = json.loads(told[told.index("{") :])["task"]
    uid = int(host.run("id", "-u", "alice"))
    assert (task["user"], task["uid"]) == ("alice", uid)
    assert "gce-lab-uep" in host.run("systemctl", "status", "--no-pager", f"gce-lab-{uid}.slice")
    assert host.run("systemctl", "show", f"gce-lab-{uid}.slice", "--property=TasksMax") == "TasksMax=300\n"
    wanted = host.run("systemctl", "list-dependencies", "multi-user.target")
    assert "compute-hub.service" in wanted and "globus-compute-endpoint@lab.service" in wanted
