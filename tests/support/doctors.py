"""`globus-compute-endpoint doctor`, run on an endpoint of the test's own, and what it says."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.hubs import clean_environment

PROGRAM = str(Path(sys.executable).with_name("globus-compute-endpoint"))
LOCAL = {
    "type": "GlobusComputeEngine",
    "provider": {"type": "LocalProvider", "init_blocks": 0, "min_blocks": 0, "max_blocks": 1},
}
SCHEMA = {"$schema": "https://json-schema.org/draft/2020-12/schema", "type": "object", "properties": {}}


@dataclass(frozen=True)
class Examination:
    """What doctor has printed with `--json`, and its exit status."""

    status: int
    document: dict[str, Any]

    def stage(self, name: str) -> dict[str, Any]:
        (found,) = [stage for stage in self.document["stages"] if stage["name"] == name]
        return found

    def findings(self, name: str, verdict: str | None = None) -> list[dict[str, Any]]:
        return [one for one in self.stage(name)["findings"] if verdict in (None, one["verdict"])]

    def failure(self, name: str) -> dict[str, Any]:
        """The stage's only failure."""
        (found,) = self.findings(name, "failed")
        return found

    def with_fact(self, name: str, fact: str) -> dict[str, Any]:
        """The stage's only finding with a fact of that name."""
        (found,) = [one for one in self.findings(name) if fact in one["facts"]]
        return found

    def verdicts(self) -> dict[str, str]:
        return {stage["name"]: stage["verdict"] for stage in self.document["stages"]}

    def __str__(self) -> str:
        lines = [
            f"{stage['name']}: {one['verdict']}: {one['words']} {one['detail']}"
            for stage in self.document["stages"]
            for one in stage["findings"]
        ]
        return "\n".join([f"status {self.status}", *lines])


@dataclass
class Patient:
    """One endpoint's directory, `lab`, and the environment in which doctor looks at it."""

    directory: Path
    variables: dict[str, str]
    name: str = "lab"
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        return self.directory / self.name

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment({"GLOBUS_COMPUTE_USER_DIR": str(self.directory), **self.variables})

    def configure(self, engine: dict[str, Any] | None = None, **config: Any) -> None:
        """Write its files; `engine` is what its template says."""
        self.folder.mkdir(parents=True, mode=0o700, exist_ok=True)
        (self.folder / "config.yaml").write_text(json.dumps(config))
        (self.folder / "user_config_template.yaml").write_text(json.dumps({"engine": engine or LOCAL}))
        (self.folder / "user_config_schema.json").write_text(json.dumps(SCHEMA))

    def run(self, *arguments: str, timeout: float = 100) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, "doctor", self.name, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )

    def examine(self, *arguments: str, timeout: float = 100) -> Examination:
        done = self.run("--json", *arguments, timeout=timeout)
        assert done.stdout.startswith("{"), done.stderr
        document = json.loads(done.stdout)
        assert "stages" in document, document
        return Examination(done.returncode, document)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Doctor as a process that the test can interrupt."""
        process = subprocess.Popen(
            [PROGRAM, "doctor", self.name, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def end(self) -> None:
        for process in self.started:
            if process.poll() is None:
                process.kill()
            process.communicate()


def local(**provider: Any) -> dict[str, Any]:
    """An engine with blocks on this machine."""
    return {**LOCAL, "provider": {**LOCAL["provider"], **provider}}


def everything_below(folder: Path) -> dict[str, tuple[int, float]]:
    """Each file with its size and time, to see that nothing has changed."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }
