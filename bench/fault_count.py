"""What became of every task of a run, as figures."""

from __future__ import annotations

import re
import socket
import statistics
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from bench.fault_client import Answer
from bench.fault_endpoint import command_line
from bench.fault_run import Run
from bench.fault_work import Item, Notes
from tests.support.user_endpoint import unpacked

LONGEST_TEXT = 200
_CHANGING = (
    (re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?([+-]\d\d:?\d\d|Z)?"), "TIME"),
    (re.compile(r"(/[\w.+-]+){2,}"), "PATH"),
    (re.compile(r"\b\d+(\.\d+)?\b"), "N"),
)


@dataclass
class Outcome:
    """One run. Times in seconds, from the fault; None for what did not happen.

    tasks: that had to be answered. answered: with their value. errors: (code and text) -> how many tasks got it.
    never_started, finished: of the tasks that got an error, those that never ran, and those that had run to their end.
    lost: not answered at all; lost_started and lost_finished of them had begun, and had ended.
    run_twice: begun more than once. doubles: answered more than once, with the same message or another one.
    expected_errors: of the messages that are meant to fail, those that were told so.
    heartbeat_s: to the first heartbeat after it. last_answer_s: to the last answer.
    error_after_start_s: from the new start to the errors that followed: median and worst.
    left_running: processes that run on ten seconds after the fault has ended the endpoint.
    left_after_stop: the same after the polite stop at the end of the run.
    may_run_twice: whether the endpoint was told that it may.
    """

    fault: str
    engine: str
    endpoint: str
    tasks: int
    task_seconds: float
    answered: int = 0
    wrong_values: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    expected_errors: int = 0
    never_started: int = 0
    finished: int = 0
    lost: int = 0
    lost_started: int = 0
    lost_finished: int = 0
    run_twice: int = 0
    doubles_same: int = 0
    doubles_different: int = 0
    unknown_answers: int = 0
    heartbeat_s: float | None = None
    last_answer_s: float | None = None
    error_after_start_s: tuple[float, float] | None = None
    terminate_s: float | None = None
    starts_refused: int = 0
    ended_by_itself: int = 0
    left_running: int = 0
    left_after_stop: int = 0
    left_commands: list[str] = field(default_factory=list)
    may_run_twice: bool = False
    failure: str = ""

    @property
    def errors_told(self) -> int:
        return sum(self.errors.values())

    @property
    def good(self) -> bool:
        """Nothing lost, nothing run twice, no answer wrong."""
        twice = self.run_twice and not self.may_run_twice
        return not (self.failure or self.lost or twice or self.wrong_values or self.doubles_different)


def count(run: Run, outcome: Outcome) -> Outcome:
    """Fill in what became of a run's tasks."""
    notes = run.notes
    answers: dict[str, list[Answer]] = defaultdict(list)
    for answer in run.client.answers:
        answers[answer.task_id].append(answer)
    for item in run.items:
        if item.task_id:
            _count_task(outcome, item, answers.pop(item.task_id, []), notes)
    outcome.tasks = len(run.expected)
    outcome.unknown_answers = len(answers)
    _count_times(run, outcome)
    outcome.starts_refused, outcome.ended_by_itself = run.starts_refused, run.ends
    outcome.left_running = len(run.left_running)
    outcome.left_after_stop = len(run.left_after_stop)
    left = {**run.left_running, **run.left_after_stop}
    outcome.left_commands = sorted(anonymous(command_line(pid)) for pid in left)
    return outcome


def _count_task(outcome: Outcome, item: Item, answers: list[Answer], notes: Notes) -> None:
    begun, ended = notes.starts[item.number], notes.ends[item.number]
    outcome.run_twice += begun > 1
    if not answers:
        outcome.lost += 1
        outcome.lost_started += begun > 0
        outcome.lost_finished += ended > 0
        return
    _count_doubles(outcome, answers)
    result = answers[0].result
    if result.error_details is None:
        outcome.answered += 1
        outcome.wrong_values += item.kind != "task" or unpacked(result.data) != item.number
    elif item.kind != "task":
        outcome.expected_errors += 1
    else:
        text = f"{result.error_details.code}: {_gist(result.data)}"
        outcome.errors[text] = outcome.errors.get(text, 0) + 1
        outcome.never_started += begun == 0
        outcome.finished += ended > 0


def _count_doubles(outcome: Outcome, answers: list[Answer]) -> None:
    fresh = [answer for answer in answers if not answer.seen_before]
    if len(fresh) > 1:
        different = len({(answer.result.data, answer.result.is_error) for answer in fresh}) > 1
        outcome.doubles_different += different
        outcome.doubles_same += not different


def _count_times(run: Run, outcome: Outcome) -> None:
    times = run.times
    if times.up is not None:
        outcome.heartbeat_s = round(times.up - times.fault, 2)
    if run.client.answers:
        outcome.last_answer_s = round(max(answer.at for answer in run.client.answers) - times.fault, 2)
    if times.back is not None:
        after = [
            answer.at - times.back
            for answer in run.client.answers
            if answer.result.error_details is not None and answer.at > times.back
        ]
        if after:
            outcome.error_after_start_s = (round(statistics.median(after), 2), round(max(after), 2))
    if run.terminate_s is not None:
        outcome.terminate_s = round(run.terminate_s, 2)


def _gist(text: str) -> str:
    """An error's sentence: the first line, or of a traceback the last one."""
    lines = [line.strip() for line in text.splitlines() if line.strip(" -\n")] or [""]
    line = lines[-1] if any(line.startswith("Traceback") for line in lines) else lines[0]
    return anonymous(line)


def anonymous(text: str) -> str:
    """A text without what differs from run to run, and without this machine's names and paths."""
    text = re.sub(rf"\b{re.escape(socket.gethostname())}\b", "HOST", text)
    for pattern, word in _CHANGING:
        text = pattern.sub(word, text)
    return text[:LONGEST_TEXT]


def most_frequent(errors: dict[str, int]) -> str:
    """The kinds of errors with their numbers, the most frequent first."""
    return "; ".join(f"{number} x {text}" for text, number in Counter(errors).most_common())
