"""Parsl's interchange as a program that ends when it fails, and that answers commands of ours.

Left to itself, an interchange that can't start waits in its interpreter's last moments for a thread of pyzmq's that
can't run any more (seen with Python 3.13), and the endpoint waits for it.
"""

from __future__ import annotations

import os
import pickle
import sys
import traceback
from typing import Any, NoReturn

from endpoint.engines.deferred import defer_parsl
from endpoint.engines.memory import keep_freed_memory
from endpoint.engines.quiet import log_what_is_kept
from endpoint.engines.steady import keep_time_steady


def main() -> NoReturn:
    """Run Parsl's interchange; its failure goes to standard error."""
    status = 0
    defer_parsl()
    keep_time_steady()
    keep_freed_memory()
    log_what_is_kept()
    try:
        _run(pickle.load(sys.stdin.buffer))  # noqa: S301 - the endpoint's own words, by a pipe
    except Exception:  # noqa: BLE001 - whatever it was, it is shown, and the process ends
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _run(configuration: dict[str, Any]) -> None:
    from parsl.utils import setproctitle

    from endpoint.engines.interchange_places import Placing

    setproctitle("parsl: HTEX interchange")
    Placing(**configuration).start()


if __name__ == "__main__":
    main()
