"""What the checks know of the endpoint, and what each leaves for those behind it."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import globus_sdk

    from endpoint.config.model import ManagerConfig
    from endpoint.config.trial import Facts
    from endpoint.lease import LeaseState


MOST_SHOWN = 200  # characters of options


class NotTried(Exception):
    """A check can't be done: an earlier one has not left what it needs, or this process may not do it."""

    def __init__(self, reason: str, next_step: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.next_step = next_step


@dataclass(frozen=True)
class Wishes:
    """What the command line asks for.

    user_options: to render the template with, in place of its schema's examples. job: whether a job may be submitted.
    policy: another file than the one that the monitor takes. timeout_s: for each stage.
    """

    user_options: Mapping[str, Any] | None = None
    job: bool = True
    policy: Path | None = None
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Trial:
    """A user endpoint's configuration that the template has made.

    options: the user's, as tried. for_job: whether they are meant for use, and not made up from the schema.
    engine: the block, with its defaults.
    """

    options: Mapping[str, Any]
    for_job: bool
    engine: Mapping[str, Any]

    @property
    def provider(self) -> Mapping[str, Any] | None:
        """The block of the engine's provider; None for an engine that has none."""
        found = self.engine.get("provider")
        return found if isinstance(found, Mapping) else None

    @property
    def summary(self) -> str:
        """The engine in a few words."""
        parts = [str(self.engine.get("type"))]
        if self.provider:
            parts.append(str(self.provider.get("type")))
        return " on ".join(parts)

    @property
    def label(self) -> str:
        """The same, with the options that make it what it is."""
        return f"{self.summary} ({shown(self.options)})" if self.options else self.summary


def shown(options: Mapping[str, Any]) -> str:
    """A user's options for a sentence."""
    if not options:
        return "without options"
    text = f"with {dict(options)!r}"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


@dataclass(frozen=True)
class JobReport:
    """What a probe job has told. report: see `probe.py`."""

    trial: Trial
    report: Mapping[str, Any]
    clock_offset_s: float | None


@dataclass
class Situation:
    """Shared by all checks of one run; a check writes what it finds out.

    facts: asked for what a template is tried with. environ: this process's, with `user_environment.yaml` from the
    template on. stopping: set when the person has seen enough, or a stage's time is over.
    """

    folder: Path
    compute_dir: Path
    environ: dict[str, str]
    facts: Callable[[], Facts]
    wishes: Wishes
    stopping: threading.Event = field(default_factory=threading.Event)
    deadline: float = field(default_factory=lambda: time.monotonic() + 3600.0)  # of the stage that runs
    progress: Callable[[str], None] = lambda _text: None
    lease: LeaseState | None = None
    config: ManagerConfig | None = None
    app: globus_sdk.GlobusApp | None = None
    service_url: str | None = None
    trials: list[Trial] = field(default_factory=list)
    buildable: list[Trial] = field(default_factory=list)
    schedulers_ok: dict[str, bool] = field(default_factory=dict)
    reports: list[JobReport] = field(default_factory=list)
    leftovers: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)  # what is undone at the end

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def of_another(self) -> bool:
        """Whether this is root, and the directory is another user's, whose programs root must not run."""
        return os.geteuid() == 0 and self.folder.stat().st_uid != 0

    @property
    def left_s(self) -> float:
        """How long the stage that runs still has, at least a moment."""
        return max(0.1, self.deadline - time.monotonic())

    def left_for(self, most_s: float) -> float:
        """How long one step may take at the most, so that the stage ends by itself and in time."""
        return max(0.1, min(most_s, self.left_s - 0.5))

    @property
    def multi_user(self) -> bool:
        """Whether the endpoint maps people to local users."""
        return self.config is not None and self.config.identity_mapping_config_path is not None

    def needed_config(self) -> ManagerConfig:
        """The manager's configuration; raises NotTried."""
        if self.config is None:
            raise NotTried("the endpoint's configuration can't be used")
        return self.config
