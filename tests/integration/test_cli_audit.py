"""`audit verify` and `audit show` on real files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from endpoint.cli.main import run
from endpoint.privileged.audit import AuditLog

ALICE = {"uid": 1001, "user": "alice", "user_endpoint": "u-1", "pid": 7}
BOB = {"uid": 1002, "user": "bob", "user_endpoint": "u-2", "pid": 8}
OFFICIAL = (
    "2026-01-31T10:00:00.123456+01:00 uid=0 pid=1 eid=e-1 Begin CEP session =====\n"
    "2026-01-31T10:00:01.123456+01:00 uid=1001 pid=7 uep=u-1 fid=f-1 tid=t-1 bid= RECEIVED\n"
    "2026-01-31T10:00:02.123456+01:00 uid=1001 pid=7 uep=u-1 fid=f-1 tid=t-1 bid=0 jid=4711 RUNNING - on n1\n"
    "2026-01-31T10:00:03.123456+01:00 uid=0 pid=1 eid=e-1 End CEP session -----\n"
)


@pytest.fixture
def log(tmp_path: Path) -> Path:
    log = AuditLog(tmp_path / "audit.log")
    log.append({"event": "started", **ALICE})
    log.append({"event": "RECEIVED", "task": "t-1", **ALICE})
    log.append({"event": "RECEIVED", "task": "t-2", "message": "\x1b[2Jcleared", **BOB})
    return log.path


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    assert run(["audit", "show", *map(str, arguments)]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_log_as_it_was_written_is_verified_with_its_last_hash(log, capsys):
    assert run(["audit", "verify", str(log)]) == 0

    assert re.fullmatch(r"4 lines, as they were written\.\nThe last hash is [0-9a-f]{64}\n", capsys.readouterr().out)


def test_a_changed_line_is_named_with_its_file_and_number(log, capsys):
    log.write_text(log.read_text().replace('"task":"t-1"', '"task":"t-3"'))

    assert run(["audit", "verify", str(log)]) == 1
    assert capsys.readouterr().out.startswith(f"{log}, line 3: changed: ")


def test_the_verdict_is_a_document_for_programs(log, capsys):
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:1] + log.read_text().splitlines(True)[2:]))

    assert run(["audit", "verify", "--json", str(log)]) == 1
    document = json.loads(capsys.readouterr().out)
    assert (document["valid"], document["flaw"]["line"], document["flaw"]["what"]) == (False, 2, "removed")


def test_lines_that_are_missing_at_the_end_are_found_with_the_last_hash(log, capsys):
    run(["audit", "verify", "--json", str(log)])
    last = json.loads(capsys.readouterr().out)["last"]
    assert run(["audit", "verify", str(log), "--holds", last]) == 0
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:-1]))

    assert run(["audit", "verify", str(log), "--holds", last]) == 1
    assert "no line has the hash" in capsys.readouterr().out


def test_rotated_files_are_one_log(log, capsys):
    rotated = log.rename(log.with_name("audit.log.1"))
    AuditLog(log).append({"event": "ended", **ALICE})

    assert run(["audit", "verify", str(rotated), str(log)]) == 0
    assert run(["audit", "verify", str(log)]) == 0
    assert "continues one that is not given here" in capsys.readouterr().out
    assert run(["audit", "verify", str(log), str(rotated)]) == 1


def test_the_official_form_has_nothing_to_verify(tmp_path, capsys):
    (tmp_path / "official.log").write_text(OFFICIAL)

    assert run(["audit", "verify", str(tmp_path / "official.log")]) == 64
    assert "has no hashes" in capsys.readouterr().err


def test_a_log_that_is_being_written_can_be_verified_at_any_time(log):
    code = "import sys, time; from endpoint.privileged.audit import AuditLog; log = AuditLog(sys.argv[1])\n"
    code += "while True: log.append({'event': 'test'}); time.sleep(0.0005)"
    writer = subprocess.Popen([sys.executable, "-c", code, str(log)])
    try:
        before = log.stat().st_size
        while log.stat().st_size == before:
            assert writer.poll() is None
        assert [run(["audit", "verify", str(log)]) for _ in range(10)] == [0] * 10
        assert writer.poll() is None
    finally:
        writer.kill()
        writer.wait()


def test_records_are_shown_one_on_a_line(log, capsys):
    lines = shown(capsys, log)

    assert len(lines) == 4
    assert re.fullmatch(r"20\S+Z  RECEIVED      alice  u-1  task=t-1  pid=7", lines[2])


@pytest.mark.parametrize("user", ["alice", "1001"])
def test_records_of_one_user_are_found_by_name_and_by_number(log, capsys, user):
    assert len(shown(capsys, log, "--user", user)) == 2


def test_records_of_one_task_are_found(log, capsys):
    assert ["t-2" in line for line in shown(capsys, log, "--task", "t-2")] == [True]


def test_records_are_found_from_a_time_on(log, capsys):
    now = datetime.now(timezone.utc)

    assert len(shown(capsys, log, "--since", "1h")) == 4
    assert len(shown(capsys, log, "--since", (now - timedelta(hours=1)).isoformat())) == 4
    assert shown(capsys, log, "--since", (now + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")) == []
    assert run(["audit", "show", str(log), "--since", "yesterday"]) == 64


def test_what_a_user_wrote_can_not_move_the_cursor(log, capsys):
    assert "\x1b" not in "".join(shown(capsys, log))


def test_records_come_as_one_document_for_programs(log, capsys):
    document = json.loads("\n".join(shown(capsys, log, "--json", "--user", "alice")))

    assert [record["event"] for record in document] == ["started", "RECEIVED"]
    assert json.loads("\n".join(shown(capsys, log, "--json", "--user", "nobody"))) == []


def test_the_official_form_is_shown_too(tmp_path, capsys):
    (tmp_path / "official.log").write_text(OFFICIAL)

    assert [line.split("  ")[1].strip() for line in shown(capsys, tmp_path / "official.log")] == [
        *("Begin CEP session", "RECEIVED", "RUNNING", "End CEP session")
    ]
    running = shown(capsys, tmp_path / "official.log", "--task", "t-1")[1]
    assert {"block=0", "job=4711", "message=- on n1"} & set(running.split("  ")) >= {"block=0", "job=4711"}
