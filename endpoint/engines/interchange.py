"""Parsl's interchange as a program that ends when it fails.

Left to itself, an interchange that can't start waits in its interpreter's last moments for a thread of pyzmq's that
can't run any more (seen with Python 3.13), and the endpoint waits for it.
"""

from __future__ import annotations

import os
import runpy
import sys
import traceback
from typing import NoReturn

from endpoint.engines.deferred import defer_parsl
from endpoint.engines.memory import keep_freed_memory
from endpoint.engines.quiet import log_what_is_kept
from endpoint.engines.steady import keep_time_steady

PARSLS = "parsl.executors.high_throughput.interchange"


def main() -> NoReturn:
    """Run Parsl's module as a script; its failure goes to standard error."""
    status = 0
    defer_parsl()
    keep_time_steady()
    keep_freed_memory()
    log_what_is_kept()
    try:
        runpy.run_module(PARSLS, run_name="__main__", alter_sys=True)
    except Exception:  # noqa: BLE001 - whatever it was, it is shown, and the process ends
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    main()
