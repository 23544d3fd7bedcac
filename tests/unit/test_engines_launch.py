"""The commands that start Parsl's processes, as text."""

from __future__ import annotations

import shlex
import sys

import pytest

from endpoint.engines.launch import container_command, pool_command, pool_command_in_container
from endpoint.engines.python_exec import main
from endpoint.errors import ConfigError

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
    assert pool_command_in_container(own, module=POOL) == own


def test_a_pool_that_worker_init_chooses_is_tied_by_our_python():
    command = pool_command(TEMPLATE, module=POOL, lifeline=Line(), own_environment=False)

    assert command.startswith(
        f"{sys.executable} -I -m endpoint.engines.python_exec --lifeline '/run dir/engine.alive' 77"
    )
    assert " --guard --command $(command -v globus-compute-endpoint" in command


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("docker", "docker run -v X -v /run:/run -t image POOL"),
        ("podman-hpc", "podman-hpc run -v X -v /run:/run -t image POOL"),
        ("apptainer", "apptainer run -v X image POOL"),
        ("singularity", "singularity run -v X image POOL"),
    ],
)
def test_a_container_runs_the_pool_from_its_image(kind, expected):
    assert container_command("POOL", kind=kind, uri="image", options="-v X", run_dir="/run") == expected


def test_a_custom_container_is_the_administrators_own_command():
    options = "mine --bind {EXECUTOR_RUNDIR} -- {EXECUTOR_LAUNCH_CMD}"

    assert container_command("POOL", kind="custom", uri=None, options=options, run_dir="/r") == "mine --bind /r -- POOL"
    assert (
        pool_command_in_container(TEMPLATE, module="a.pool")
        == f"globus-compute-endpoint python-exec a.pool {ARGUMENTS}"
    )


@pytest.mark.parametrize(
    ("kind", "uri", "words"), [("custom", "x", "container_cmd_options"), ("docker", None, "container_uri")]
)
def test_a_container_that_lacks_something_is_a_config_error(kind, uri, words):
    with pytest.raises(ConfigError, match=words):
        container_command("POOL", kind=kind, uri=uri, options=None, run_dir="/run")


def test_python_exec_without_a_module_says_so():
    with pytest.raises(SystemExit, match="which module"):
        main([])
