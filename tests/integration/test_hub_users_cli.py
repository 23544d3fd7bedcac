"""`compute-hub user`, and our own login, as somebody at a terminal meets them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.support.browser import Terminal, log_in
from tests.support.hubs import RunningHub, clean_environment
from tests.support.user_endpoint import BIN

PASSWORD = "correct horse battery"


def compute_hub(directory: Path, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "endpoint.cli.hub", "user", *arguments, "--directory", str(directory)]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, env=clean_environment({}))


def test_an_account_is_made_listed_changed_and_deleted(tmp_path):
    made = compute_hub(tmp_path, "create", "Bob", "--domain", "x.example", "--password-stdin", given=PASSWORD + "\n")
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith("Created bob@x.example (identity ")
    assert "bob@x.example" in compute_hub(tmp_path, "list").stdout
    twice = compute_hub(tmp_path, "create", "bob", "--password-stdin", given=PASSWORD + "\n")
    assert (twice.returncode, "There is a 'bob' already" in twice.stderr) == (64, True)
    assert compute_hub(tmp_path, "passwd", "bob", "--password-stdin", given="short\n").returncode == 64
    assert compute_hub(tmp_path, "passwd", "bob", "--password-stdin", given=PASSWORD + "2\n").returncode == 0
    assert compute_hub(tmp_path, "delete", "bob").returncode == 0
    gone = compute_hub(tmp_path, "passwd", "bob", "--password-stdin", given=PASSWORD + "\n")
    assert (gone.returncode, "There is no user 'bob'" in gone.stderr) == (64, True)
    assert json.loads(compute_hub(tmp_path, "list", "--json").stdout) == []


def test_a_password_is_asked_for_twice_and_not_shown(tmp_path):
    command = [sys.executable, "-m", "endpoint.cli.hub", "user", "create", "carol", "--directory", tmp_path]
    with Terminal(command, clean_environment({})) as terminal:
        for question in ("Password: ", "Again: "):
            terminal.expect(question)
            terminal.say(PASSWORD)
        assert terminal.wait() == 0, terminal.output
    assert PASSWORD not in terminal.output
    assert "Created carol@" in terminal.output

    with Terminal([*command[:-3], "dave", "--directory", tmp_path], clean_environment({})) as terminal:
        terminal.expect("Password: ")
        terminal.say(PASSWORD)
        terminal.expect("Again: ")
        terminal.say(PASSWORD + "x")
        assert terminal.wait() == 64
    assert "differ" in terminal.output


def test_without_a_terminal_nothing_is_asked(tmp_path):
    refused = compute_hub(tmp_path, "create", "erin")
    assert refused.returncode == 64
    assert "--password-stdin" in refused.stderr


def test_our_command_logs_a_person_in_with_a_browser(hub: RunningHub, tmp_path):
    username = hub.person("terminal-person", PASSWORD)
    env = clean_environment({**hub.env, "GLOBUS_COMPUTE_USER_DIR": str(tmp_path)})
    ours = BIN / "globus-compute-endpoint"
    with Terminal([ours, "login"], env) as terminal:
        log_in(terminal, "terminal-person", PASSWORD)
        assert terminal.wait() == 0, terminal.output

    who = subprocess.run(
        [ours, "whoami"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert username in who.stdout, who.stderr
    out = subprocess.run(
        [ours, "logout"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60
    )
    assert out.returncode == 0, out.stderr
