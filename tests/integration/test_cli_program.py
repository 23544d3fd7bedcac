"""The program as a process: quick, exact about its exit status, and with one form of failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from endpoint.cli.main import COMMANDS
from endpoint.errors import ExitStatus

PROGRAM = Path(sys.executable).with_name("globus-compute-endpoint")
HEAVY = ("pika", "globus_sdk", "parsl", "jsonschema", "jinja2", "ruamel", "asyncio", "psutil", "requests")


def run(*args: str, directory: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("GLOBUS_")}
    if directory:
        environment["GLOBUS_COMPUTE_USER_DIR"] = str(directory)
    return subprocess.run(
        [str(PROGRAM), *args],
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
    )


def test_version_names_the_packages_that_matter() -> None:
    done = run("version", "--json")
    assert done.returncode == 0
    found = json.loads(done.stdout)
    assert found["compute-endpoint"]
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["dill"]


def test_help_lists_every_command_that_people_use() -> None:
    done = run("--help")
    assert done.returncode == 0
    for name in COMMANDS:
        assert (f"  {name} " in done.stdout) is not name.startswith("_")


@pytest.mark.parametrize("module", ["endpoint.cli.main", *sorted({module for module, _ in COMMANDS.values()})])
def test_command_module_imports_nothing_heavy(module: str) -> None:
    script = f"import sys, {module}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("args", [["frobnicate"], ["version", "--frobnicate"], ["check-config"], ["start", "a b"]])
def test_wrong_usage_is_status_64_and_one_sentence(args: list[str], tmp_path: Path) -> None:
    done = run(*args, directory=tmp_path)
    assert done.returncode == ExitStatus.USAGE
    assert "What to do next: " in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_failure_is_json_where_json_was_asked_for(tmp_path: Path) -> None:
    done = run("status", "nobody", "--json", directory=tmp_path)
    assert done.returncode == ExitStatus.BAD_CONFIG
    document = json.loads(done.stdout)
    assert document["error"]["code"] == "NO_SUCH_ENDPOINT"
    assert document["exit_status"] == ExitStatus.BAD_CONFIG
    assert done.stderr == ""


def test_python_exec_runs_a_module_with_arguments_that_look_like_ours() -> None:
    done = run("python-exec", "json.tool", "--help")
    assert done.returncode == 0
    assert "usage:" in done.stdout
    assert "--sort-keys" in done.stdout


def test_user_endpoint_is_not_for_people(tmp_path: Path) -> None:
    controller, terminal = os.openpty()
    try:
        done = subprocess.run(
            [str(PROGRAM), "-c", str(tmp_path), "_start-user-endpoint", "uep"],
            stdin=terminal,
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == ExitStatus.USAGE
    assert "manager" in done.stderr


def test_config_dir_wins_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "here" / "one").mkdir(parents=True)
    (tmp_path / "here" / "one" / "config.yaml").touch()
    done = run("-c", str(tmp_path / "here"), "list", "--json", directory=tmp_path / "elsewhere")
    assert [entry["name"] for entry in json.loads(done.stdout)] == ["one"]


def test_unexpected_error_is_one_sentence_and_a_traceback_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    script = (
        "import sys, endpoint.cli.main as m\n"
        "m.COMMANDS['version'] = ('endpoint.cli.main', 'NO_SUCH_ATTRIBUTE')\n"
        f"sys.exit(m.run(['-c', {str(tmp_path)!r}, 'version']))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == ExitStatus.UNEXPECTED_ANSWER
    assert "Traceback" not in done.stderr
    crash_log = tmp_path / "crash.log"
    assert str(crash_log) in done.stderr
    assert "NO_SUCH_ATTRIBUTE" in crash_log.read_text()
    assert crash_log.stat().st_mode & 0o777 == 0o600


def test_program_survives_a_reader_that_leaves() -> None:
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {PROGRAM} --help | true"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode in (0, 1)
    assert done.stderr == ""
