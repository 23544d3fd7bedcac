"""The table of the stages, in the order in which a start and a task go through them."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module

from endpoint.doctor.findings import Finding
from endpoint.doctor.run import Stage
from endpoint.doctor.situation import Situation

SOON_S = 0.5
CLEAN_UP_S = {"interface": 20.0}  # its job has to be cancelled, by a scheduler that may be slow
# name, title, module below endpoint.doctor: each has a generator `check`
_TABLE = (
    ("configuration", "Configuration", "configuration"),
    ("credentials", "Credentials", "credentials"),
    ("service", "Web service", "service"),
    ("broker", "Broker", "broker"),
    ("template", "Template", "template"),
    ("engine", "Engine", "engine"),
    ("scheduler", "Scheduler", "scheduler"),
    ("interface", "Interface", "interface"),
    ("workers", "Worker environment", "workers"),
    ("machine", "Disk and limits", "machine"),
    ("users", "Several users", "users"),
)


def _check(module: str, situation: Situation) -> Iterator[Finding]:
    """Imported when it runs: a part that can't be imported is that stage's failure."""
    yield from import_module(f"endpoint.doctor.{module}").check(situation)


def _stage(name: str, title: str, module: str) -> Stage:
    return Stage(name, title, lambda situation: _check(module, situation), CLEAN_UP_S.get(name, SOON_S))


STAGES = tuple(_stage(*row) for row in _TABLE)
