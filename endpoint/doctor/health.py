"""Whether an endpoint does its work: registered, heard of, and with a requester a function that was run.

Each stage is a function that gives one finding, or raises an error of ours; the first that fails ends it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from endpoint.config.endpoint_json import stored_endpoint_id
from endpoint.config.option_examples import example_options
from endpoint.config.paths import LOG, PID
from endpoint.config.user_options import schema_faults
from endpoint.doctor import sample
from endpoint.doctor.findings import Finding, Verdict, failed, failure, ok
from endpoint.doctor.requester import Requester, poll
from endpoint.errors import ConfigError, EndpointBlocked, EndpointError, ExitStatus, Mender, NetworkFailure, Stage
from endpoint.lease import read_lease

LONGEST_ERROR = 4000  # characters of what a task says when it fails


@dataclass
class Subject:
    """The endpoint, and who asks.

    directory: None where it is not on this machine. id: None until it has registered. may_submit: why no function is
    submitted, or None. options: a user's, or None for what the schema has as examples. user: who should run it.
    """

    name: str
    directory: Path | None
    id: str | None
    requester: Requester
    timeout_s: float
    may_submit: Finding | None = None
    options: Mapping[str, Any] | None = None
    options_schema: Mapping[str, Any] | None = None
    user_runtime: Mapping[str, Any] = field(default_factory=dict)
    user: str | None = None
    task: dict[str, Any] | None = None  # who ran the function

    @property
    def where_to_look(self) -> str:
        """Where an admin reads on."""
        if self.directory is None:
            return "Look at the endpoint's log, on the machine where it runs"
        return f"Look at {self.directory / LOG}, and at: globus-compute-endpoint status {self.name}"


@dataclass(frozen=True)
class Report:
    """What one stage has found, and how long it took."""

    stage: str
    finding: Finding
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        found = self.finding
        return {
            "stage": self.stage,
            "state": found.verdict.value,
            "seconds": round(self.seconds, 3),
            "detail": "\n".join(filter(None, (found.words, found.detail))),
            "code": found.code,
            "next_step": found.next_step,
        }


def look_at(subject: Subject, begins: Callable[[str], None] = lambda _stage: None) -> Iterator[Report]:
    """The reports of the stages as they come, until one fails; `begins` is told each stage's name before it."""
    for name, check in STAGES:
        begins(name)
        begin = time.monotonic()
        try:
            finding = check(subject)
        except EndpointError as error:
            finding = failure(error)
        report = Report(name, finding, time.monotonic() - begin)
        yield report
        if finding.verdict is Verdict.FAILED:
            return


def registered(subject: Subject) -> Finding:
    """The endpoint has an id, and the service knows it."""
    if subject.id is None:
        subject.id = poll(lambda: _id_of(subject), time.monotonic() + subject.timeout_s)
    if subject.id is None:
        return failed(
            f"It runs, and has not registered within {subject.timeout_s:g} s",
            subject.where_to_look,
            code="NOT_REGISTERED",
            status=ExitStatus.ENDPOINT_BLOCKED,
        )
    subject.requester.status(subject.id)
    return ok(f"The service knows it as {subject.id}", endpoint_id=subject.id)


def _id_of(subject: Subject) -> str | None:
    """The id in endpoint.json, which an endpoint that runs will have in a moment. Raises EndpointBlocked."""
    assert subject.directory is not None
    found = stored_endpoint_id(subject.directory)
    if found is None and read_lease(subject.directory / PID).state not in ("running", "elsewhere"):
        raise EndpointBlocked(
            f"The endpoint {subject.name} has never registered, and does not run",
            hint=f"Start it: globus-compute-endpoint start {subject.name}, or its unit",
            stage=Stage.REGISTER,
            code="NOT_REGISTERED",
        )
    return found


