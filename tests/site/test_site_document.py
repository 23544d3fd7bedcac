"""A site document as Ansible reads it: by the inventory plugin, on this machine, with no host but this one."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.config.argument_specs import argument_specs
from tests.support.sites import ANSIBLE, CLIENT, FIVE_MISTAKES, FIVE_SAID, run_playbook

PLAY = """\
- hosts: all
  gather_facts: false
  tasks:
    - ansible.builtin.ping:
"""
# Each role's arguments against its own specification, and what became of a text that looks like a template.
LOOK = """\
- hosts: here
  gather_facts: false
  tasks:
    - ansible.builtin.validate_argument_spec:
        argument_spec: "{{ spec }}"
        provided_arguments: >-
          {{ hostvars[inventory_hostname] | dict2items | selectattr('key', 'in', spec.keys() | list) | items2dict
             | combine(changed | default({})) }}
      vars:
        spec: >-
          {{ (lookup('ansible.builtin.file', roles ~ '/' ~ item ~ '/meta/argument_specs.yml') | from_yaml)
             .argument_specs.main.options }}
      loop: "{{ checked }}"
    - ansible.builtin.copy:
        dest: "{{ written }}"
        content: "{{ endpoint_endpoints[0].files[1].content }}"
        mode: "0600"
"""
DOCUMENT = f"""\
hosts:
  here: {{connection: local, become: false, python: {sys.executable}}}
install: {{method: existing, environment: /opt/site/compute}}
service:
  kind: hub
  url: http://localhost:5000
  hub:
    host: here
    clients: {{lab: {{id: {CLIENT}, secret: {{vault: vault_lab}}}}}}
broker: {{host: here, secrets: {{password: {{vault: vault_broker}}}}}}
endpoints:
  lab:
    hosts: [here]
    kind: templated
    run_as: alice
    template:
      data:
        engine: {{type: ThreadPoolEngine, max_workers: "{{{{ workers | default(2) }}}}"}}
    user_options_schema: {{data: {{type: object, properties: {{workers: {{type: integer}}}}}}}}
    secrets: {{client: {{id: {CLIENT}, secret: {{vault: vault_lab}}}}}}
  old: {{hosts: [here], state: absent}}
"""


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """A port at which somebody who tries to reach the host would be seen."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server


def written(folder: Path, text: str, play: str = PLAY) -> tuple[str, ...]:
    """A document and a playbook in a folder; returns the arguments of `ansible-playbook` for them."""
    (folder / "site.yml").write_text(text)
    (folder / "play.yml").write_text(play)
    return "-i", str(folder / "site.yml"), str(folder / "play.yml")


def unwrapped(text: str) -> str:
    """The text in one line: Ansible breaks long ones where it likes."""
    return " ".join(text.split())


def test_a_document_with_five_mistakes_ends_the_run_before_any_host_is_touched(
    tmp_path: Path, listener: socket.socket
) -> None:
    text = FIVE_MISTAKES.replace("PORT", str(listener.getsockname()[1]))

    done = run_playbook(*written(tmp_path, text), home=tmp_path / "home")

    assert done.returncode != 0
    said = unwrapped(done.stdout + done.stderr)
    assert "PLAY" not in said
    assert "TASK" not in said
    with pytest.raises(BlockingIOError):
        listener.accept()
    for expected in FIVE_SAID:
        assert unwrapped(f"{tmp_path}/site.yml{expected}") in said, done.stderr


@pytest.mark.parametrize("plugin", ["", "plugin: site\n"])
def test_no_other_plugin_makes_hosts_of_a_document_with_mistakes(tmp_path: Path, plugin: str) -> None:
    done = run_playbook(*written(tmp_path, plugin + FIVE_MISTAKES), "--list-hosts", home=tmp_path / "home")

    assert done.returncode != 0
    assert "hosts (" not in done.stdout


def look(folder: Path, roles: list[str], **more: object) -> subprocess.CompletedProcess[str]:
    arguments = written(folder, DOCUMENT, LOOK)
    variables = {"roles": str(ANSIBLE / "roles"), "written": str(folder / "written"), "checked": roles, **more}
    return run_playbook(*arguments, "-e", json.dumps(variables), home=folder / "home")


def test_what_the_plugin_gives_is_what_the_roles_take_and_no_template_of_ansibles(tmp_path: Path) -> None:
    done = look(tmp_path, list(argument_specs()))

    assert done.returncode == 0, done.stdout + done.stderr
    assert '"{{ workers | default(2) }}"' in (tmp_path / "written").read_text()


@pytest.mark.parametrize(
    ("role", "changed"),
    [
        ("rabbitmq", {"rabbitmq_port": "amqp"}),
        ("program", {"program_install": {"method": "rpm"}}),
        ("hub", {"hub_clients": [{"name": "lab"}]}),
        ("endpoint", {"endpoint_endpoints": [{"name": "lab", "limits": {"tasks_max": "many"}}]}),
    ],
)
def test_a_role_refuses_an_argument_of_another_form(tmp_path: Path, role: str, changed: dict[str, object]) -> None:
    done = look(tmp_path, [role], changed=changed)

    assert done.returncode != 0
    assert "Validation of arguments failed" in done.stdout + done.stderr
    assert not (tmp_path / "written").exists()


def test_without_the_program_the_run_ends_with_what_to_install(tmp_path: Path) -> None:
    # Given an interpreter with ansible-core, and no program beside it
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "python").symlink_to(Path(sys.executable).resolve())
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    environ = {**os.environ, "PYTHONPATH": packages, "PATH": f"{bare}:/usr/bin:/bin", "ANSIBLE_HOME": str(tmp_path)}
    command = [str(bare / "python"), "-m", "ansible", "playbook", *written(tmp_path, DOCUMENT)]
    assert shutil.which("globus-compute-endpoint", path=environ["PATH"]) is None

    done = subprocess.run(command, cwd=ANSIBLE, env=environ, capture_output=True, text=True, timeout=60)

    assert done.returncode != 0
    assert "Install compute-endpoint beside ansible-core" in unwrapped(done.stdout + done.stderr)


def test_the_example_is_valid_before_its_wheels_are_made() -> None:
    program = Path(sys.executable).with_name("globus-compute-endpoint")
    example = ANSIBLE / "inventory" / "example" / "site.yml"

    done = subprocess.run([program, "check-config", str(example)], capture_output=True, text=True, timeout=60)

    assert done.returncode == 0, done.stderr
