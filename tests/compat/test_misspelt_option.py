"""A template with a misspelt option: the user is told the key, the line and the right word, and nothing is started."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.hubs import RunningHub, clean_environment, hub_environment
from tests.support.managed import ManagedEndpoint
from tests.support.user_endpoint import BIN

pytestmark = pytest.mark.compat

TEXT = """\
{#- The mistake is in line 6. -#}
engine:
  type: GlobusComputeEngine
{%- if workers is defined %}
{#- more of them #}
  max_workers_per_nod: {{ workers }}
{%- endif %}
  provider: {type: LocalProvider}
"""
DATA = """\
# The mistake is in line 4.
engine:
  type: GlobusComputeEngine
  max_workers_per_nod: "{{ workers }}"
  provider: {type: LocalProvider}
"""
USER = """
import json, sys
from globus_compute_sdk import Client, Executor
from globus_sdk import GlobusAPIError

def one():
    return 1

answer, options = {}, {"workers": 2}
client = Client()
batch = client.create_batch(user_endpoint_config=options)
batch.add(client.register_function(one))
try:
    client.batch_run(sys.argv[1], batch)
except GlobusAPIError as error:
    answer["status"], answer["reason"] = error.http_status, error.raw_json["reason"]
with Executor(endpoint_id=sys.argv[1], user_endpoint_config=options) as executor:
    try:
        executor.submit(one).result(60)
    except Exception as error:
        answer["future"] = str(error)
print(json.dumps(answer))
"""


@pytest.mark.parametrize(
    ("name", "template", "line"),
    [("user_config_template.yaml.j2", TEXT, 6), ("user_config_template.yaml", DATA, 4)],
    ids=["text", "data"],
)
def test_a_misspelt_engine_option_is_a_422_with_its_line_and_starts_no_process(
    hub: RunningHub, peer_sdk_python: Path, tmp_path: Path, name: str, template: str, line: int
) -> None:
    env = {**hub_environment(hub.url), **hub.client(f"misspelt-{line}").env}
    endpoint = ManagedEndpoint(BIN / "globus-compute-endpoint", tmp_path, env)
    with endpoint:
        # An endpoint that finds the mistake itself does not start; this one is made while it runs.
        (endpoint.folder / "user_config_template.yaml.j2").unlink()
        (endpoint.folder / name).write_text(template)
        answer = ask(peer_sdk_python, env, endpoint.endpoint_id)
        children = psutil.Process(endpoint.process.pid).children(recursive=True)

    assert answer["status"] == 422
    for text in (answer["reason"], answer["future"]):
        assert f"{name}:{line}:3: engine.max_workers_per_nod: there is no such option here" in text
        assert "did you mean 'max_workers_per_node'?" in text
    assert not children
    assert not list(tmp_path.glob("uep.*"))


def ask(python: Path, env: dict[str, str], endpoint_id: str) -> dict[str, Any]:
    done = subprocess.run(
        [str(python), "-c", USER, endpoint_id],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return dict(json.loads(done.stdout.splitlines()[-1]))
