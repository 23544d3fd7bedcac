"""What `check-config` of a new endpoint's files costs, beside loading the libraries that it needs.

    python -m bench.check_config

The program runs as installed, with compiled modules; the commands take turns, so that noise meets all of them.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from endpoint.config.defaults import write_endpoint_dir

ROUNDS = 15
PYTHON = "the interpreter alone"
LIBRARIES = "its libraries: click, jsonschema, ruamel.yaml, jinja2"
ALONE = "check-config --alone config.yaml"
WHOLE = "check-config config.yaml, with the files that belong to it"


def measure(directory: Path, rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds of wall time of each command, `rounds` of each; `directory` is where an endpoint is made."""
    folder = directory / "measured"
    write_endpoint_dir(folder)
    program = [sys.executable, "-m", "endpoint.cli.main", "check-config"]
    commands = {
        PYTHON: [sys.executable, "-c", "pass"],
        LIBRARIES: [sys.executable, "-c", "import click, jinja2, jsonschema, logging, ruamel.yaml"],
        ALONE: [*program, "--alone", str(folder / "config.yaml")],
        WHOLE: [*program, str(folder / "config.yaml")],
    }
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(directory / "compiled")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    taken: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(rounds + 1):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            if number:  # the first compiles
                taken[name].append(time.perf_counter() - began)
    return taken


def main() -> None:
    """Print a line for each command: the shortest and the middle time, and the ratio to the libraries."""
    with tempfile.TemporaryDirectory() as directory:
        taken = measure(Path(directory))
    libraries = statistics.median(taken[LIBRARIES])
    for name, times in taken.items():
        middle = statistics.median(times)
        print(f"{min(times):.2f} s  {middle:.2f} s  {middle / libraries:4.2f} x  {name}")


if __name__ == "__main__":
    main()
