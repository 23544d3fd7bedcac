"""A failure as the text that the submitting user reads."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType

from endpoint.worker.failures import WorkerFailure

_OURS = f"{Path(__file__).parent}/"
_LONGEST = 1024 * 1024
_LONGEST_MESSAGE = 1000


def error_text(error: BaseException) -> tuple[str, dict[str, str]]:
    """`data` and `error_details` of the error result for `error`.

    For a failure of the user's function `data` is its traceback, for one of ours a sentence and the traceback of what
    caused it; frames of ours are left out.
    """
    try:
        if isinstance(error, WorkerFailure):
            text, code, message = _ours(error), error.code, str(error)
        else:
            text, code, message = _traceback(error), "RemoteExecutionError", _in_a_sentence(error)
    except BaseException:  # the exception is of the user's making, and so is its __str__
        text = f"{type(error).__name__}, whose text can't be had"
        code, message = "RemoteExecutionError", text
    return _clean(text, _LONGEST), {"code": code, "user_message": _clean(message, _LONGEST_MESSAGE)}


def _ours(error: WorkerFailure) -> str:
    text = f"{error.code}: {error}"
    return text if error.__cause__ is None else f"{text}\n\n{_traceback(error.__cause__)}"


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, _without_ours(error.__traceback__)))


def _without_ours(found: TracebackType | None) -> TracebackType | None:
    while found is not None and found.tb_frame.f_code.co_filename.startswith(_OURS):
        found = found.tb_next
    return found


def _in_a_sentence(error: BaseException) -> str:
    return f"The function raised {''.join(traceback.format_exception_only(type(error), error)).strip()}"


def _clean(text: str, longest: int) -> str:
    if len(text) > longest:
        half = longest // 2
        text = f"{text[:half]}\n[... {len(text) - 2 * half} characters left out ...]\n{text[-half:]}"
    return text.encode(errors="backslashreplace").decode()
