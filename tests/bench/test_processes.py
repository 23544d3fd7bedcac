"""What is read from /proc, on small processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes import MARK, MIB, Tree, freeze, seconds_until_exit, thaw

# A child that outlives its parent's care: its own parent is init at once, as with a batch script's workers.
PARENT = """
import os, subprocess, sys, time
subprocess.Popen(["sh", "-c", "sleep 600 & echo $!"], start_new_session=True)
memory = bytearray(32 * 1024 * 1024)
print("ready", flush=True)
for line in sys.stdin:
    began = time.process_time()
    while time.process_time() < began + 0.2:
        pass
    print("worked", flush=True)
"""


@pytest.fixture
def parent(tmp_path: Path, no_process_left: None) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, MARK: str(tmp_path)},
    )
    assert process.stdin is not None and process.stdout is not None
    lines = {process.stdout.readline(), process.stdout.readline()}
    assert b"ready\n" in lines
    yield process
    process.kill()
    process.wait()
    Tree(process.pid, tmp_path).end(0)
    process.stdin.close()
    process.stdout.close()


def test_a_process_that_init_has_taken_over_still_belongs_to_the_tree(parent, tmp_path):
    tree = Tree(parent.pid, tmp_path)

    pids = tree.pids()

    assert pids[0] == parent.pid
    commands = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in pids[1:]]
    assert b"sleep\x00600\x00" in commands
    assert os.getpid() not in pids


def test_memory_threads_and_processor_time(parent, tmp_path):
    tree = Tree(parent.pid, tmp_path)
    before = tree.cpu_seconds()

    parent.stdin.write(b"go\n")
    parent.stdin.flush()
    assert parent.stdout.readline() == b"worked\n"

    assert 0.19 < tree.cpu_seconds() - before < 0.6
    assert 32 < tree.pss_mib() < 32 + 64
    assert tree.threads() >= 2
    assert MIB == 2**20


def test_a_frozen_tree_does_nothing_until_it_is_let_go(parent, tmp_path):
    frozen = freeze(Tree(parent.pid, tmp_path))
    parent.stdin.write(b"go\n")
    parent.stdin.flush()
    time.sleep(0.3)
    states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in frozen]

    began = thaw(frozen)

    assert states == ["T"] * len(frozen)
    assert parent.stdout.readline() == b"worked\n"
    assert time.monotonic() - began < 5


def test_the_end_of_a_tree_is_the_end_of_all_in_it(parent, tmp_path):
    tree = Tree(parent.pid, tmp_path)

    assert tree.end(patience=0.1) >= 2
    parent.wait()
    deadline = time.monotonic() + 5
    while tree.pids() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert tree.pids() == []


def test_the_seconds_until_an_exit(parent):
    assert seconds_until_exit(parent, 0.05) is None

    parent.send_signal(signal.SIGTERM)

    assert 0 <= seconds_until_exit(parent, 10) < 5
