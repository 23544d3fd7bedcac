"""The schemas as people get them: the command `schema`, the first lines that `configure` writes, and the hook."""

from __future__ import annotations

import importlib.metadata
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from referencing import Registry
from ruamel.yaml import YAML

from endpoint.cli.main import run
from endpoint.config.bundle import editor_file, names
from endpoint.config.defaults import with_modeline
from endpoint.config.examine import kind_of
from endpoint.config.load import load_yaml
from endpoint.errors import ExitStatus

CHECKOUT = Path(__file__).resolve().parents[2]
MODELINE = re.compile(r"# yaml-language-server: \$schema=(\S+)")


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the program prints."""
    assert run(arguments) == 0
    return capsys.readouterr().out


def test_schema_lists_every_schema_with_its_file(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, "schema")
    listed = json.loads(shown(capsys, "schema", "--json"))

    assert [one["name"] for one in listed] == names()
    for one in listed:
        assert one["file"], f"{one['name']} is not in the table FILES"
        assert Path(one["path"]).is_file()
        assert re.search(rf"^{one['name']} .*{re.escape(one['file'])}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", names())
def test_schema_prints_a_schema_that_needs_no_other_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.loads(shown(capsys, "schema", name))

    Draft202012Validator.check_schema(schema)
    assert Draft202012Validator(schema, registry=Registry()).is_valid(5) is (name == "common")


def test_the_file_for_editors_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    path = Path(shown(capsys, "schema", "user", "--path").strip())

    assert path.is_absolute()
    assert path.read_text() == shown(capsys, "schema", "user")


def test_schema_prints_the_reference_page(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, "schema", "user", "--markdown") == (CHECKOUT / "docs/reference/user.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["usr"], "Did you mean 'user'?"),
        (["frobnicate"], "Name one of: "),
        (["../endpoint"], "Did you mean 'endpoint'?"),
        (["--path"], "Add one of: "),
        (["user", "--path", "--markdown"], "Leave one of them out"),
    ],
)
def test_schema_refuses_what_it_does_not_know(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["schema", *arguments]) == ExitStatus.USAGE
    assert hint in capsys.readouterr().err


@pytest.fixture
def made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """A function that runs `configure` with more arguments, and gives the new endpoint's directory."""

    def make(*arguments: str) -> Path:
        shown(capsys, "-c", str(tmp_path), "configure", "one", *arguments)
        return tmp_path / "one"

    return make


def schema_of(path: Path) -> str:
    """The name of the schema that the first line of a file tells editors."""
    first = MODELINE.fullmatch(path.read_text().splitlines()[0])
    assert first, path
    return Path(first[1]).name.removesuffix(".schema.json")


def test_the_files_of_a_new_endpoint_tell_editors_their_schema(made: Any) -> None:
    folder = made("--display-name", "A name", "--data-template")

    assert schema_of(folder / "config.yaml") == "endpoint"
    assert schema_of(folder / "user_environment.yaml") == "user-environment"
    assert schema_of(folder / "user_config_template.yaml") == "user-template"
    assert not (folder / "user_config_template.yaml.j2").exists()
    assert load_yaml((folder / "config.yaml").read_text(), "x").data == {"display_name": "A name"}
    assert run(["check-config", str(folder)]) == 0


def test_without_the_option_the_template_is_text(made: Any) -> None:
    folder = made()

    assert not (folder / "user_config_template.yaml").exists()
    assert not MODELINE.search((folder / "user_config_template.yaml.j2").read_text())


def test_files_of_ones_own_get_the_line_only_where_they_have_none(made: Any, tmp_path: Path) -> None:
    config, environment, template = (tmp_path / name for name in ("c.yaml", "e.yaml", "t.yaml"))
    config.write_text("# ours\n# yaml-language-server: $schema=/elsewhere.json\ndebug: true\n")
    environment.write_text("A: b # $schema: no line of this kind\n")
    template.write_text('engine:\n  type: "{{ engine }}"\n')
    options = ["--core-config", str(config), "--user-env-config", str(environment), "--template-config", str(template)]
    folder = made("--data-template", *options)

    assert (folder / "config.yaml").read_text() == config.read_text()
    assert schema_of(folder / "user_environment.yaml") == "user-environment"
    assert (folder / "user_environment.yaml").read_text().endswith(environment.read_text())
    assert schema_of(folder / "user_config_template.yaml") == "user-template"
    assert (folder / "user_config_template.yaml").read_text().endswith(template.read_text())


