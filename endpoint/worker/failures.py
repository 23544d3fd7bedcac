"""What can go wrong with a task before, around and after the user's own function; the class is the error's code."""

from __future__ import annotations


class WorkerFailure(Exception):
    """`str()` is a sentence for the user. `Exception.__cause__`, where there is one, is worth showing too."""

    @property
    def code(self) -> str:
        return type(self).__name__


class CouldNotExecuteUserTaskError(WorkerFailure):
    """The worker was given something that is not a task, or has no place to run it in."""


class DeserializationError(WorkerFailure):
    """The function or its arguments can't be read here."""


class SerializationError(WorkerFailure):
    """The function's value can't be written."""


class MaxResultSizeExceeded(WorkerFailure):
    """The function's value, once written, is too long."""


class TaskTimeout(WorkerFailure):
    """The function ran longer than the environment allows."""
