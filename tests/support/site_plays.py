"""Running `ansible-playbook` on booted hosts as a person does, and reading what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
PLAY_S = 400.0
_RECAP = re.compile(r"^(\S+) +: (ok=.*)$", re.MULTILINE)
_CHANGED = re.compile(r"^TASK \[(?P<name>.*)\] \**$|^changed: ", re.MULTILINE)


@dataclass(frozen=True)
class Played:
    """How a play ended: its status, all that it printed, its figures for each host, and how long it took."""

    status: int
    output: str
    figures: Mapping[str, Mapping[str, int]]

    @property
    def changed(self) -> int:
        return sum(one["changed"] for one in self.figures.values())

    def changed_tasks(self) -> list[str]:
        """The tasks that changed something, in order, each once."""
        task, found = "", []
        for match in _CHANGED.finditer(self.output):
            if match["name"] is not None:
                task = match["name"]
            elif task not in found:
                found.append(task)
        return found


@dataclass(frozen=True)
class Site:
    """A folder with a site document and what it names; the file of secrets; how Ansible gets to the hosts."""

    folder: Path
    secrets: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def document(self) -> Path:
        return self.folder / "site.yml"

    def play(self, *arguments: str, playbook: str = "site.yml", **variables: Any) -> Played:
        """One run of a playbook; fails if it does not succeed."""
        played = self.try_to_play(*arguments, playbook=playbook, **variables)
        assert played.status == 0, played.output
        return played

    def try_to_play(self, *arguments: str, playbook: str = "site.yml", **variables: Any) -> Played:
        """One run of a playbook, however it ends."""
        process = subprocess.Popen(
            self.command(*arguments, playbook=playbook, **variables),
            cwd=ANSIBLE,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output, _ = process.communicate(timeout=PLAY_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            output, _ = process.communicate(timeout=PLAY_S)
            raise AssertionError(f"ansible-playbook did not end within {PLAY_S:.0f} s:\n{output}") from None
        return Played(process.returncode, output, _figures(output))

    def command(self, *arguments: str, playbook: str = "site.yml", **variables: Any) -> list[str]:
        """What runs a playbook, in the repository's Ansible folder."""
        program = str(Path(sys.executable).with_name("ansible-playbook"))
        extra = ["-e", json.dumps(variables)] if variables else []
        return [program, playbook, "-i", str(self.document), "-e", f"@{self.secrets}", *extra, *arguments]

    def environment(self) -> dict[str, str]:
        """For Ansible's programs: settings of nobody's home directory."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        programs = f"{Path(sys.executable).parent}:{kept.get('PATH', '')}"
        own = {"ANSIBLE_HOME": str(self.folder.parent / "ansible-home"), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
        return {**kept, **own, "PATH": programs, **self.env}


def _figures(output: str) -> dict[str, dict[str, int]]:
    """Of the lines under PLAY RECAP: host -> word -> figure."""
    found = {}
    for host, words in _RECAP.findall(output.rpartition("PLAY RECAP")[2]):
        pairs = (word.split("=") for word in words.split())
        found[host] = {name: int(figure) for name, figure in pairs}
    return found
