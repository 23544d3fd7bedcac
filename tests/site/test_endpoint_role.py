"""The role `endpoint`, run by `ansible-playbook site.yml` on this machine.

One host is previewed, set up and looked at; its fixtures keep that order, whichever test is the first.
"""

from __future__ import annotations

import pwd
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.playbooks import ANSIBLE, Playbook, Run, run_ansible

FILES = {"config.yaml", "user_environment.yaml", "user_config_template.yaml.j2", "user_config_schema.json"}


@pytest.fixture(scope="module")
def preview(host: Playbook) -> Run:
    """What a preview says before anything is there; it left no file."""
    run = host.run("--check", "--diff")
    assert {path.name for path in host.folder.iterdir()} <= {"ansible-home"}
    return run


@pytest.fixture(scope="module")
def applied(host: Playbook, preview: Run) -> Playbook:
    """The host, set up."""
    run = host.run()
    assert run.status == 0, run.output
    assert run.changed > 0
    return host


def program(host: Playbook, *arguments: str) -> subprocess.CompletedProcess[str]:
    installed = host.folder / "prefix" / "venv" / "bin" / "globus-compute-endpoint"
    return subprocess.run([installed, *arguments], capture_output=True, text=True, timeout=30)


def test_playbook_has_no_syntax_errors(tmp_path: Path) -> None:
    done = run_ansible("--syntax-check", "site.yml", home=tmp_path)

    assert done.returncode == 0, done.stderr


def test_preview_of_a_fresh_host_shows_the_files_and_writes_none(host: Playbook, preview: Run) -> None:
    assert preview.status == 0, preview.output
    assert "+display_name: 'Yes'" in preview.output
    assert "+SCRATCH: /scratch" in preview.output
    assert preview.changed > 0


def test_program_is_installed_from_the_lock_and_the_wheel(applied: Playbook, wheel: Path) -> None:
    shown = program(applied, "version")

    assert shown.returncode == 0, shown.stderr
    assert "(compute-endpoint)" in shown.stdout
    record = (applied.folder / "prefix" / "venv" / "installed.txt").read_text()
    assert [line.split()[1] for line in record.splitlines()] == ["requirements.txt", wheel.name]
    assert all(len(line.split()[0]) == 40 for line in record.splitlines())


def test_endpoint_has_its_files_for_its_account_alone(applied: Playbook) -> None:
    directory = applied.folder / "compute" / "site-one"

    assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700
    assert {path.name for path in directory.iterdir()} == FILES
    account = pwd.getpwnam(applied.variables["endpoint_user"])
    for path in (directory, *directory.iterdir()):
        facts = path.stat()
        assert (facts.st_uid, facts.st_gid) == (account.pw_uid, account.pw_gid), path
        assert stat.S_IMODE(facts.st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_program_finds_all_the_files_valid(applied: Playbook) -> None:
    checked = program(applied, "check-config", str(applied.folder / "compute" / "site-one"))

    assert checked.returncode == 0, checked.stderr
    assert checked.stdout.count(": valid (") == len(FILES)


def test_second_run_changes_nothing(applied: Playbook) -> None:
    run = applied.run()

    assert run.status == 0, run.output
    assert run.changed == 0, run.output


def test_wrong_value_stops_the_run_with_the_programs_sentence_and_reaches_no_file(
    host: Playbook, tmp_path: Path
) -> None:
    """With a program that is there already, so that nothing is installed."""
    there = {"install": False, "python_environment": sys.prefix, "prefix": str(tmp_path / "prefix")}

    run = host.run(**there, compute_directory=str(tmp_path / "compute"), config={"amqp_prt": 443})

    assert run.status == 2
    assert "amqp_prt: there is no such option here (did you mean 'amqp_port'?)" in run.output
    assert run.figures["failed"] == 1
    assert list((tmp_path / "compute" / "site-one").iterdir()) == []
    assert not (tmp_path / "prefix").exists()


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({"user": "root"}, "set endpoint_user to the account whose endpoint it is"),
        ({"name": "two words"}, "it must begin with a letter, a digit or an underscore"),
        ({"wheel": ""}, "name the project's wheel on the machine that runs Ansible"),
        ({"install": "perhaps"}, "unable to convert to bool"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_variable_that_cannot_work_is_refused_before_anything_is_done(
    host: Playbook, variables: dict[str, str], sentence: str
) -> None:
    run = host.run(**variables)

    assert run.status == 2
    assert sentence in run.output
    assert run.changed == 0


def test_unit_is_one_that_systemd_understands(applied: Playbook, tmp_path: Path) -> None:
    play = tmp_path / "unit.yml"
    play.write_text(
        "- hosts: endpoints\n"
        "  tasks:\n"
        "    - ansible.builtin.include_role: {name: endpoint, tasks_from: preflight.yml}\n"
        "    - ansible.builtin.include_role: {name: endpoint, tasks_from: unit.yml}\n"
    )
    service = {
        "service": False,
        "unit_directory": str(tmp_path),
        "service_environment": {"GLOBUS_SDK_ENVIRONMENT": "local", "PERCENT": '50% and "more"'},
        "service_credential_file": "/etc/compute-endpoint/client.json",
    }
    (tmp_path / "roles").symlink_to(ANSIBLE / "roles")

    run = Playbook(play, applied.folder, applied.variables).run(**service)

    assert run.status == 0, run.output
    unit = tmp_path / "globus-compute-endpoint@site-one.service"
    assert f"User={applied.variables['endpoint_user']}\n" in unit.read_text()
    assert 'Environment="PERCENT=50%% and \\"more\\""\n' in unit.read_text()
    # An unknown directive is only a warning for systemd, and its status 0: nothing may be printed.
    verified = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, timeout=30)
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
