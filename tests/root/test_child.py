"""From fork to exec: nothing is imported on the way, as a user may not be able to read where modules lie."""

from __future__ import annotations

import json
import subprocess
import sys

NOBODY = 65534
PROGRAM = f"""
import os, sys
from endpoint.privileged import child
from endpoint.privileged.become import Identity

class Refusing:
    def find_spec(self, name, path=None, target=None):
        raise ImportError(f"{{name}} is imported too late")

null = os.open(os.devnull, os.O_RDWR)
plan = child.Plan(
    argv=("/bin/true",),
    environment={{}},
    identity=Identity({NOBODY}, {NOBODY}, ()),
    home="/",
    limits=child.read_limits(),
    descriptors=child.Descriptors(document=null, failure=null, credentials=null, audit=null, null=null),
    no_new_privileges=True,
    drop_bounding_set=True,
)
sys.meta_path.insert(0, Refusing())
pid, told = child.start(plan)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(status, os.read(told, 10_000).decode())
"""


def test_the_child_imports_nothing_between_fork_and_exec():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)

    status, _, told = done.stdout.partition(" ")
    assert [list(json.loads(line)) for line in told.splitlines() if line] == [["limits"]], told
    assert status == "0"
