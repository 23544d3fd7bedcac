"""Running `ansible-playbook` as a person does, and reading what it says."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ANSIBLE = Path(__file__).resolve().parents[2] / "ansible"
_RECAP = re.compile(r"^localhost +: (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """How one run of a playbook ended: its status, all that it printed, and the figures of its last line."""

    status: int
    output: str
    figures: dict[str, int]

    @property
    def changed(self) -> int:
        return self.figures["changed"]


@dataclass(frozen=True)
class Playbook:
    """A playbook, the folder that stands for the host, and the variables that every run gets."""

    path: Path
    folder: Path
    variables: dict[str, Any]

    def run(self, *arguments: str, **variables: Any) -> Run:
        """One run; `variables` (without the role's prefix) come on top of the playbook's own."""
        own = self.variables | {f"endpoint_{name}": value for name, value in variables.items()}
        done = run_ansible(str(self.path), "-e", json.dumps(own), *arguments, home=self.folder / "ansible-home")
        recap = _RECAP.search(done.stdout)
        pairs = (pair.split("=") for pair in recap[1].split()) if recap else ()
        return Run(done.returncode, done.stdout + done.stderr, {name: int(figure) for name, figure in pairs})


def run_ansible(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    """`ansible-playbook ARGUMENTS` in the repository's Ansible folder, with settings of nobody's home directory."""
    program = Path(sys.executable).with_name("ansible-playbook")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
    environ |= {"ANSIBLE_HOME": str(home), "ANSIBLE_NOCOLOR": "1", "LC_ALL": "C.UTF-8"}
    command = [str(program), *arguments]
    return subprocess.run(command, cwd=ANSIBLE, env=environ, capture_output=True, text=True, timeout=100)


def unprivileged_account() -> str:
    """This process's own account, or another one where that is root's."""
    return "daemon" if os.getuid() == 0 else pwd.getpwuid(os.getuid()).pw_name
