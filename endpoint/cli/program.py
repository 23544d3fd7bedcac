"""The way into the program.

Most of its processes are started by other programs, with the same few words: a manager starts user endpoints, and a
batch job the processes of a block. These go past the library that reads command lines, which takes time and memory in
each of them. Anything else, and any trouble, is for `main.py`.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Sequence


def main(args: Sequence[str] | None = None) -> None:
    """Run the command line, and leave with its exit status."""
    words = list(sys.argv[1:] if args is None else args)
    if len(words) == 2 and words[0] == "_start-user-endpoint" and not words[1].startswith("-"):
        status = _user_endpoint(words[1])
        gc.freeze()  # see `main.py`
        sys.exit(status)
    if len(words) > 1 and words[0] == "python-exec" and not words[1].startswith("-"):
        from endpoint.engines.python_exec import run_module

        run_module(words[1], words[2:])
    from endpoint.cli.main import main as command_line

    command_line(args)


def _user_endpoint(name: str) -> int:
    try:
        from endpoint.user.main import main as user_main

        return int(user_main(name))
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # noqa: BLE001 - it is put into words there
        from endpoint.cli.main import explain

        return explain(error)
