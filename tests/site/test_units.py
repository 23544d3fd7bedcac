"""Units as systemd sees them: nothing that it does not understand, and how much they leave open."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from endpoint.units import (
    BROKER_TEMPLATE,
    ENDPOINT_TEMPLATE,
    HUB_TEMPLATE,
    EndpointUnit,
    HubUnit,
    broker_drop_in,
    endpoint_unit,
    hub_unit,
    unit_name,
)

CLIENT = {"client_id_file": "/etc/globus-compute-endpoint/lab.client_id", "client_secret_credential": "lab secret"}
LIMITS = {
    "memory_max": "2G",
    "memory_high": "50%",
    "tasks_max": 512,
    "cpu_quota": 150,
    "cpu_weight": 50,
    "io_weight": 20,
}
ODD = {"ODD": 'a b%c"d\\e$f\ng', "EMPTY": ""}
MANY = EndpointUnit(name="lab", kind="multi-user", scope="system", program="/bin/true", **CLIENT)
ONE = EndpointUnit(
    name="lab", kind="single-user", scope="system", program="/bin/true", user="daemon", compute_dir="/srv/a b",
    environment=ODD, limits=LIMITS, **CLIENT,
)  # fmt: skip
OWN = EndpointUnit(name="lab", kind="templated", scope="user", program="/bin/true", limits=LIMITS)
HUB = HubUnit(
    program="/bin/true", user="daemon", config="/etc/compute-hub/hub.yaml", directory="/var/lib/compute-hub",
    broker_password_file="/etc/compute-hub/broker_password", tls_key_credential="hub-key", limits=LIMITS,
)  # fmt: skip
EMBEDDED = replace(
    HUB, directory="/srv/hub", embedded=True, port=443, broker_password_file=None, tls_key_credential=None
)
PACKAGES_BROKER = """\
[Unit]
Description=The part of the distribution's rabbitmq-server.service that matters here
[Service]
Type=notify
User=daemon
ExecStart=/bin/true
"""

# How much systemd thinks each unit leaves open: 10 is all, 0 nothing. What keeps a number up is in docs/systemd.md.
# A smaller number may be written here; a larger one is a unit that got worse.
EXPOSURE = {
    "several users": (unit_name("lab"), endpoint_unit(MANY), 8.9),
    "one user": (unit_name("one"), endpoint_unit(ONE), 5.6),
    "one user's own": (unit_name("own"), endpoint_unit(OWN), 9.3),
    "hub": ("compute-hub.service", hub_unit(HUB), 1.3),
    "hub with its broker, at port 443": ("compute-hub.service", hub_unit(EMBEDDED), 1.9),
    "broker": ("rabbitmq-server.service", PACKAGES_BROKER + broker_drop_in(LIMITS), 1.6),
}


@pytest.fixture(params=EXPOSURE.values(), ids=EXPOSURE.keys())
def unit(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, float]:
    """A unit's file, and how much it leaves open."""
    name, text, exposure = request.param
    path = tmp_path / name
    path.write_text(text)
    return path, exposure


def test_unit_is_one_that_systemd_understands(unit: tuple[Path, float]) -> None:
    verified = subprocess.run(["systemd-analyze", "verify", unit[0]], capture_output=True, text=True, timeout=30)

    # An unknown directive is only a warning for systemd, and its status 0: nothing may be printed.
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")


def test_unit_leaves_no_more_open_than_stated(unit: tuple[Path, float]) -> None:
    path, exposure = unit
    analyze = ["systemd-analyze", "security", "--offline=true", "--no-pager"]

    at_most = subprocess.run(
        [*analyze, f"--threshold={round(exposure * 10)}", path], capture_output=True, text=True, timeout=30
    )
    below = subprocess.run(
        [*analyze, f"--threshold={round(exposure * 10) - 1}", path], capture_output=True, text=True, timeout=30
    )

    assert at_most.returncode == 0, at_most.stdout
    assert below.returncode != 0, f"It got better than {exposure}: write that down\n{below.stdout.splitlines()[-1]}"


def test_ansible_renders_the_same_units(tmp_path: Path) -> None:
    contexts = {
        "several": (ENDPOINT_TEMPLATE, asdict(MANY), endpoint_unit(MANY)),
        "one": (ENDPOINT_TEMPLATE, asdict(ONE), endpoint_unit(ONE)),
        "own": (ENDPOINT_TEMPLATE, asdict(OWN), endpoint_unit(OWN)),
        "hub": (HUB_TEMPLATE, asdict(HUB), hub_unit(HUB)),
        "embedded": (HUB_TEMPLATE, asdict(EMBEDDED), hub_unit(EMBEDDED)),
        "broker": (BROKER_TEMPLATE, {"limits": LIMITS}, broker_drop_in(LIMITS)),
    }
    tasks = [
        {
            "ansible.builtin.template": {"src": str(template), "dest": str(tmp_path / name)},
            "vars": {"unit": context},
        }
        for name, (template, context, _) in contexts.items()
    ]
    play = tmp_path / "play.yml"
    play.write_text(json.dumps([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))

    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-playbook"), "-i", "localhost,", "-c", "local", play],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": "C.UTF-8"},
    )

    assert done.returncode == 0, done.stdout + done.stderr
    for name, (_, _, ours) in contexts.items():
        assert (tmp_path / name).read_text() == ours
