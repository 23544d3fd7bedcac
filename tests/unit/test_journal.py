"""Lines for the journal: a real socket takes them, as journald would."""

from __future__ import annotations

import array
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint import journal
from endpoint.logs import JournalHandler

ENDPOINT_ID = "8f8a3c1e-0b6c-4a59-9a2b-0d8f3c6f1f6e"


@pytest.fixture
def journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A socket in the place of the journal's."""
    path = str(tmp_path / "socket")
    monkeypatch.setattr(journal.send, "__defaults__", (path,))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.settimeout(5)
        yield receiver


def received(journald: socket.socket) -> dict[str, str]:
    """One entry, by the rules of the native protocol."""
    data, ancillary, _, _ = journald.recvmsg(1 << 20, socket.CMSG_SPACE(4))
    if ancillary:
        descriptor = array.array("i", ancillary[0][2])[0]
        data = os.pread(descriptor, 1 << 22, 0)
        os.close(descriptor)
    found = {}
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (length,) = struct.unpack("<Q", data[:8])
            value, data = data[8 : 8 + length], data[9 + length :]
        found[name.decode()] = value.decode()
    return found


def test_line_has_its_fields(journald: socket.socket) -> None:
    others = journal.fields("WARNING", "program", {"task": "1234", "user": "", "code": None})

    assert journal.send("Something", others)

    assert received(journald) == {
        "MESSAGE": "Something",
        "PRIORITY": "4",
        "SYSLOG_IDENTIFIER": "program",
        "GLOBUS_COMPUTE_TASK": "1234",
    }


def test_value_with_line_breaks_begins_no_field_of_its_own(journald: socket.socket) -> None:
    journal.send("first\n_UID=0\nPRIORITY=0", journal.fields("INFO", "program", {"user": "a\nMESSAGE=b"}))

    found = received(journald)
    assert found["MESSAGE"] == "first\n_UID=0\nPRIORITY=0"
    assert found["GLOBUS_COMPUTE_USER"] == "a\nMESSAGE=b"
    assert found["PRIORITY"] == "6"


def test_names_and_ids_are_fields_of_their_own() -> None:
    by_name = journal.fields("INFO", "program", {"endpoint": "lab", "user_endpoint": ENDPOINT_ID})

    assert by_name["GLOBUS_COMPUTE_ENDPOINT"] == "lab"
    assert by_name["GLOBUS_COMPUTE_USER_ENDPOINT_ID"] == ENDPOINT_ID


def test_large_line_is_sent_as_a_file_and_cut(journald: socket.socket) -> None:
    journald.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sent = journal.send("x" * 10_000_000, {f"FIELD_{number}": "y" * 65_536 for number in range(10)})

    assert sent
    found = received(journald)
    assert len(found["MESSAGE"]) == journal.LONGEST_VALUE
    assert len(found) == 11


def test_journal_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert not journal.send("Something", {}, str(tmp_path / "nothing"))


def test_standard_error_is_the_journal_where_systemd_says_so_and_it_is_still_the_same() -> None:
    reading, writing = os.pipe()
    try:
        facts = os.fstat(writing)
        named = {"JOURNAL_STREAM": f"{facts.st_dev}:{facts.st_ino}"}
        assert journal.is_journal(named, writing)
        assert not journal.is_journal({}, writing)
        with open(os.devnull) as other:
            assert not journal.is_journal(named, other.fileno())
    finally:
        os.close(reading)
        os.close(writing)
    assert not journal.is_journal(named, writing)


def test_log_lines_bring_what_they_are_about_and_no_secret(journald: socket.socket) -> None:
    handler = JournalHandler({"endpoint": "lab"}, {"endpoint": ENDPOINT_ID})
    record = logging.makeLogRecord(
        {
            "name": "endpoint.x",
            "levelname": "ERROR",
            "msg": "Lost at amqp://me:secret@host",
            "task": "1234",
            "lineno": 7,
        }
        | {"user_endpoint": ENDPOINT_ID, "user_endpoint_name": "uep.a", "task": "1234"}
    )

    handler.emit(record)

    found = received(journald)
    assert found["MESSAGE"] == f"Lost at amqp://me:***@host [user_endpoint={ENDPOINT_ID} task=1234]"
    assert (found["PRIORITY"], found["LOGGER"], found["CODE_LINE"]) == ("3", "endpoint.x", "7")
    assert (found["GLOBUS_COMPUTE_ENDPOINT"], found["GLOBUS_COMPUTE_ENDPOINT_ID"]) == ("lab", ENDPOINT_ID)
    assert (found["GLOBUS_COMPUTE_USER_ENDPOINT"], found["GLOBUS_COMPUTE_TASK"]) == ("uep.a", "1234")
    assert found["GLOBUS_COMPUTE_USER_ENDPOINT_ID"] == ENDPOINT_ID
