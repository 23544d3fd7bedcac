"""The commands that start Parsl's processes, as text."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from endpoint.engines.launch import before_worker_init, pool_command
from endpoint.engines.python_exec import main

TEMPLATE = "process_worker_pool.py {debug}  -a {addresses} --block_id={{block_id}}"
POOL = "parsl.executors.high_throughput.process_worker_pool"
ARGUMENTS = "{debug} -a {addresses} --block_id={{block_id}}"


class Line:
    """Stands for a lifeline: its arguments are all that a command needs."""

    arguments = ["--lifeline", "/run dir/engine.alive", "77"]


def test_a_pool_in_our_environment_runs_with_this_python_and_is_tied_to_the_endpoint():
    command = pool_command(TEMPLATE, module=POOL, lifeline=Line(), own_environment=True)

    words = shlex.split(command)
    assert words[:3] == [sys.executable, "-m", "endpoint.engines.python_exec"]
    assert words[3:8] == [*Line.arguments, "--guard", POOL]
    assert command.endswith(ARGUMENTS)


def test_a_pool_elsewhere_runs_with_the_command_on_path():
    command = pool_command(TEMPLATE, module=POOL, lifeline=None, own_environment=False)

    assert command.startswith(
        "$(command -v globus-compute-endpoint >/dev/null && echo globus-compute-endpoint python-exec"
    )
    assert "--lifeline" not in command
    assert command.endswith(f"{POOL} {ARGUMENTS}")


def test_an_administrators_own_command_is_left_as_it_is():
    own = "/opt/wrap process_worker_pool.py {debug}  -a {addresses}"

    assert pool_command(own, module=POOL, lifeline=Line(), own_environment=True) == own


def test_a_pool_whose_python_worker_init_may_choose_is_started_by_the_script_beside_the_zip():
    script = Path("/run {dir}/worker/endpoint-1.sh")

    command = pool_command(TEMPLATE, module=POOL, lifeline=Line(), own_environment=False, script=script)

    words = shlex.split(command.format(debug="", addresses="127.0.0.1").format(block_id="7"))
    assert words[:3] == ["sh", str(script), "pool"]
    assert words[3:8] == [sys.executable, *Line.arguments, "--guard"]
    assert words[8:] == [POOL, "-a", "127.0.0.1", "--block_id=7"]


def test_what_comes_before_worker_init_is_shell_that_fails_with_the_environment():
    lines = before_worker_init(Path("/run dir/x.sh"), Path("/run dir/wanted.json"))

    assert subprocess.run(["bash", "-n"], input=lines, text=True).returncode == 0
    assert shlex.split(lines)[-1] == "PATH=$GC_ENVIRONMENT/bin:$PATH"
    done = subprocess.run(["bash", "-c", f"{lines}echo went on"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (69, "")


def test_without_an_environment_nothing_before_worker_init_ends_the_block():
    lines = before_worker_init(Path("/nowhere/x.sh"), None)

    done = subprocess.run(["bash", "-c", f"set -u; {lines}echo went on"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_python_exec_without_a_module_says_so():
    with pytest.raises(SystemExit, match="which module"):
        main([])
