"""What a worker process needs of us, and of others: next to nothing."""

from __future__ import annotations

import json
import subprocess
import sys

IMPORTS = """
import sys
before = set(sys.modules)
import endpoint.worker.run
import json
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def test_a_worker_imports_the_standard_library_and_itself_alone() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTS], stdout=subprocess.PIPE, check=True, timeout=60)
    imported = json.loads(done.stdout)
    ours = [name for name in imported if name.partition(".")[0] == "endpoint"]
    others = {name.partition(".")[0] for name in imported} - {"endpoint"}
    assert "endpoint.worker.run" in ours
    assert {name for name in ours if name != "endpoint"} == {
        name for name in ours if name == "endpoint.worker" or name.startswith("endpoint.worker.")
    }
    assert others <= sys.stdlib_module_names
