"""The shell commands around a user endpoint's life, run by a real shell."""

from __future__ import annotations

import asyncio
import logging
import os
import time

import pytest

from endpoint.errors import ConfigError
from endpoint.user.setup import run_command


def run(command: str | None, option: str = "endpoint_setup") -> None:
    asyncio.run(run_command(option, command))


def test_a_command_of_several_lines_runs_in_a_shell_and_its_output_is_logged(tmp_path, caplog):
    caplog.set_level(logging.INFO)

    run(f"cd {tmp_path}\nfor x in a b; do echo $x | tee $x; done\necho warned >&2")

    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert "endpoint_setup ended with status 0\na\nb\nwarned" in caplog.text


def test_no_command_is_nothing(caplog):
    run(None)

    assert caplog.text == ""


@pytest.mark.parametrize("option", ["endpoint_setup", "endpoint_teardown"])
def test_a_failure_tells_the_user_the_last_line_and_the_administrator_all_of_the_output(option):
    with pytest.raises(ConfigError) as caught:
        run("echo step one; module load no-such-module || exit 3", option)

    failure = caught.value.failure
    assert f"'{option}' ended with status 3" in failure.for_user()
    assert "module: not found" in failure.for_user()
    assert "step one" not in failure.for_user()
    assert "step one" in failure.for_admin()


def test_of_much_output_the_end_is_kept():
    with pytest.raises(ConfigError) as caught:
        run("seq 200000; echo the end; exit 1")

    detail = caught.value.failure.detail
    assert len(detail) < 21_000
    assert detail.endswith("200000\nthe end")
    assert detail.partition("\n")[0].isdigit()


def test_what_a_command_leaves_running_is_not_waited_for(tmp_path):
    began = time.monotonic()
    run(f"sleep 300 & echo $! > {tmp_path}/pid")

    os.kill(int((tmp_path / "pid").read_text()), 9)
    assert time.monotonic() - began < 100
