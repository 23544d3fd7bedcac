"""The shell commands that run worker pools in containers, as text; tests/integration/test_container_*.py run them."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parsl.launchers import SingleNodeLauncher, SrunLauncher

from endpoint.engines.container_pool import pool_in_container
from endpoint.engines.containers import ACCELERATORS, Container, for_launcher, shell_words
from endpoint.errors import ConfigError

TEMPLATE = "process_worker_pool.py {debug}  -a {addresses} --block_id={{block_id}}"
NASTY = '/run dir/it\'s $HOME {x} "q"'
SCRIPT = "/worker/endpoint-1.sh"
POOL = ["sh", f"{NASTY}{SCRIPT}", "pool", "-"]


class Line:
    """Stands for a lifeline: its arguments are all that a command needs."""

    arguments = ["--lifeline", f"{NASTY}/engine.alive", "77"]


def command(
    kind: str, uri: str | None = "image", options: str | None = None, *, line: Any = None, run_dir: str = NASTY
) -> str:
    container = Container.parse(kind, uri, options)
    assert container is not None
    script = Path(run_dir + SCRIPT)
    text = pool_in_container(
        container, TEMPLATE, module="a.pool", script=script, run_dir=Path(run_dir), lifeline=line, name="gce-e"
    )
    return text.format(debug="", addresses="10.0.0.1").format(block_id="3")  # as Parsl does


def words(*arguments: Any, **more: Any) -> list[str]:
    return split(command(*arguments, **more))


def split(text: str) -> list[str]:
    """The words that a shell makes of it."""
    made = subprocess.run(["bash", "-c", f"printf '%s\\0' {text}"], stdout=subprocess.PIPE, text=True, check=True)
    return made.stdout.split("\0")[:-1]


def inner(guard: list[str]) -> list[str]:
    return [
        *POOL,
        *(["endpoint.engines.python_exec", *guard] if guard else []),
        "a.pool",
        "-a",
        "10.0.0.1",
        "--block_id=3",
    ]


VARIABLES = [word for variable in ACCELERATORS for word in ("-e", variable)]
MOUNTS = ["-v", f"{NASTY}:{NASTY}", "-v", f"{NASTY}/worker:{NASTY}/worker:ro", *VARIABLES]


@pytest.mark.parametrize("kind", ["docker", "podman", "podman-hpc"])
def test_a_docker_like_program_gets_the_run_directory_the_accelerators_and_a_name_that_is_removed(kind):
    found = words(kind, "registry/it's an image", "--net host -e 'A=b $c'")

    assert found[:2] == ["sh", "-c"]
    assert found[2].index(" run --rm --name ") < found[2].index(" rm --force ")
    assert found[3:] == [
        "gce-e-3",
        kind,
        *MOUNTS,
        "--net",
        "host",
        "-e",
        "A=b $c",
        "registry/it's an image",
        *inner(["--guard"]),
    ]


@pytest.mark.parametrize("kind", ["apptainer", "singularity"])
def test_apptainer_and_singularity_see_the_run_directory_also_where_they_mount_nothing_by_themselves(kind):
    assert words(kind, "/img dir/$(id).sif", "--nv --bind '/a b:/c'") == [
        *[kind, "run", "--bind", NASTY, "--nv", "--bind", "/a b:/c", "/img dir/$(id).sif"],
        *inner([]),
    ]


def test_a_custom_container_is_the_administrators_own_command_with_two_words_filled_in():
    options = "mine --bind {EXECUTOR_RUNDIR} --json '{\"a\": 1}' -- {EXECUTOR_LAUNCH_CMD}"

    assert words("custom", None, options) == ["mine", "--bind", NASTY, "--json", '{"a": 1}', "--", *inner([])]


@pytest.mark.parametrize("quote", ["'", '"'])
def test_in_quotes_a_custom_containers_launch_command_is_whole_for_the_shell_that_reads_it(quote):
    options = f"mine --at={quote}{{EXECUTOR_RUNDIR}}/x{quote} sh -c {quote}cd /x && exec {{EXECUTOR_LAUNCH_CMD}}{quote}"

    found = words("custom", None, options)

    assert found[:4] == ["mine", f"--at={NASTY}/x", "sh", "-c"]
    assert split(found[4].removeprefix("cd /x && exec ")) == inner([])


def test_on_this_machine_a_containers_program_or_the_pool_behind_a_daemon_is_tied_to_the_endpoint():
    tie = [*Line.arguments, "--guard"]
    ours = [sys.executable, "-I", "-m", "endpoint.engines.python_exec", *tie, "--command"]

    docker = words("docker", line=Line())
    assert docker[:2] == ["sh", "-c"]
    assert docker[-len(inner(tie)) :] == inner(tie)
    assert words("apptainer", line=Line())[: len(ours) + 2] == [*ours, "apptainer", "run"]
    custom = words("custom", None, "mine {EXECUTOR_LAUNCH_CMD}", line=Line())
    assert custom[:-1] == [*ours, "bash", "-c"]
    assert split(custom[-1]) == ["mine", *inner([])]


def test_what_the_nodes_shell_fills_in_is_left_to_it():
    text = command(
        "apptainer", "$IMAGES/${TAG}.sif", "--bind $SCRATCH --home $(pwd -P) -e '$literal' \\$too", run_dir="/r"
    )

    assert " --bind $SCRATCH --home $(pwd -P) -e '$literal' \\$too \"$IMAGES/${TAG}.sif\" " in text


def test_an_administrators_own_launch_command_runs_in_the_container_as_it_is():
    container = Container.parse("apptainer", "image", None)
    assert container is not None

    text = pool_in_container(
        container,
        "my-pool {addresses}",
        module="a.pool",
        script=Path("/r/worker/e.sh"),
        run_dir=Path("/r"),
        lifeline=None,
        name="gce-e",
    )

    assert text == "apptainer run --bind /r image my-pool {addresses}"


def test_a_launcher_that_writes_a_here_document_gets_what_comes_out_of_it_again():
    text = r"a '$b' \$c `d`"

    assert for_launcher(text, SrunLauncher()) == r"a '\$b' \\\$c \`d\`"
    assert for_launcher(text, SingleNodeLauncher()) == text
    assert for_launcher(text, None) == text


@pytest.mark.parametrize(
    ("kind", "uri", "options", "told"),
    [
        ("custom", "x", None, "needs container_cmd_options"),
        ("custom", None, "mine", "EXECUTOR_LAUNCH_CMD"),
        ("docker", None, None, "needs container_uri"),
        ("docker", "i", "--env 'A=b", "a quote that nothing closes"),
        ("docker", "i", 'a"b', "a quote that nothing closes"),
        ("docker", "i", "--rm \\", "a quote that nothing closes"),
        ("apptainer", "i", "--nv; rm", "ends a command"),
        ("apptainer", "i", "--nv > log", "ends a command"),
    ],
)
def test_a_container_that_lacks_something_is_a_config_error(kind, uri, options, told):
    with pytest.raises(ConfigError, match=told):
        Container.parse(kind, uri, options)


def test_a_run_directory_that_can_not_be_mounted_is_a_config_error():
    with pytest.raises(ConfigError, match="can't be mounted"):
        command("docker", run_dir="/a:b")


def test_a_program_that_is_not_on_this_machine_is_a_config_error_unless_worker_init_may_bring_it():
    missing = Container.parse("custom", None, "no-such-program {EXECUTOR_LAUNCH_CMD}")
    builtin = Container.parse("custom", None, "exec {EXECUTOR_LAUNCH_CMD}")
    assert missing is not None
    assert builtin is not None

    with pytest.raises(ConfigError, match="no no-such-program on this machine's PATH"):
        missing.check_here("")
    missing.check_here("module load it")
    builtin.check_here("")


@given(st.text("ab '\"\\()\n\t{}"))
def test_words_are_the_shells(text):
    try:
        expected = shlex.split(text)
    except ValueError:
        with pytest.raises(ConfigError):
            shell_words(text)
    else:
        assert [shlex.split(word) for word in shell_words(text)] == [[word] for word in expected]


def test_what_the_shell_substitutes_is_within_a_word():
    assert shell_words("--user $(id -u):$(id -g) -e `a b`") == ["--user", "$(id -u):$(id -g)", "-e", "`a b`"]
