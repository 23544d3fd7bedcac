"""Units that the NixOS modules render: systemd understands them, and Ansible's roles write the same but for paths."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tests.support.nixes import REPOSITORY, Nix

ROLES = REPOSITORY / "ansible" / "roles"
EXAMPLE = REPOSITORY / "ansible" / "inventory" / "example"
TASKS = {
    "globus-compute-endpoint@cluster.service": ("endpoint/tasks/unit.yml", "cluster"),
    "globus-compute-endpoint@lab.service": ("endpoint/tasks/unit.yml", "lab"),
    "compute-hub.service": ("hub/tasks/configure.yml", None),
}
# What a role would ask the host for.
HOST = {
    "ansible_python_interpreter": sys.executable,
    "_endpoint_root": True,
    "_endpoint_account": ["x", "1000", "1000", "1000", "/home/carol", "/bin/sh"],
}
SLICES = {"gce-cluster": "limits", "gce-cluster-": "limits_per_user"}
# Directives that may name other places: where the program is, its file, and where the site has its secrets.
PLACES = {"ExecStart", "LoadCredential"}

Directive = tuple[str, str, str]


@pytest.fixture(scope="module")
def system(nix: Nix) -> Path:
    """The example's system: /etc of the host."""
    done = nix.system(f"{REPOSITORY}/nix/example/configuration.nix", "toplevel", build=True)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip()) / "etc"


@pytest.fixture(scope="module")
def ansibles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the units that the roles write for the example's site document, which describes the same host."""
    folder = tmp_path_factory.mktemp("ansible")
    text = (EXAMPLE / "site.yml").read_text()
    existing = re.sub(r"install:\n(  .*\n)+", "install: {method: existing, environment: /opt/program}\n", text)
    (folder / "site.yml").write_text(existing)
    (folder / "files").symlink_to(EXAMPLE / "files")
    command = [sys.executable, "-m", "endpoint.cli.main", "site", "inventory", str(folder / "site.yml")]
    told = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert told.returncode == 0, told.stderr
    host = json.loads(told.stdout)["_meta"]["hostvars"]["compute1"]
    host = {name: value for name, value in host.items() if not name.startswith("ansible_")}
    play = {
        "hosts": "localhost",
        "gather_facts": False,
        "vars_files": [
            str(ROLES / role / part / "main.yml")
            for role in ("program", "hub", "endpoint")
            for part in ("defaults", "vars")
        ],
        "tasks": [_task(folder / unit, *where, host) for unit, where in TASKS.items()]
        + [_limits(folder / f"{name}.conf", host, kind) for name, kind in SLICES.items()],
    }
    (folder / "play.yml").write_text(json.dumps([play]))
    (folder / "host.json").write_text(json.dumps(host | HOST))
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "-i", "localhost,", "-c", "local", "-e", f"@{folder}/host.json", folder / "play.yml"],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100, cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder), "LANG": "C.UTF-8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def _task(unit: Path, file: str, endpoint: str | None, host: dict[str, Any]) -> dict[str, Any]:
    """The task of a role that writes a unit, which here writes it to `unit`."""
    tasks = YAML(typ="safe").load(ROLES / file)
    found = next(one for one in tasks if one["name"] == "Write the unit")
    one = next((one for one in host["endpoint_endpoints"] if one["name"] == endpoint), None)
    source = ROLES / file.split("/")[0] / "templates" / found["ansible.builtin.template"]["src"]
    return {
        "ansible.builtin.template": {"src": str(source), "dest": str(unit)},
        "vars": found["vars"] | {"endpoint_one": one, "_endpoint_user_scope": False},
    }


def _limits(file: Path, host: dict[str, Any], kind: str) -> dict[str, Any]:
    """The same of a slice's limits."""
    limits = next(one for one in host["endpoint_endpoints"] if one["name"] == "cluster")[kind]
    source = ROLES / "endpoint" / "templates" / "limits.conf.j2"
    return {"ansible.builtin.template": {"src": str(source), "dest": str(file)}, "vars": {"item": {"limits": limits}}}


def directives(text: str) -> list[Directive]:
    """Section, name and value of each line that is one."""
    found, section = [], ""
    for line in text.splitlines():
        if line.startswith("["):
            section = line
        elif line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.append((section, name, value))
    return found


@pytest.mark.parametrize("unit", TASKS)
def test_nix_and_ansible_render_the_same_unit_but_for_paths(system: Path, ansibles: Path, unit: str) -> None:
    nixes = directives((system / "systemd" / "system" / unit).read_text())
    theirs = directives((ansibles / unit).read_text())

    assert [(section, name) for section, name, _ in nixes] == [(section, name) for section, name, _ in theirs]
    for ours, other in zip(nixes, theirs, strict=True):
        if ours != other:
            assert ours[1] in PLACES
            assert without_paths(ours[2]) == without_paths(other[2])
    assert len(nixes) > 30


def without_paths(value: str) -> str:
    return re.sub(r'/[^\s":]+', "PATH", value)


def test_nix_and_ansible_limit_slices_alike(system: Path, ansibles: Path) -> None:
    for name in SLICES:
        nixes = (system / "systemd" / "system" / f"{name}.slice.d" / "limits.conf").read_text()
        theirs = (ansibles / f"{name}.conf").read_text()
        assert sorted(directives(nixes)) == sorted(directives(theirs))
    assert directives(nixes)


def test_systemd_understands_all_units_with_what_is_dropped_in(system: Path, tmp_path: Path) -> None:
    units = sorted((system / "systemd" / "system").glob("*.service"))
    assert {unit.name for unit in units} >= set(TASKS) | {"compute-hub-broker.service"}
    for unit in units:
        own = tmp_path / unit.name
        own.mkdir()
        (own / unit.name).write_text(known(unit.read_text()))
        for part in (system / "systemd" / "system" / f"{unit.name}.d").glob("*.conf"):
            (own / f"{unit.name}.d").mkdir(exist_ok=True)
            (own / f"{unit.name}.d" / part.name).write_text(known(part.read_text()))

        verified = subprocess.run(
            ["systemd-analyze", "verify", own / unit.name], capture_output=True, text=True, timeout=30
        )

        assert (verified.returncode, verified.stdout + verified.stderr) == (0, ""), unit.name


def known(text: str) -> str:
    """A unit without what this machine may lack: other units and accounts."""
    text = re.sub(r"^(User|Group)=.*", r"\1=daemon", text, flags=re.MULTILINE)
    return re.sub(r"^Requires=.*\n", "", text, flags=re.MULTILINE)
