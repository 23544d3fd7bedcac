"""`check-config` as people, editors, Ansible and other programs run it."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from endpoint.cli.check import KIND_NAMES
from endpoint.config.defaults import write_endpoint_dir
from endpoint.config.examine import KINDS
from endpoint.config.schemas import schema_folder
from endpoint.errors import ExitStatus

PROGRAM = [str(Path(sys.executable).parent / "globus-compute-endpoint")]
EXAMPLES = Path(str(schema_folder())) / "examples"
SEVEN = """\
display_nam: x
debug: maybe
amqp_port: 70000
pam:
  enabel: true
heartbeat_period: 30
heartbeat_period: 40
admins: [22222222-2222-4222-8222-222222222222, nobody]
public: !!python/name:os.system x
"""
PLACES = [(1, 1), (2, 1), (3, 1), (5, 3), (7, 1), (8, 48), (9, 9)]


def check(*arguments: Any, stdin: str | None = None, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "GLOBUS_COMPUTE_USER_DIR": str(folder)} if folder else None
    command = [*PROGRAM, "check-config", *map(str, arguments)]
    return subprocess.run(
        command, input=stdin, env=environment, capture_output=True, text=True, timeout=100, check=False
    )


def reports(*arguments: Any, **options: Any) -> tuple[int, list[dict[str, Any]]]:
    done = check("--json", *arguments, **options)
    return done.returncode, json.loads(done.stdout)["files"]


def test_seven_mistakes_are_seven_problems_each_at_its_place(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(SEVEN)

    status, (report,) = reports("--alone", path)

    assert status == ExitStatus.BAD_CONFIG
    assert [(problem["line"], problem["column"]) for problem in report["problems"]] == PLACES
    lines = check("--alone", path).stderr.splitlines()
    assert len(lines) == 7
    assert lines[0] == f"{path}:1:1: display_nam: there is no such option here (did you mean 'display_name'?)"


def test_the_line_in_question_is_underlined_on_a_terminal(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("display_name: x\ndebgu: true\n")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*PROGRAM, "check-config", "--no-color", "--alone", str(path)], stderr=theirs, stdout=subprocess.DEVNULL
    )
    os.close(theirs)
    try:
        assert process.wait(60) == ExitStatus.BAD_CONFIG
        shown = os.read(ours, 10_000).decode().replace("\r\n", "\n")
    finally:
        os.close(ours)

    assert shown.splitlines()[1:] == ["    2 | debgu: true", "      | ^^^^^"]


@pytest.mark.parametrize("kind", sorted(path.name for path in (EXAMPLES / "invalid").iterdir()))
def test_each_example_gets_the_answer_that_its_folder_says(kind: str) -> None:
    for folder, valid in (("valid", True), ("invalid", False)):
        files = sorted((EXAMPLES / folder / kind).glob("*.yaml"))
        status, found = reports(*files)

        answers = {report["file"]: report["valid"] for report in found if report["file"] in map(str, files)}
        assert answers == dict.fromkeys(map(str, files), valid)
        assert status == (ExitStatus.OK if valid else ExitStatus.BAD_CONFIG)
        assert {report["kind"] for report in found} >= {"template" if kind == "user-template" else kind}


@pytest.mark.parametrize(
    "folder", sorted((EXAMPLES / "valid" / "endpoint-directory").iterdir()), ids=lambda path: path.name
)
def test_a_sites_example_directory_is_valid_with_all_its_files(folder: Path) -> None:
    status, found = reports(folder)

    assert status == ExitStatus.OK, found
    assert {report["kind"] for report in found} == {"endpoint", "template", "user-options-schema"}
    assert not [problem for report in found for problem in report["problems"]]


@pytest.fixture
def one(tmp_path: Path) -> Path:
    """A directory as `configure` makes it, called `one`."""
    write_endpoint_dir(tmp_path / "one", multi_user=True, display_name="One", email="a@example.org")
    return tmp_path / "one"


def test_an_endpoints_name_stands_for_all_its_files(one: Path) -> None:
    status, found = reports("one", folder=one.parent)

    assert status == ExitStatus.OK
    kinds = ["endpoint", "identity-mapping", "template", "user-environment", "user-options-schema"]
    assert sorted(report["kind"] for report in found) == kinds


def test_the_files_that_a_configuration_names_are_checked_with_it(one: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.yaml").write_text("engine: {type: ThreadPoolEngine, max_wrokers: 1}\n")
    (tmp_path / "map.json").write_text(
        '[{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": [\n'
        '{"source": "{username}", "match": "(", "output": "{0}"}]}]'
    )
    (one / "config.yaml").write_text(
        f"user_config_template_path: {tmp_path}/elsewhere.yaml\nidentity_mapping_config_path: ../map.json\n"
    )

    status, found = reports(one / "config.yaml")

    told = {
        (Path(report["file"]).name, problem["line"], problem["path"])
        for report in found
        for problem in report["problems"]
        if problem["severity"] == "error"
    }
    assert status == ExitStatus.BAD_CONFIG
    assert told == {("elsewhere.yaml", 1, "engine.max_wrokers"), ("map.json", 2, "[0].mappings[0].match")}


def test_a_file_that_is_named_and_not_there_is_a_problem_unless_the_file_is_looked_at_alone(one: Path) -> None:
    (one / "config.yaml").write_text("display_name: x\nuser_config_template_path: missing.yaml\n")

    status, found = reports(one / "config.yaml")

    assert status == ExitStatus.BAD_CONFIG
    assert [(problem["line"], problem["path"]) for problem in found[0]["problems"]] == [
        (2, "user_config_template_path")
    ]
    assert check("--alone", one / "config.yaml").returncode == ExitStatus.OK


def test_a_template_is_tried_with_the_examples_of_its_schema(one: Path) -> None:
    (one / "user_config_template.yaml.j2").write_text(
        "engine:\n  type: ThreadPoolEngine\n{%- if big %}\n  max_wrokers: {{ workers }}\n{%- endif %}\n"
    )
    (one / "user_config_schema.json").write_text(
        json.dumps(
            {
                "properties": {
                    "big": {"type": "boolean"},
                    "workers": {"type": "integer", "minimum": 2},
                    "old": {"type": "string"},
                },
                "required": ["big", "workers"],
                "additionalProperties": False,
                "examples": [{"big": False, "workers": 3}],
            }
        )
    )

    done = check(one)

    assert done.returncode == ExitStatus.BAD_CONFIG
    assert "user_config_template.yaml.j2:4:3: engine.max_wrokers: there is no such option" in done.stderr
    assert "user_config_schema.json:1:" in done.stderr
    assert "warning: properties.old: the template does not use this option" in done.stderr


@pytest.mark.parametrize("path", sorted((EXAMPLES / "valid" / "site").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_sites_document_is_checked_with_the_files_that_it_names(path: Path) -> None:
    status, found = reports("--kind", "site", path)

    assert status == ExitStatus.OK, found
    named = {report["kind"] for report in found[1:]}
    assert named >= ({"template", "identity-mapping"} if path.stem in ("multi-user", "everything") else set())


def test_a_mistake_in_a_file_that_a_sites_document_names_is_found(tmp_path: Path) -> None:
    shutil.copytree(EXAMPLES / "valid" / "site", tmp_path / "site")
    (tmp_path / "site" / "files" / "identity_mapping.json").write_text('[{"DATA_TYPE": "expression"}]')

    status, found = reports("--kind", "site", tmp_path / "site" / "multi-user.yaml")

    assert status == ExitStatus.BAD_CONFIG
    assert [report["kind"] for report in found if not report["valid"]] == ["identity-mapping"]


def test_an_option_without_an_example_that_fits_is_a_note_and_no_mistake(one: Path) -> None:
    (one / "user_config_template.yaml.j2").write_text(
        "display_name: {{ time | default('x') }}\nengine:\n  type: ThreadPoolEngine\n"
    )
    (one / "user_config_schema.json").write_text('{"properties": {"time": {"type": "string", "pattern": "^[0-9]+$"}}}')

    status, found = reports(one)

    assert status == ExitStatus.OK
    (template,) = [report for report in found if report["kind"] == "template"]
    assert "not tried with time" in template["notes"][0]


def test_standard_input_is_read(one: Path) -> None:
    assert check("-", stdin="debug: true\n").returncode == ExitStatus.OK
    done = check("-", stdin="engine:\n  type: ThreadPoolEngin\n")
    assert done.returncode == ExitStatus.BAD_CONFIG
    assert "<stdin>:2:3: engine.type: must be one of" in done.stderr
    assert check("--kind", "user-environment", "-", stdin="PATH: /bin\n").returncode == ExitStatus.OK


def test_deprecated_options_are_warnings_that_name_the_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "rendered.yaml"
    path.write_text("engine:\n  type: GlobusComputeEngine\n  strategy: none\n")

    done = check(path)

    assert done.returncode == ExitStatus.OK
    assert (
        "3:3: warning: engine.strategy: this option is deprecated; write engine.job_status_kwargs.strategy"
        in done.stderr
    )


@pytest.mark.parametrize(
    ("arguments", "status"),
    [(["nowhere.yaml"], ExitStatus.USAGE), (["nobody"], ExitStatus.BAD_CONFIG), ([], ExitStatus.USAGE)],
)
def test_what_is_not_there_is_said_in_a_sentence(arguments: Sequence[str], status: int, tmp_path: Path) -> None:
    done = check(*arguments, folder=tmp_path)

    assert done.returncode == status
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_the_command_knows_the_kinds_that_there_are() -> None:
    assert set(KIND_NAMES) == set(KINDS)


def test_an_endpoint_with_a_broken_template_does_not_start(one: Path) -> None:
    (one / "config.yaml").write_text("display_name: x\n")
    (one / "user_config_template.yaml.j2").write_text("engine:\n  type: {{ type\n")
    (one / "user_environment.yaml").write_text("A: [1]\n")
    environment = {**os.environ, "GLOBUS_COMPUTE_USER_DIR": str(one.parent)}

    done = subprocess.run(
        [*PROGRAM, "start", "one"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == ExitStatus.BAD_CONFIG
    assert "user_config_template.yaml.j2:" in done.stderr
    assert "user_environment.yaml:1:1: A: must be" in done.stderr


def test_a_manager_loads_the_validators_once() -> None:
    program = (
        "import sys, endpoint.cli.start, endpoint.manager.service, endpoint.config.examine\n"
        "import endpoint.config.schemas as s\n"
        "validators = [name for name in sys.modules if name.endswith('jsonschema.validators')]\n"
        "assert validators == ['jsonschema.validators'], validators\n"
        "assert s.validator('endpoint') is s.validator('endpoint')\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], capture_output=True, text=True, check=True, timeout=60
    )

    assert sum(line.endswith(" jsonschema.validators") for line in done.stderr.splitlines()) == 1
