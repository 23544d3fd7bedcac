"""Parsl's processes, without the log records that nobody will see.

Parsl's function for log files lets its loggers make every record, and its files keep the important ones: with several
for each task, that is a good part of what a small task costs.
"""

from __future__ import annotations

import logging
from typing import Any

PARSL = "parsl"


def log_what_is_kept(*, least: int = logging.NOTSET) -> None:
    """To be called before Parsl's module runs. Its log files get `least` or what is asked for, and nothing is made
    below that; who asks for DEBUG gets all.
    """
    import parsl.log_utils

    parsls = parsl.log_utils.set_file_logger

    def set_file_logger(filename: str, *, name: str = PARSL, level: int = logging.DEBUG, **options: Any) -> Any:
        kept = level if level <= logging.DEBUG else max(level, least)
        undo = parsls(filename, name=name, level=kept, **options)
        logging.getLogger(name).setLevel(kept)
        return undo

    parsl.log_utils.set_file_logger = set_file_logger
