"""The official endpoint's files work with ours as they are, and ours with the official endpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from endpoint.config.defaults import write_endpoint_dir
from endpoint.config.load import load_yaml
from endpoint.config.model import load_manager_config, load_user_config
from endpoint.config.paths import CONFIG, EXAMPLE_IDENTITY_MAPPING, SCHEMA, TEMPLATE
from endpoint.config.rendering import render_user_config
from endpoint.config.schemas import schema_folder

pytestmark = pytest.mark.compat

RUNTIME = {
    "globus_compute_sdk_version": "4.19.0",
    "python": {"version": "3.11.9", "version_tuple": [3, 11, 9], "version_info": [3, 11, 9, "final", 0]},
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"endpoint_setup": "module load python\necho 'a: b' \"c\" # d"},
    {"worker_init": "export A=1\n. /opt/env/bin/activate"},
    {"requirements": "numpy\npandas>=2", "worker_init": "true"},
]
# Names, versions and logs of one run are those of the peer's environment.
UNSET = ("GLOBUS_COMPUTE_CLIENT_ID", "GLOBUS_COMPUTE_CLIENT_SECRET", "PYTHONPATH", "VIRTUAL_ENV")


class OfficialEndpoint:
    """The official command, with a compute directory of its own."""

    def __init__(self, program: Path, directory: Path) -> None:
        self.program = program
        self.directory = directory

    def run(self, *arguments: str) -> str:
        environ = {key: value for key, value in os.environ.items() if key not in UNSET}
        done = subprocess.run(
            [self.program, *arguments],
            env=environ | {"GLOBUS_COMPUTE_USER_DIR": str(self.directory)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def configure(self, name: str, *arguments: str) -> Path:
        self.run("configure", name, "--contact-email", "admin@example.org", *arguments)
        return self.directory / name

    def render(self, template: Path, options: dict[str, Any]) -> Any:
        """What the official endpoint makes of `template`, as data."""
        files = {"user-options": options, "user-runtime": RUNTIME}
        arguments = ["--template", str(template), "--parent-config", os.devnull]
        for name, value in files.items():
            path = self.directory / f"{name}.json"
            path.write_text(json.dumps(value))
            arguments += [f"--{name}", str(path)]
        return load_yaml(self.run("render-user-config", *arguments), "official").data


@pytest.fixture(scope="module")
def official(peer_endpoint_python: Path | str, tmp_path_factory: pytest.TempPathFactory) -> OfficialEndpoint:
    program = Path(peer_endpoint_python).parent / "globus-compute-endpoint"
    return OfficialEndpoint(program, tmp_path_factory.mktemp("official"))


def _render(folder: Path, options: dict[str, Any], template: Path | None = None) -> str:
    template = template or folder / TEMPLATE
    return render_user_config(
        template=template.read_text(),
        template_path=template,
        user_options_schema=json.loads((folder / SCHEMA).read_text()) if (folder / SCHEMA).exists() else None,
        user_options=options,
        user_runtime=RUNTIME,
        parent_config={},
        mapped_identity={"local": {"uname": "alice"}},
    )


def test_what_the_official_endpoint_configures_for_one_user_loads(official: OfficialEndpoint) -> None:
    config = load_manager_config(official.configure("single", "--multi-user", "false") / CONFIG)

    assert config.email == "admin@example.org"
    assert config.public is False


def test_what_the_official_endpoint_configures_for_many_users_loads(official: OfficialEndpoint) -> None:
    policy = "22222222-2222-4222-8222-222222222222"
    folder = official.configure(
        "many", "--multi-user", "true", "--display-name", "A: b", "--auth-policy", policy, "--subscription-id", policy
    )

    config = load_manager_config(folder / CONFIG)

    assert config.display_name == "A: b"
    assert config.public is True
    assert config.identity_mapping_config_path == folder / EXAMPLE_IDENTITY_MAPPING
    assert (config.authentication_policy, config.subscription_id) == (policy, policy)


def test_the_official_template_renders_to_what_the_official_endpoint_makes_of_it(official: OfficialEndpoint) -> None:
    folder = official.configure("template", "--multi-user", "false")
    for options in OPTIONS:
        rendered = _render(folder, options)

        # The official command ends what it prints with a newline, which a block of text at the end takes in.
        assert load_yaml(rendered + "\n", "ours").data == official.render(folder / TEMPLATE, options)
        assert load_user_config(rendered, "ours").engine["type"] == "GlobusComputeEngine"


def test_our_template_renders_to_the_same_with_the_official_endpoint(
    official: OfficialEndpoint, tmp_path: Path
) -> None:
    files = write_endpoint_dir(tmp_path / "ours", multi_user=True, display_name="Ours", email="admin@example.org")
    for options in OPTIONS:
        ours = load_yaml(_render(tmp_path / "ours", options), "ours").data

        assert ours == official.render(files.template, options)


def test_the_official_endpoint_renders_an_endpoint_that_ours_configured(official: OfficialEndpoint) -> None:
    folder = official.directory / "configured-by-ours"
    write_endpoint_dir(folder, multi_user=True, display_name="Ours", email="admin@example.org", high_assurance=True)

    rendered = official.run("render-user-config", "--endpoint", folder.name)

    assert load_user_config(rendered, "official").engine["address"] == "127.0.0.1"


TEMPLATE_FEATURES = """\
{%- set words = "a b" -%}
display_name: {{ text }}
heartbeat_period: {{ number }}
debug: {{ flag }}
endpoint_setup: {{ nothing }}
endpoint_teardown: {{ text | shell_escape }}
allowed_functions: {{ numbers }}
engine:
  type: GlobusComputeEngine
  label: {{ nested.inner.text }}
  provider:
    type: CondorProvider
    environment:
{%- for key, value in mapping.items() %}
      {{ key }}: {{ value }}
{%- endfor %}
    transfer_input_files:
{%- for item in items if item is string %}
      - {{ item }}
{%- endfor %}
    worker_init: |
      echo {{ text }} {{ words }} {{ text | length }} {{ mapping | length }} {{ text == '"gpu"' }} {{ "k" in mapping }}
    project: {{ missing | default("none") }}
