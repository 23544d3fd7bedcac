"""Parts of doctor by themselves: the table of schedulers, the clocks, the listener, and the job's program."""

from __future__ import annotations

import email.utils
import json
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from endpoint.doctor.job_command import _arguments
from endpoint.doctor.listener import LARGEST, Listener
from endpoint.doctor.probe import MARK
from endpoint.doctor.scheduler import SCHEDULERS
from endpoint.doctor.service import _clock
from endpoint.engines.parsl_parts import PROVIDERS
from endpoint.errors import EngineFailure


def test_every_provider_has_a_scheduler_that_is_looked_at() -> None:
    assert SCHEDULERS.keys() == PROVIDERS.keys()
    for name, scheduler in SCHEDULERS.items():
        assert scheduler.commands or scheduler.package, name
        # An answer to "is it there" is worth nothing without the question whether it answers.
        assert bool(scheduler.version) == bool(scheduler.alive), name


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(0, "ok"), (4, "ok"), (-4, "ok"), (20, "warning"), (-170, "warning"), (190, "failed")]
)
def test_the_clocks_are_compared_within_the_second_that_a_date_has(seconds: int, verdict: str) -> None:
    now = time.time()
    date = email.utils.formatdate(int(now) + seconds, usegmt=True)
    assert _clock(date, now, now + 0.1).verdict.value == verdict


def test_an_answer_without_a_date_is_a_warning() -> None:
    assert _clock(None, 1.0, 2.0).verdict.value == _clock("yesterday", 1.0, 2.0).verdict.value == "warning"


def say(port: int, words: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 10) as peer:
        peer.settimeout(10)
        try:
            peer.sendall(words)
            return peer.recv(1000)
        except ConnectionError:  # it has hung up on us
            return b""


def test_a_listener_answers_who_knows_its_token_and_nobody_else() -> None:
    with Listener("127.0.0.1", range(20000, 60000)) as listener:
        port, token = listener.port, listener.token
        for stranger in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"doctor 0 time\n",
            b"doctor\n",
            b"\xff\xfe\n",
            b"doctor %s x\n" % (b"0" * 32),
        ):
            assert say(port, stranger) == b""
        assert listener.report is None
        answer = say(port, f"doctor {token} time\n".encode())
        assert re.fullmatch(rb"doctor \d+\.\d+\n", answer)
        report = {"token": token, "host": "n1"}
        assert say(port, f"doctor {token} report {json.dumps(report)}\n".encode())
        assert listener.arrived.is_set()
        assert listener.report == report


def test_a_listener_survives_reports_that_are_no_reports() -> None:
    with Listener("127.0.0.1", range(20000, 60000)) as listener:
        for words in (b"[1]", b"{", b"[" * 5000, b"x" * (LARGEST + 100)):
            say(listener.port, b"doctor %s report %s\n" % (listener.token.encode(), words))
        assert listener.report is None
        assert say(listener.port, f"doctor {listener.token} time\n".encode())


def test_a_listener_says_where_it_cannot_be() -> None:
    with pytest.raises(EngineFailure, match=r"198\.51\.100\.7 is none of this machine's"):
        Listener("198.51.100.7", [20001])
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(EngineFailure, match="ports is free"):
        Listener("127.0.0.1", [taken.getsockname()[1]])


def test_the_jobs_program_needs_no_quoting_and_no_package(tmp_path: Path) -> None:
    """It goes through Parsl's format, a launcher's here-document and a shell."""
    arguments = _arguments({"token": "t", "port": 9, "addresses": [], "timeout_s": 1, "modules": ["json", "no_such"]})
    assert not set("$`\\{}!#\n") & set(arguments)
    assert "  " not in arguments
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -I -S -m timeit {arguments}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        cwd=tmp_path,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    report = json.loads(line.removeprefix(MARK))
    modules = report["python"]["modules"]
    assert modules["no_such"].startswith("error: ModuleNotFoundError")
    assert not modules["json"].startswith("error")
    assert report["disk"][str(tmp_path)]["free_bytes"] > 0