def test_the_line_has_no_space_in_it_wherever_the_package_lies() -> None:
    line = with_modeline("", "endpoint")

    assert line.count(" ") == 2
    assert str(editor_file("endpoint")) in line


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"endpoint_setup": 'module load python\nexport A="b: c"  # d'},
        {"worker_init": "source 'x y/bin/activate'\n"},
        {"requirements": "numpy==2.0\nscipy>=1 # for {{ x }}"},
        {"environment": '~/envs/"x" {{ y }}'},
        {"requirements": "numpy", "worker_init": "export B=$A", "endpoint_setup": "é \\ \t %"},
    ],
    ids=lambda options: "+".join(options) or "nothing",
)
def test_the_data_template_means_the_same_as_the_template_that_is_text(
    options: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "options.json").write_text(json.dumps(options))
    made = []
    for name, more in (("text", []), ("data", ["--data-template"])):
        shown(capsys, "-c", str(tmp_path), "configure", name, *more)
        rendered = shown(
            capsys, *("-c", str(tmp_path), "render-user-config", "-e", name, "-o", str(tmp_path / "options.json"))
        )
        made.append(load_yaml(rendered, name).data)

    by_text, by_data = ({**data, "endpoint_setup": data["endpoint_setup"] or ""} for data in made)
    assert by_text == by_data
    engine = by_data["engine"]
    used = [by_data["endpoint_setup"], engine["provider"]["worker_init"], *engine["worker_environment"].values()]
    assert set(options.values()) <= set(used)


HOOKS = YAML(typ="safe").load((CHECKOUT / ".pre-commit-hooks.yaml").read_text())
(HOOK,) = HOOKS


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("config.yaml", True),
        ("endpoints/gpu/config.yaml", True),
        ("user_config_template.yaml", True),
        ("a/user_config_template.yaml.j2", True),
        ("user_config_template_gpu.yaml.j2", True),
        ("user_config_template_gpu.yaml", True),
        ("user_config_schema.json", True),
        ("user_environment.yaml", True),
        ("identity_mapping_config.json", True),
        ("example_identity_mapping_config.json", True),
        ("lab_identity_mapping_config.json", True),
        ("hub.yaml", True),
        ("site.yml", True),
        ("site.yaml", True),
        ("my-config.yaml", False),
        ("config.yaml.backup", False),
        ("config.yml", False),
        ("config.json", False),
        ("website.yml", False),
        ("config.yaml/readme.md", False),
        ("package.json", False),
    ],
)
def test_the_hook_takes_the_usual_files_and_the_program_knows_what_they_are(path: str, wanted: bool) -> None:
    assert bool(re.search(HOOK["files"], path)) is wanted
    if wanted:
        assert kind_of(Path(path), "") in kind_of.__globals__["KINDS"]


def test_the_hook_runs_a_program_that_the_package_installs() -> None:
    scripts = {script.name for script in importlib.metadata.distribution("compute-endpoint").entry_points}

    assert shlex.split(HOOK["entry"])[0] in scripts
    assert HOOK["language"] == "python"


def test_the_hook_passes_good_files_and_stops_a_commit_of_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("display_name: One\n")
    (tmp_path / "user_environment.yaml").write_text("PATH: /bin\n")
    assert _hook(tmp_path, "config.yaml", "user_environment.yaml").returncode == 0

    (tmp_path / "config.yaml").write_text("display_nam: One\n")
    stopped = _hook(tmp_path, "config.yaml", "user_environment.yaml")
    assert stopped.returncode == ExitStatus.BAD_CONFIG
    assert "config.yaml:1:1" in stopped.stdout + stopped.stderr


def _hook(folder: Path, *files: str) -> subprocess.CompletedProcess[str]:
    """What pre-commit does: the entry's words, then the names of the files, in the repository's top folder."""
    program, *words = shlex.split(HOOK["entry"])
    command = [str(Path(sys.executable).with_name(program)), *words, *files]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
