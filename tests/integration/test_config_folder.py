"""What `configure` writes, on a real file system, and what our readers and a real shell make of it."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from endpoint.config.defaults import EndpointFiles, Sources, write_endpoint_dir
from endpoint.config.load import load_yaml
from endpoint.config.model import load_manager_config, load_user_config
from endpoint.config.paths import CONFIG
from endpoint.config.rendering import render_user_config
from endpoint.config.schemas import schema_folder
from endpoint.errors import ConfigError, EndpointError


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def _engine(files: EndpointFiles, options: dict[str, Any], runtime: dict[str, Any] | None = None) -> dict[str, Any]:
    rendered = render_user_config(
        template=files.template.read_text(),
        template_path=files.template,
        user_options_schema=json.loads(files.schema.read_text()),
        user_options=options,
        user_runtime=runtime or {},
        parent_config={},
        mapped_identity=None,
    )
    return load_user_config(rendered, "x").engine


def _worker_init(files: EndpointFiles, options: dict[str, Any]) -> str:
    text: str = _engine(files, options)["provider"]["worker_init"]
    return text


def test_a_directory_for_one_user_is_private_and_works_as_it_is(tmp_path: Path) -> None:
    files = write_endpoint_dir(tmp_path / "new" / "one", display_name="O: 'ne'", email="a@example.org")

    assert _mode(tmp_path / "new" / "one") == 0o700
    assert {_mode(path) for path in (files.config, files.template, files.schema, files.environment)} == {0o600}
    assert files.identity_mapping is None
    config = load_manager_config(files.config)
    assert (config.display_name, config.email, config.public) == ("O: 'ne'", "a@example.org", False)
    assert load_yaml(files.environment.read_text(), "x").data is None
    assert _worker_init(files, {}) == ""


def test_a_directory_for_many_users_has_a_mapping_and_a_template_that_others_can_read(tmp_path: Path) -> None:
    files = write_endpoint_dir(tmp_path / "many", multi_user=True, high_assurance=True)

    config = load_manager_config(files.config)

    assert files.identity_mapping is not None
    assert config.identity_mapping_config_path == files.identity_mapping
    assert config.audit_log_path is None, "it is the policy's"
    assert config.public and config.high_assurance
    assert _mode(files.template) == 0o644
    assert json.loads(files.identity_mapping.read_text())[0]["mappings"]


def test_sources_are_copied_and_a_configuration_keeps_its_comments(tmp_path: Path) -> None:
    source = tmp_path / "source.yaml"
    source.write_text("# Ours\nengine: {type: ThreadPoolEngine}\npublic: false  # hidden\ndebug: yes\n")

    files = write_endpoint_dir(
        tmp_path / "copy", multi_user=True, display_name="x", sources=Sources(config=source, template=source)
    )

    text = files.config.read_text()
    assert "# Ours\n" in text
    assert "public: false  # hidden" in text
    assert "engine" not in text
    config = load_manager_config(files.config)
    assert (config.public, config.debug, config.display_name) == (False, True, "x")
    assert files.template.read_text() == source.read_text()


def test_a_directory_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").write_text("x")

    with pytest.raises(ConfigError, match="already"):
        write_endpoint_dir(tmp_path / "there")

    assert [path.name for path in (tmp_path / "there").iterdir()] == ["mine"]


@pytest.mark.parametrize("content", ["- a list\n", "a: [", "a: 1\na: 2\n"])
def test_a_source_that_is_no_configuration_leaves_nothing_behind(tmp_path: Path, content: str) -> None:
    source = tmp_path / "source.yaml"
    source.write_text(content)

    with pytest.raises(ConfigError):
        write_endpoint_dir(tmp_path / "new", sources=Sources(config=source))

    assert not (tmp_path / "new").exists()


def test_a_missing_source_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        write_endpoint_dir(tmp_path / "new", sources=Sources(template=tmp_path / "none"))

    assert not (tmp_path / "new").exists()


def test_an_endpoint_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_manager_config(tmp_path / "none" / CONFIG)

    assert "configure none" in caught.value.failure.hint


def test_an_endpoint_without_a_configuration_file_is_all_defaults(tmp_path: Path) -> None:
    assert load_manager_config(tmp_path / CONFIG).heartbeat_period == 30


def test_a_configuration_that_is_a_program_or_not_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / CONFIG).write_bytes(b"display_name: \xff\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_manager_config(tmp_path / CONFIG)

    (tmp_path / "config.py").write_text("config = 1")
    with pytest.raises(ConfigError, match="Python"):
        load_manager_config(tmp_path / CONFIG)


def test_a_configuration_of_the_older_kind_is_refused_with_the_way_out(tmp_path: Path) -> None:
    config = tmp_path / CONFIG
    config.write_text("display_name: null\nengine:\n  type: GlobusComputeEngine\n  provider: {type: LocalProvider}\n")

    with pytest.raises(ConfigError) as caught:
        load_manager_config(config)

    assert f"migrate-to-template-capable {tmp_path.name}" in caught.value.failure.hint


def test_a_template_may_include_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "part.yaml.j2").write_text("display_name: {{ x }}\n")

    rendered = render_user_config(
        template="engine: {type: ThreadPoolEngine}\n{% include 'part.yaml.j2' %}",
        template_path=tmp_path / "template.yaml.j2",
        user_options_schema=None,
        user_options={"x": "a: b"},
        user_runtime={},
        parent_config={},
        mapped_identity=None,
    )

    assert load_user_config(rendered, "x").display_name == "a: b"


AWKWARD = "echo 'a' \"$HOME\" `true` \\\\ \\n # {{ x }}\n  indented: yes\n"


def test_worker_init_reaches_the_shell_as_the_user_wrote_it(tmp_path: Path) -> None:
    files = write_endpoint_dir(tmp_path / "e")

    assert _worker_init(files, {"worker_init": AWKWARD}) == AWKWARD


@pytest.mark.parametrize("data_template", [False, True])
def test_the_users_python_and_packages_reach_the_workers_environment_as_they_are(
    tmp_path: Path, data_template: bool
) -> None:
    files = write_endpoint_dir(tmp_path / "e", data_template=data_template)
    requirements = "numpy>=2  # 'quoted'\n$(touch oops); `touch oops`\nback\\slash"
    runtime = {"python": {"version": "3.13.1"}, "globus_compute_sdk_version": "4.19.0"}

    wanted = _engine(files, {"requirements": requirements, "environment": "/a b"}, runtime)["worker_environment"]

    assert wanted == {
        "python": "3.13.1",
        "sdk": "4.19.0",
        "requirements": requirements,
        "path": "/a b",
        "directory": "~/.globus_compute/environments",
        "always": False,
    }


@pytest.mark.parametrize("runtime", [{}, {"python": None}, {"python": "3.13"}, {"python": {"version": None}}])
def test_the_default_template_works_for_clients_that_say_little_of_themselves(tmp_path: Path, runtime: Any) -> None:
    files = write_endpoint_dir(tmp_path / "e")

    assert not _engine(files, {}, runtime)["worker_environment"]["python"]


def test_a_version_that_is_none_is_refused_before_anything_starts(tmp_path: Path) -> None:
    files = write_endpoint_dir(tmp_path / "e")

    with pytest.raises(EndpointError, match=r"python: must be a version of Python"):
        _engine(files, {}, {"python": {"version": "3.13 --index-url x"}})


def test_the_schemas_lie_where_the_package_finds_them() -> None:
    assert schema_folder().joinpath("user.schema.json").is_file()
