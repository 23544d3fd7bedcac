"""The parts of `health` that need no service: its function, its answer, its options, and waiting."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint.doctor import sample
from endpoint.doctor.health import Subject, chosen_options
from endpoint.doctor.requester import poll
from endpoint.errors import ConfigError, NetworkFailure
from endpoint.worker.allowed import Allowed
from endpoint.worker.serializer import dump_result, load_task


def subject(**changed: Any) -> Subject:
    return Subject(name="lab", directory=Path("/lab"), id="id", requester=None, timeout_s=1, **changed)  # type: ignore[arg-type]


def test_a_worker_reads_the_function_and_its_answer_is_read_back() -> None:
    packed = sample.code() + sample.arguments()

    allowed = Allowed(("globus_compute_sdk.serialize.PureSourceTextInspect", "globus_compute_sdk.serialize.JSONData"))
    function, args, kwargs = load_task(packed, allowed)
    answer = sample.answer_of(dump_result(function(*args, **kwargs), sample.SERIALIZERS))

    assert (answer.user, answer.uid) == (psutil.Process().username(), os.getuid())


@pytest.mark.parametrize(
    "text",
    [None, "00\ngASV", "11\nnot json", "11\n[]", '11\n{"uid": "0"}', "11\n" + "[" * 100_000],
    ids=["nothing", "a pickle", "no json", "a list", "a text as uid", "too deep"],
)
def test_what_is_not_its_answer_is_refused_and_never_unpickled(text: Any) -> None:
    with pytest.raises((ValueError, RecursionError)):
        sample.answer_of(text)


def test_a_long_text_of_a_worker_is_cut() -> None:
    answer = sample.answer_of("11\n" + json.dumps({"uid": 1, "user": "x" * 1000, "host": "h", "python": "3"}))

    assert answer.user == "x" * sample.LONGEST


def test_options_are_those_given_or_the_first_example_that_fits_or_none() -> None:
    queue = {"type": "string", "enum": ["long"]}
    required = {"type": "object", "properties": {"queue": queue}, "required": ["queue"]}

    assert chosen_options(subject(options={"a": 1}, options_schema=required)) == {"a": 1}
    assert chosen_options(subject(options_schema=required)) == {"queue": "long"}
    assert chosen_options(subject(options_schema={**required, "examples": [{"queue": "no"}, {}]})) == {"queue": "long"}
    assert chosen_options(subject(options_schema={"properties": {"queue": queue}})) == {}
    assert chosen_options(subject()) == {}
    account = {"type": "string", "pattern": "^p[0-9]{4}$"}
    with pytest.raises(ConfigError, match=r"needs options \(account\)"):
        chosen_options(subject(options_schema={"properties": {"account": account}, "required": ["account"]}))


def test_polling_goes_on_while_the_service_is_away_for_a_moment_and_tells_so_in_the_end() -> None:
    answers = iter([NetworkFailure("away"), None, "found"])

    def look() -> str | None:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert poll(look, time.monotonic() + 10) == "found"
    assert poll(lambda: None, time.monotonic()) is None
    with pytest.raises(NetworkFailure):
        poll(lambda: (_ for _ in ()).throw(NetworkFailure("away")), time.monotonic())
