"""What the roles say before they do anything: on this machine, with facts of other hosts where it matters.

Hosts of the RPM family can't be booted here: for them this is all that is tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
ROLES = sorted(path.name for path in (ANSIBLE / "roles").iterdir())
INSTALL = {"method": "virtualenv", "version": "0.1.0", "wheel": "w.whl", "requirements": None, "python": "python3"}
INSTALL |= {"prefix": "/opt/compute-endpoint", "wheels": None}
ENDPOINT: dict[str, Any] = {
    "name": "lab",
    "kind": "single-user",
    "run_as": "daemon",
    "state": "present",
    "directory": None,
    "running": True,
    "enable_on_boot": True,
    "files": [],
    "policy": None,
    "pam": None,
    "expect": {},
    "client": None,
    "health": None,
    "limits": {},
    "limits_per_user": {},
    "unit": {"restart_delay": 30, "stop_timeout": 90, "environment": {}},
}
ACCOUNTS = {"root": ["x", "0", "0", "", "/root", "/bin/sh"], "daemon": ["x", "1", "1", "", "/", "/usr/sbin/nologin"]}
FACTS = {"os_family": "Debian", "service_mgr": "systemd", "user_uid": 0, "user_id": "root", "user_dir": "/root"}


def play(
    folder: Path, role: str, tasks: str, variables: dict[str, Any], facts: dict[str, Any], show: str = ""
) -> tuple[int, str]:
    """One part of a role on this machine, told that it is another one: the status, and what it printed.

    show: a variable to print at the end.
    """
    include = {"ansible.builtin.include_role": {"name": role, "tasks_from": tasks, "public": True}}
    shown = [{"ansible.builtin.debug": {"var": show}}] if show else []
    told = {"ansible.builtin.set_fact": {"ansible_facts": facts | {"getent_passwd": ACCOUNTS}}}
    document = [{"hosts": "localhost", "gather_facts": False, "connection": "local", "tasks": [told, include, *shown]}]
    playbook = folder / "play.yml"
    playbook.write_text(json.dumps(document))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environ |= {"ANSIBLE_HOME": str(folder / "home"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    environ |= {"ANSIBLE_ROLES_PATH": str(ANSIBLE / "roles")}
    variables |= {"ansible_python_interpreter": sys.executable}
    command = [str(Path(sys.executable).with_name("ansible-playbook")), "-i", "localhost,", str(playbook)]
    done = subprocess.run(
        [*command, "-e", json.dumps(variables)],
        cwd=folder,
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("role", ROLES)
def test_role_has_the_shape_of_the_others(role: str) -> None:
    folder = ANSIBLE / "roles" / role

    specification = yaml.safe_load((folder / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]
    defaults = yaml.safe_load((folder / "defaults" / "main.yml").read_text())
    private = yaml.safe_load((folder / "vars" / "main.yml").read_text())
    main = yaml.safe_load((folder / "tasks" / "main.yml").read_text())

    assert set(specification["options"]) <= set(defaults), "each public variable stands in defaults/"
    assert all(name.startswith(f"{role}_") for name in defaults)
    assert all(name.startswith(f"_{role}_") for name in private)
    assert main[0]["ansible.builtin.import_tasks"] == "preflight.yml"
    assert all("ansible.builtin.import" in " ".join(task) or "include" in " ".join(task) for task in main)


def test_playbooks_have_no_syntax_errors(tmp_path: Path) -> None:
    environ = os.environ | {"ANSIBLE_HOME": str(tmp_path), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    playbooks = ["site.yml", *(str(path.relative_to(ANSIBLE)) for path in (ANSIBLE / "playbooks").glob("*.yml"))]
    program = Path(sys.executable).with_name("ansible-playbook")
    command = [program, "--syntax-check", "-i", "localhost,", *playbooks]

    done = subprocess.run(command, cwd=ANSIBLE, env=environ, capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
    assert len(playbooks) >= 4


@pytest.mark.parametrize(
    ("family", "packages"),
    [("Debian", ["python3-venv", "ca-certificates"]), ("RedHat", ["python3", "ca-certificates", "tar"]), ("Suse", [])],
)
def test_packages_are_those_of_the_hosts_family(family: str, packages: list[str], tmp_path: Path) -> None:
    status, output = play(
        tmp_path,
        "program",
        "preflight.yml",
        {"program_install": INSTALL},
        FACTS | {"os_family": family},
        "_program_packages",
    )

    assert status == 0, output
    shown = json.loads("{" + output.rpartition("=> {")[2].partition("\n}")[0] + "}")
    assert shown["_program_packages"] == packages


@pytest.mark.parametrize(
    ("change", "facts", "sentence"),
    [
        ({"run_as": "root"}, {}, "runs as root, and root can have none"),
        ({"run_as": "nobody-here"}, {}, "there is no such account on this host: create the account"),
        ({"kind": "multi-user"}, {"user_uid": 1000}, "Without root only an endpoint of one's own can be set up"),
        ({"kind": "multi-user"}, {"service_mgr": "openrc"}, "is a service of systemd, and this host has openrc"),
        (
            {"kind": "multi-user", "pam": {"service": "no-such-service", "stack": None}},
            {},
            "There is no PAM service no-such-service on this host",
        ),
    ],
    ids=["root", "no account", "no root", "no systemd", "no PAM service"],
)
def test_endpoint_that_cannot_work_is_refused_with_a_sentence(
    change: dict[str, Any], facts: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    variables = {"endpoint_endpoints": [ENDPOINT | change], "program_install": INSTALL}

    status, output = play(tmp_path, "endpoint", "preflight.yml", variables, FACTS | facts)

    assert status == 2, output
    assert sentence in " ".join(output.split()), output


def test_collection_is_built_installed_and_played_without_a_network(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environ |= {"ANSIBLE_HOME": str(tmp_path / "home"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    environ["ANSIBLE_COLLECTIONS_PATH"] = str(tmp_path / "installed")
    galaxy, playbook = (str(Path(sys.executable).with_name(f"ansible-{name}")) for name in ("galaxy", "playbook"))

    def run(*command: str, where: Path = tmp_path) -> str:
        done = subprocess.run(command, cwd=where, env=environ, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(galaxy, "collection", "build", "--output-path", str(tmp_path), where=ANSIBLE)
    archive = next(tmp_path.glob("compute_endpoint-site-*.tar.gz"))
    run(galaxy, "collection", "install", "--offline", "-p", str(tmp_path / "installed"), str(archive))
    tasks = run(playbook, "-i", "localhost,", "--list-tasks", "compute_endpoint.site.site")

    assert {f"compute_endpoint.site.{role} : " for role in ROLES} <= {
        line.strip().partition(" : ")[0] + " : " for line in tasks.splitlines() if " : " in line
    }
    units = [*(tmp_path / "installed").rglob("templates/*.service.j2")]
    assert len(units) == 2
    assert not [path for path in units if path.is_symlink()]
