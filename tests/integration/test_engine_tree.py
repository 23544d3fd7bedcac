"""A process with all that it has started: found, told, killed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from endpoint.engines.tree import Tree
from tests.support.waiting import runs, wait_for

# A grandchild whose parent ends, one in a session of its own, and itself: all note their numbers.
FAMILY = """
import json, os, signal, subprocess, sys, threading
signal.signal(signal.SIGTERM, signal.SIG_IGN)
middle = subprocess.Popen(["sh", "-c", "sleep 600 >&- & echo $!; read line"], stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE)
orphan = int(middle.stdout.readline())
apart = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(json.dumps([os.getpid(), middle.pid, orphan, apart.pid]), flush=True)
sys.stdin.readline()
middle.communicate(b"go\\n", 30)
print("orphaned", flush=True)
threading.Event().wait()
"""


@pytest.fixture
def family() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    process = subprocess.Popen(
        [sys.executable, "-c", FAMILY],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    pids = json.loads(process.stdout.readline())
    yield process, pids
    for pid in pids:
        if psutil.pid_exists(pid):
            psutil.Process(pid).kill()
    process.communicate()


def test_all_descendants_are_killed_also_one_in_a_session_of_its_own(family):
    process, pids = family

    tree = Tree(process.pid)
    tree.signal(signal.SIGTERM)
    assert tree.runs
    assert tree.root_runs
    tree.kill()

    assert wait_for(lambda: not any(runs(pid) for pid in pids))
    assert not tree.runs


def test_one_that_was_seen_is_known_when_its_parent_has_ended(family):
    process, pids = family
    tree = Tree(process.pid)

    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "orphaned\n"
    tree.kill()

    assert wait_for(lambda: not any(runs(pid) for pid in pids))


def test_what_is_in_the_session_belongs_to_it_without_having_been_seen(family):
    process, pids = family
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "orphaned\n"
    assert runs(pids[2])

    Tree(process.pid, session=True).kill()

    assert wait_for(lambda: not any(runs(pid) for pid in pids))


def test_a_number_that_another_process_has_by_now_is_not_touched(family, tmp_path: Path):
    process, pids = family
    tree = Tree(process.pid)
    tree._members[pids[3]] = "another start"

    tree.signal(signal.SIGKILL)

    assert wait_for(lambda: not runs(process.pid))
    assert runs(pids[3])


def test_a_process_that_is_gone_is_an_empty_tree():
    process = subprocess.Popen(["true"])
    process.wait()

    tree = Tree(process.pid)
    tree.kill()

    assert not tree.runs
    assert not tree.root_runs