"""
FEATURE_OPTIONS = {
    "text": "a 'b' \"c\"\t\\ ä # {} é",
    "number": 31.5,
    "flag": True,
    "nothing": None,
    "numbers": [],
    "nested": {"inner": {"text": "deep: text"}},
    "mapping": {"k": "v: w", "other": "x"},
    "items": ["one", "two: three", 4],
}


def test_the_features_of_templates_mean_the_same_in_both(official: OfficialEndpoint, tmp_path: Path) -> None:
    template = tmp_path / "features.yaml.j2"
    template.write_text(TEMPLATE_FEATURES)

    ours = load_yaml(_render(tmp_path, FEATURE_OPTIONS, template), "ours").data

    assert ours == official.render(template, FEATURE_OPTIONS)


WORDS = """\
yes No ON off y n true True ~ null Null '1' "1" a-b a:b 1,2 2026-01-31
1 -1 +1 0 010 08 0o10 0b11 0x1F 1_000 1_ _1 10:00:00 00:30:00 190:20:30
1.5 1. .5 0. -.5 +.5 1e3 1e+3 12e03 1.5e3 1.5e+3 1:30.5 01:30.5 .inf -.Inf .nan
"""


def test_plain_words_are_read_as_the_official_endpoint_reads_them(peer_endpoint_python: Path | str) -> None:
    text = "".join(f"k{number}: {word}\n" for number, word in enumerate(WORDS.split()))
    program = "import sys, yaml; print({k: repr(v) for k, v in yaml.safe_load(sys.stdin).items()})"

    done = subprocess.run(
        [str(peer_endpoint_python), "-I", "-c", program], input=text, capture_output=True, text=True, check=True
    )

    theirs = eval(done.stdout)
    ours = {key: repr(value) for key, value in load_yaml(text, "x").data.items()}
    dates = {key for key, value in theirs.items() if value.startswith("datetime")}
    assert {key: ours[key] for key in ours if key not in dates} == {
        key: theirs[key] for key in ours if key not in dates
    }
    assert [ours[key] for key in dates] == ["'2026-01-31'"]


VALID_USER_EXAMPLES = sorted(Path(str(schema_folder())).glob("examples/valid/user/*.yaml"))
# Providers that need their service's own library only to be made, our own options, and those that it has dropped.
NOT_FOR_THE_OFFICIAL = (
    "aws",
    "azure",
    "google",
    "kubernetes",
    "slurm",
    "slurm-all",
    "everything",
    "deprecated",
    "deprecated-mpi",
)
LOAD_WITH_THE_OFFICIAL = """
import sys
from globus_compute_endpoint.endpoint.config.utils import load_config_yaml
for path in sys.argv[1:]:
    try:
        config = load_config_yaml(open(path).read())
        print(path, type(config.engine).__name__)
    except Exception as error:
        print(path, "REFUSED", " ".join(str(error).split()))
"""


def test_the_official_endpoint_loads_the_examples_that_are_valid_here(
    official: OfficialEndpoint, peer_endpoint_python: Path | str, tmp_path: Path
) -> None:
    chosen = [path for path in VALID_USER_EXAMPLES if path.stem not in NOT_FOR_THE_OFFICIAL]

    done = subprocess.run(
        [str(peer_endpoint_python), "-c", LOAD_WITH_THE_OFFICIAL, *map(str, chosen)],
        cwd=tmp_path,
        env={**os.environ, "GLOBUS_COMPUTE_USER_DIR": str(official.directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "REFUSED" not in done.stdout, done.stdout
    assert len(done.stdout.splitlines()) == len(chosen)


def test_check_config_has_nothing_to_say_about_what_the_official_endpoint_configures(
    official: OfficialEndpoint,
) -> None:
    folder = official.configure("checked", "--multi-user", "true")
    program = Path(sys.executable).parent / "globus-compute-endpoint"

    done = subprocess.run([program, "check-config", folder], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 5  # configuration, template, schema, environment, identity mapping


LOOP = """\
engine:
  type: GlobusComputeEngine
  provider:
    type: CondorProvider
    environment:
{%- for key, value in environment.items() %}
      {{ key }}: {{ value }}
{%- endfor %}
"""


def test_a_key_that_breaks_out_with_the_official_endpoint_stays_a_key_here(
    official: OfficialEndpoint, tmp_path: Path
) -> None:
    template = tmp_path / "loop.yaml.j2"
    template.write_text(LOOP)
    options = {"environment": {"A: 1\nendpoint_setup": "evil"}}

    assert official.render(template, options)["endpoint_setup"] == "evil"

    ours = load_yaml(_render(tmp_path, options, template), "ours").data
    assert list(ours) == ["engine"]
    assert ours["engine"]["provider"]["environment"] == options["environment"]