def heartbeat(subject: Subject) -> Finding:
    """The service has heard of it lately."""
    last: dict[str, Any] = {}

    def online() -> bool | None:
        last.update(subject.requester.status(str(subject.id)))
        return True if last.get("status") == "online" else None

    if poll(online, time.monotonic() + subject.timeout_s):
        return ok("The service says that it is online", status="online")
    return failed(
        f"The service still says after {subject.timeout_s:g} s that it is {last.get('status')}",
        subject.where_to_look,
        code="NOT_ONLINE",
        status=ExitStatus.NETWORK,
        service_status=str(last.get("status")),
    )


def task(subject: Subject) -> Finding:
    """A small function comes back with who ran it. Leaves `task`."""
    if subject.may_submit is not None:
        return subject.may_submit
    begin = time.monotonic()
    ended = _run(subject, begin + subject.timeout_s)
    if ended is None:
        return failed(
            f"A function that was submitted has no result within {subject.timeout_s:g} s",
            f"If jobs wait longer in the queue, give it more with --timeout. {subject.where_to_look}",
            code="NO_RESULT",
        )
    if "exception" in ended:
        return _task_failed(str(ended["exception"]))
    try:
        answer = sample.answer_of(ended.get("result"))
    except (ValueError, RecursionError) as error:
        return failed(
            f"The result is not what the function gives: {error}",
            "See which workers answer for this endpoint",
            code="WRONG_RESULT",
            status=ExitStatus.UNEXPECTED_ANSWER,
        )
    subject.task = {**asdict(answer), "seconds": round(time.monotonic() - begin, 3)}
    return _whose(subject, answer)


def _run(subject: Subject, deadline: float) -> Mapping[str, Any] | None:
    """The task when it has ended; None where that is not in time."""
    requester = subject.requester
    options = {"user_endpoint_config": chosen_options(subject), "user_runtime": dict(subject.user_runtime)}
    with requester.registered(sample.NAME, sample.code()) as function_id:
        try:
            task_id = requester.submit(
                str(subject.id),
                function_id,
                sample.arguments(),
                deadline,
                result_serializers=list(sample.SERIALIZERS),
                **options,
            )
        except NetworkFailure:
            if time.monotonic() < deadline:
                raise
            return None
        return requester.result(task_id, deadline)


def chosen_options(subject: Subject) -> dict[str, Any]:
    """A user's options: those given, else none where none are required, else the first example that fits."""
    if subject.options is not None:
        return dict(subject.options)
    schema = dict(subject.options_schema or {})
    if not schema.get("required"):
        return {}
    for options in example_options(schema):
        if not schema_faults(options, schema):
            return options
    names = ", ".join(map(str, schema["required"]))
    raise ConfigError(
        f"The endpoint's template needs options ({names}), and its schema has no examples that fit",
        hint="Give them with --options, or put `examples` into the schema",
        code="NEEDS_OPTIONS",
    )


def _task_failed(text: str) -> Finding:
    refused = "FUNCTION_NOT_ALLOWED" in text or "not permitted on endpoint" in text
    return failed(
        "The function was submitted, and failed; what came back is below",
        "The endpoint takes some functions only (allowed_functions): look without one, with --no-task"
        if refused
        else "What came back says where; globus-compute-endpoint doctor tries the stages one by one",
        code="FUNCTION_NOT_ALLOWED" if refused else "TASK_FAILED",
        detail=text[-LONGEST_ERROR:],
        mender=Mender.ADMIN,
    )


def _whose(subject: Subject, answer: sample.Answer) -> Finding:
    took = f"{(subject.task or {})['seconds']:.1f} s"
    who = f"{answer.user or 'a user without a name'} ({answer.uid})"
    where = f"on {answer.host}, Python {answer.python}"
    if subject.user is not None and answer.user != subject.user:
        return failed(
            f"{who} ran the function {where}, and it should have been {subject.user}",
            "Look at whom the endpoint runs as; for several users, ask: globus-compute-endpoint idmap explain",
            code="WRONG_USER",
            status=ExitStatus.MAPPING_UNREADABLE,
        )
    return ok(f"{who} ran a function {where} ({took})")


STAGES = (("registered", registered), ("heartbeat", heartbeat), ("task", task))
