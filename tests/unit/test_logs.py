"""Log lines, as a person and as a program reads them."""

from __future__ import annotations

import json
import logging

from endpoint.errors import ConfigError
from endpoint.logs import JsonLines, ReadableLines


def record(message: str, *args: object, **fields: str) -> logging.LogRecord:
    made = logging.LogRecord("endpoint.part", logging.WARNING, "part.py", 1, message, args, None)
    made.__dict__.update(fields)
    return made


def test_json_line_has_the_message_its_fields_and_those_of_the_process() -> None:
    line = JsonLines({"endpoint": "e"}).format(record("two\nlines of %s", "it", task="t", code="C", other="x"))

    entry = json.loads(line)
    assert "\n" not in line
    assert entry.pop("time") > 0
    assert entry == {
        "level": "WARNING",
        "logger": "endpoint.part",
        "message": "two\nlines of it",
        "endpoint": "e",
        "task": "t",
        "code": "C",
    }


def test_field_of_a_record_wins_over_that_of_the_process() -> None:
    assert json.loads(JsonLines({"endpoint": "e"}).format(record("x", endpoint="f")))["endpoint"] == "f"


def test_failure_gives_its_stage_and_code() -> None:
    assert ConfigError("no").failure.fields == {"stage": "validate", "code": "BAD_CONFIG"}


def test_readable_line_has_the_fields_behind_the_message() -> None:
    assert ReadableLines().format(record("said", task="t")).endswith("WARNING endpoint.part: said [task=t]")


def test_neither_line_has_secrets() -> None:
    made = record("to %s with Bearer %s", "amqp://u:hunter2@broker/", "abcdefghijkl")
    for line in (JsonLines().format(made), ReadableLines().format(made)):
        assert "hunter2" not in line
        assert "abcdefghijkl" not in line
