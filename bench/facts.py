"""The machine and the versions of a run, without anything that tells whose machine it is."""

from __future__ import annotations

import datetime
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pika

from bench.sides import Side


def facts_of_run(url: str, official: Side) -> dict[str, Any]:
    """By name, in the order of a report."""
    theirs = {name: _their_version(official.python, name) for name in ("globus-compute-endpoint", "parsl")}
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processors": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "Python": platform.python_version(),
        "RabbitMQ": _broker_version(url),
        "compute-endpoint": version("compute-endpoint"),
        "globus-compute-endpoint": theirs["globus-compute-endpoint"],
        "parsl": version("parsl") if version("parsl") == theirs["parsl"] else f"{version('parsl')}, {theirs['parsl']}",
        "pika": version("pika"),
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _broker_version(url: str) -> str:
    """As the broker introduces itself to its clients; pika keeps that to itself."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        return str(connection._impl.server_properties.get("version", "unknown"))


def _their_version(python: Path, package: str) -> str:
    program = f"from importlib.metadata import version; print(version({package!r}))"
    return subprocess.run([python, "-c", program], check=True, capture_output=True, text=True).stdout.strip()
