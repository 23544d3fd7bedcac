"""What the privileged processes load: the standard library, our failures, lines for the journal, and themselves."""

from __future__ import annotations

import json
import subprocess
import sys

IMPORTS = """
import sys
before = set(sys.modules)
import endpoint.privileged.monitor
import endpoint.privileged.audit_tasks
import json
print(json.dumps(sorted(set(sys.modules) - before)))
"""
NEVER = {"ssl", "http", "yaml", "ruamel", "asyncio", "subprocess", "multiprocessing", "threading", "concurrent"}


def imported(program: str) -> list[str]:
    done = subprocess.run([sys.executable, "-I", "-c", program], stdout=subprocess.PIPE, check=True, timeout=60)
    return list(json.loads(done.stdout))


def test_the_monitor_imports_the_standard_library_and_itself_alone() -> None:
    found = imported(IMPORTS)
    ours = {name for name in found if name.partition(".")[0] == "endpoint"} - {"endpoint", "endpoint.privileged"}
    others = {name.partition(".")[0] for name in found} - {"endpoint"}

    assert {name for name in ours if not name.startswith("endpoint.privileged.")} == {
        "endpoint.errors",
        "endpoint.journal",
    }
    assert others <= sys.stdlib_module_names


def test_the_monitor_loads_nothing_for_networks_threads_or_programs() -> None:
    found = imported(IMPORTS.replace("import endpoint.privileged.audit_tasks\n", ""))

    assert {name.partition(".")[0] for name in found} & NEVER == set()
