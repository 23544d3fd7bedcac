"""The audit log as a file: several processes at once, crashes, full disks, rotation, files that can't be trusted."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.privileged import audit as module
from endpoint.privileged.audit import AuditFailure, AuditLog
from endpoint.privileged.audit_chain import Verdict, lines_of, verify

APPEND = """
import sys
from endpoint.privileged.audit import AuditLog
log = AuditLog(sys.argv[1])
for number in range(int(sys.argv[3])):
    log.append({"event": "test", "writer": sys.argv[2], "count": number})
"""


def verdict_on(*paths: Path) -> Verdict:
    streams = [(str(path), path.open("rb"), path.stat().st_size) for path in paths]
    try:
        return verify(line for stream in streams for line in lines_of(*stream))
    finally:
        for _, stream, _ in streams:
            stream.close()


def records(*paths: Path) -> list[dict[str, object]]:
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def events(*paths: Path) -> list[object]:
    return [record["event"] for record in records(*paths)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


def test_the_first_line_says_where_the_chain_begins(path):
    AuditLog(path).append({"event": "start", "uid": 1001})

    opened, start = records(path)

    assert (opened["event"], opened["after"], opened["previous"]) == ("log-opened", None, "0" * 64)
    assert (start["event"], start["uid"], start["number"]) == ("start", 1001, 2)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_second_process_goes_on_where_the_first_one_ended(path):
    AuditLog(path).append({"event": "one"})
    AuditLog(path).append({"event": "two"})

    assert events(path) == ["log-opened", "one", "two"]
    assert verdict_on(path).flaw is None


def test_four_processes_write_one_chain(path):
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, str(path), str(n), "500"]) for n in range(4)]

    assert [writer.wait(60) for writer in writers] == [0, 0, 0, 0]

    verdict = verdict_on(path)
    assert (verdict.flaw, verdict.lines) == (None, 2001)
    for writer in map(str, range(4)):
        assert [one["count"] for one in records(path) if one.get("writer") == writer] == list(range(500))


def test_a_forked_process_has_a_lock_of_its_own(path):
    log = AuditLog(path)
    log.append({"event": "before"})
    child = os.fork()
    for _ in range(300):
        log.append({"event": "test"})
    if child == 0:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    verdict = verdict_on(path)
    assert (verdict.flaw, verdict.lines) == (None, 602)


def test_a_fork_that_closed_everything_opens_the_log_anew(path):
    log = AuditLog(path)
    log.append({"event": "before"})
    child = os.fork()
    if child == 0:
        os.closerange(3, 100)
        os.open("/dev/null", os.O_WRONLY)  # takes the number that the log had
        log.append({"event": "of the child"})
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0

    assert events(path)[-1] == "of the child"


def test_a_line_that_a_crash_cut_off_is_ended_and_told_of(path):
    AuditLog(path).append({"event": "before"})
    with path.open("ab") as stream:
        stream.write(b'{"number":3,"ti')

    log = AuditLog(path)
    log.append({"event": "after"})
    log.append({"event": "later"})

    lines = path.read_text().splitlines()
    assert lines[2] == '{"number":3,"ti'
    assert [json.loads(line)["event"] for line in lines[3:]] == ["torn", "after", "later"]
    assert json.loads(lines[3])["bytes"] == 15
    assert (verdict_on(path).flaw, verdict_on(path).torn) == (None, 1)


def test_several_records_are_written_together(path):
    AuditLog(path).extend([{"event": "one"}, {"event": "two"}], durable=True)

    assert events(path) == ["log-opened", "one", "two"]
    assert verdict_on(path).flaw is None


def test_an_append_takes_less_than_a_tenth_of_a_millisecond(path):
    log = AuditLog(path)
    record = {"event": "RECEIVED", "task": "t" * 36, "function": "f" * 36, "uid": 1001, "user": "alice", "pid": 7}
    log.append(record)

    def rounds() -> Iterator[float]:
        for _ in range(20):
            begin = time.perf_counter()
            for _ in range(50):
                log.append(record)
            yield (time.perf_counter() - begin) / 50

    assert min(rounds()) < 100e-6


# -- rotation ----------------------------------------------------------------------------------------------------------


def test_the_chain_goes_on_over_a_rotation_and_names_the_file_before(path):
    log, other = AuditLog(path), AuditLog(path)
    log.append({"event": "one"})
    other.append({"event": "two"})
    rotated = path.rename(path.with_name("audit.log.1"))
    other.append({"event": "three"})
    log.append({"event": "four"})

    assert events(rotated, path) == ["log-opened", "one", "two", "log-opened", "three", "four"]
    assert records(path)[0]["after"] == "audit.log.1"
    assert verdict_on(rotated, path).flaw is None


def test_a_rotation_that_makes_the_new_file_itself_is_followed_too(path):
    log = AuditLog(path)
    log.append({"event": "one"})
    rotated = path.rename(path.with_name("audit.log-20260131"))
    path.touch(mode=0o640)
    AuditLog(path).append({"event": "two"})
    log.append({"event": "three"})

    assert verdict_on(rotated, path).flaw is None
    assert events(path) == ["log-opened", "two", "three"]


def test_a_rotated_file_that_was_packed_at_once_is_followed_by_whoever_had_it_open(path):
    log = AuditLog(path)
    log.append({"event": "one"})
    last = verdict_on(path).last
    path.rename(path.with_name("audit.log.1")).unlink()
    path.with_name("audit.log.1.gz").write_bytes(b"packed")
    log.append({"event": "two"})

    assert (verdict_on(path).flaw, verdict_on(path).before) == (None, last)


def test_an_older_copy_beside_it_is_not_mistaken_for_the_file_before(path):
    log = AuditLog(path)
    log.append({"event": "one"})
    copy = path.with_name("audit.log.bak")
    copy.write_bytes(path.read_bytes())
    copy.chmod(0o600)
    log.append({"event": "two"})
    rotated = path.rename(path.with_name("audit.log.1"))
    os.utime(copy)
    AuditLog(path).append({"event": "three"})

    assert verdict_on(rotated, path).flaw is None


def test_processes_that_write_during_rotations_lose_nothing_and_break_no_chain(path):
    writers = [subprocess.Popen([sys.executable, "-c", APPEND, str(path), str(n), "400"]) for n in range(3)]
    rotated: list[Path] = []
    while any(writer.poll() is None for writer in writers):
        if path.exists() and len(rotated) < 40:
            rotated.append(path.rename(path.with_name(f"audit.log-{len(rotated):03}")))
        time.sleep(0.003)

    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    files = [*rotated, *([path] if path.exists() else [])]
    assert verdict_on(*files).flaw is None
    assert events(*files).count("test") == 1200
    assert len(rotated) >= 2


def test_somebody_who_keeps_the_lock_of_a_rotated_file_breaks_no_chain(path):
    log = AuditLog(path)
    log.append({"event": "one"})
    rotated = path.rename(path.with_name("audit.log.1"))
    with rotated.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_EX)
        AuditLog(path).append({"event": "two"})

    assert verdict_on(rotated, path).flaw is None


# -- what can't be written ---------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with 64 KiB of space."""
    directory = tmp_path / "disk"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "tmpfs", directory], check=True)
    yield directory
    subprocess.run(["umount", "--lazy", directory], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space"):
        while stream.write(b"x" * 1000):
            pass


def test_a_full_disk_refuses_a_record_and_harms_nothing(small_disk):
    log = AuditLog(small_disk / "audit.log")
    log.append({"event": "before"})
    fill(small_disk / "ballast")

    with pytest.raises(AuditFailure, match="No space left on device"):
        for _ in range(100):
            log.append({"event": "x" * 2000})
    assert verdict_on(log.path).flaw is None

    (small_disk / "ballast").unlink()
    log.append({"event": "after"})
    assert events(log.path)[-1] == "after"
    assert verdict_on(log.path).flaw is None
    log.close()


def test_what_was_lost_while_the_disk_was_full_is_counted_in_the_log(small_disk, caplog):
    log = AuditLog(small_disk / "audit.log")
    fill(small_disk / "ballast")

    assert [log.note({"event": "lost"}) for _ in range(5)] == [False] * 5
    assert len(caplog.records) == 1, "one warning a minute"
    (small_disk / "ballast").unlink()
    assert log.note({"event": "after"})

    assert [(one["event"], one.get("lines")) for one in records(log.path)][1:] == [("dropped", 5), ("after", None)]
    log.close()


def test_a_directory_that_is_not_there_is_told_with_the_file(tmp_path):
    with pytest.raises(AuditFailure, match=r"nowhere/audit\.log can't be written: No such file"):
        AuditLog(tmp_path / "nowhere" / "audit.log").append({"event": "x"})


def test_somebody_who_keeps_the_lock_holds_up_the_record_and_no_more(path, monkeypatch):
    monkeypatch.setattr(module, "LOCK_S", 0.2)
    log = AuditLog(path)
    log.append({"event": "one"})
    with path.open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        begin = time.monotonic()
        with pytest.raises(AuditFailure, match="another process holds its lock"):
            log.append({"event": "two"})
        assert time.monotonic() - begin < 2
    log.append({"event": "three"})

    assert events(path) == ["log-opened", "one", "three"]


# -- what can't be trusted ---------------------------------------------------------------------------------------------


def refuse(path: Path, words: str) -> None:
    with pytest.raises(AuditFailure, match=words):
        AuditLog(path).append({"event": "x"})


@pytest.mark.parametrize("mode", [0o660, 0o604, 0o622, 0o700])
def test_a_file_that_others_may_use_is_refused(path, mode):
    path.touch()
    path.chmod(mode)

    refuse(path, f"its mode is {mode:04o}")
    assert path.read_bytes() == b""


def test_a_file_that_a_group_may_read_is_fine(path):
    path.touch()
    path.chmod(0o640)
    AuditLog(path).append({"event": "x"})


def test_another_users_file_is_refused(path):
    path.touch(mode=0o600)
    os.chown(path, 65534, 65534)

    refuse(path, "it belongs to uid 65534")


def test_a_symbolic_link_is_not_followed(path, tmp_path):
    target = tmp_path / "target"
    target.touch(mode=0o600)
    path.symlink_to(target)

    refuse(path, "can't be written")
    assert target.read_bytes() == b""


def test_a_second_name_of_a_file_is_refused(path, tmp_path):
    (tmp_path / "target").touch(mode=0o600)
    path.hardlink_to(tmp_path / "target")

    refuse(path, "several names")


def test_a_pipe_is_refused_at_once(path):
    os.mkfifo(path, 0o600)

    refuse(path, "it is not a file")


def test_a_directory_that_everybody_can_write_to_is_refused(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)

    refuse(tmp_path / "open" / "audit.log", "everybody can write to its directory")


def test_the_official_form_is_appended_without_a_chain(path):
    log = AuditLog(path, audit_format="official")
    log.append({"event": "RECEIVED", "uid": 1001, "pid": 7, "user_endpoint": "u", "function": "f", "task": "t"})
    with path.open("ab") as stream:
        stream.write(b"cut o")
    log.append({"event": "EXEC_END", "uid": 1001, "pid": 7, "user_endpoint": "u", "function": "f", "task": "t"})

    lines = path.read_text().splitlines()
    assert [line.split(" ", 1)[1] for line in (lines[0], lines[3])] == [
        "uid=1001 pid=7 uep=u fid=f tid=t bid= RECEIVED",
        "uid=1001 pid=7 uep=u fid=f tid=t bid= EXEC_END",
    ]
    assert lines[1] == "cut o"
    assert "torn - bytes=5" in lines[2]
