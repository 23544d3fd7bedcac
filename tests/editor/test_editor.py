"""What an administrator sees in an editor: our schemas in a real YAML language server."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from endpoint.cli.main import run
from endpoint.config.bundle import PARTS, editor_file, for_editors, names
from endpoint.config.defaults import with_modeline
from endpoint.config.schemas import schema_folder
from tests.editor.language_server import Diagnostic, LanguageServer

EXAMPLES = Path(str(schema_folder())) / "examples"
MODELINE = "# yaml-language-server: "
FILES = {
    "config.yaml": "endpoint",
    "user_config_template.yaml": "user-template",
    "user_environment.yaml": "user-environment",
}
# What the server underlines and the endpoint takes: it reads a leading zero as part of a number with colons, and an
# anchor that only stands there for the reader.
STRICTER = {"user/slurm": ("walltime: 00:30:00", "&defaults")}
# What is about YAML itself and not about a schema, which only `check-config` tells: a tag that it knows, a second
# document, something merged that is no mapping.
LOOSER = {"endpoint/tag", "endpoint/two-documents", "user/merge-of-text"}


def examples(kind: str) -> list[Any]:
    """The files of all examples that are YAML, each with the name of its schema."""
    known = set(names()) - PARTS
    found = {path: path.parent.name for path in (EXAMPLES / kind).glob("*/*.yaml") if path.parent.name in known}
    assert set(found.values()) == known
    for path in (EXAMPLES / kind / "endpoint-directory").glob("*/*"):
        found |= {path: FILES[path.name]} if path.name in FILES else {}
    return [pytest.param(path, found[path], id=name_of(path)) for path in sorted(found)]


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def written(schema: str, text: str) -> str:
    """A file of one's own, with the line that names its schema."""
    return with_modeline(text, schema)


def found_in(server: LanguageServer, schema: str, text: str) -> list[tuple[int, str]]:
    """What is underlined in `text`, as (line of it, message)."""
    return [(found.line - 1, found.message) for found in server.diagnostics(written(schema, text), "file.yaml")]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--data-template", "--display-name", "on", "--contact-email", "a@example.org"],
        ["--multi-user", "true", "--contact-email", "a@example.org", "--data-template"],
    ],
    ids=["plain", "data-template", "multi-user"],
)
def test_the_files_that_configure_writes_have_nothing_underlined(
    arguments: list[str], server: LanguageServer, tmp_path: Path
) -> None:
    assert run(["-c", str(tmp_path), "configure", "one", *arguments]) == 0
    files = [path for path in (tmp_path / "one").iterdir() if path.read_text().startswith(MODELINE)]

    assert len(files) == 2 + ("--data-template" in arguments)
    for path in files:
        assert server.diagnostics(path.read_text(), path.name) == []
        # And it isn't for want of a schema.
        wrong = server.diagnostics(path.read_text() + "\n- no mapping\n", path.name)
        assert wrong, path


def test_without_any_setting_the_data_template_has_nothing_underlined(tmp_path: Path) -> None:
    assert run(["-c", str(tmp_path), "configure", "one", "--data-template"]) == 0
    text = (tmp_path / "one" / "user_config_template.yaml").read_text()
    server = LanguageServer(tmp_path, {})
    try:
        assert server.diagnostics(text, "user_config_template.yaml") == []
        assert server.diagnostics(f"{text}surplus: 1\n", "user_config_template.yaml")
    finally:
        server.stop()


def test_a_misspelt_key_is_underlined_where_it_stands(server: LanguageServer, tmp_path: Path) -> None:
    assert run(["-c", str(tmp_path), "configure", "one", "--display-name", "One"]) == 0
    text = (tmp_path / "one" / "config.yaml").read_text() + "heartbeat_perod: 30\ndebug: true\n"

    (found,) = server.diagnostics(text, "config.yaml")

    assert (text.splitlines()[found.line - 1], found.column) == ("heartbeat_perod: 30", 1)
    assert "heartbeat_perod" in found.message


def test_all_that_is_wrong_is_underlined_at_once(server: LanguageServer) -> None:
    text = "engine:\n  type: GlobusComputeEngine\n  max_workers_per_node: many\n  provider:\n    type: SlurmProvider\n"
    text += "    partitoin: debug\n    max_blocks: -1\n"

    assert sorted(line for line, _ in found_in(server, "user", text)) == [3, 6, 7]


@pytest.mark.parametrize("schema", ["user", "user-template"])
def test_an_option_of_another_engine_is_underlined(schema: str, server: LanguageServer) -> None:
    text = "engine:\n  type: ThreadPoolEngine\n  max_workers: 4\n  encrypted: true\n"

    ((line, message),) = found_in(server, schema, text)

    assert line == 4
    assert "encrypted" in message


@pytest.mark.parametrize(("value", "lines"), [('"{{ nodes }}"', []), ("4", []), ("many", [5]), ("[4]", [5])])
def test_in_a_data_template_a_number_can_be_an_expression_and_no_word(
    value: str, lines: list[int], server: LanguageServer
) -> None:
    text = f"engine:\n  type: GlobusComputeEngine\n  provider:\n    type: LocalProvider\n    max_blocks: {value}\n"

    assert [line for line, _ in found_in(server, "user-template", text)] == lines


def test_in_a_data_template_a_message_is_about_the_option_and_not_about_expressions(server: LanguageServer) -> None:
    ((_, message),) = found_in(server, "user-template", "engine:\n  type: SlurmProvider\n")

    assert "GlobusComputeEngine" in message
    assert "{{" not in message


@pytest.mark.parametrize("schema", ["user", "user-template"])
def test_options_are_offered_with_their_descriptions(schema: str, server: LanguageServer) -> None:
    top = server.completions(written(schema, "heart"), "file.yaml")
    engine = server.completions(written(schema, "engine:\n  type: GlobusComputeEngine\n  "), "file.yaml")

    assert {"heartbeat_period", "idle_heartbeats_soft", "engine"} <= top.keys()
    assert "two heartbeats" in top["heartbeat_period"]
    assert "Default: `30`" in top["heartbeat_period"]
    assert {"max_workers_per_node", "provider", "address"} <= engine.keys()
    assert "The most workers on one node" in engine["max_workers_per_node"]
    assert "max_tasks_per_child" not in engine  # of another engine


@pytest.mark.parametrize("schema", ["user", "user-template"])
@pytest.mark.parametrize(
    ("text", "offered"),
    [
        ("engine:\n  type: ", {"GlobusComputeEngine", "ThreadPoolEngine"}),
        ("engine:\n  type: GlobusComputeEngine\n  encrypted: ", {"true", "false"}),
        ("engine:\n  type: GlobusComputeEngine\n  provider:\n    type: ", {"SlurmProvider", "LocalProvider"}),
    ],
    ids=["engine", "boolean", "provider"],
)
def test_values_are_offered_where_there_is_a_choice(
    schema: str, text: str, offered: set[str], server: LanguageServer
) -> None:
    assert offered <= server.completions(written(schema, text), "file.yaml").keys()


@pytest.mark.parametrize("schema", ["user", "user-template"])
def test_the_description_is_shown_with_the_default(schema: str, server: LanguageServer) -> None:
    text = "engine:\n  type: GlobusComputeEngine\n  provider:\n    type: KubernetesProvider\n    max_blocks: 4\n"

    shown = server.hover(written(schema, text), "file.yaml", "max_blocks")

    assert "The most blocks at the same time." in shown
    assert "Default: `10`" in shown


def test_the_unit_of_a_number_is_shown(server: LanguageServer) -> None:
    assert "Unit: seconds" in server.hover(written("hub", "times:\n  start_wait: 30\n"), "file.yaml", "start_wait")


def test_what_our_own_messages_say_editors_say_too(server: LanguageServer) -> None:
    text = "broker:\n  amqp_url: https://example.org\n"

    assert (2, "must be amqp[s]://HOST[:PORT][/VHOST], without user and password") in found_in(server, "hub", text)
    ((_, message),) = found_in(server, "endpoint", "subscription_id: mine\n")
    assert message == "must be a UUID"


def test_an_older_option_is_marked_and_not_offered(server: LanguageServer, tmp_path: Path) -> None:
    properties = {
        "wait": {"description": "How long.", "type": "integer"},
        "delay": {"description": "As before.", "type": "integer", "deprecated": True, "x-use": "wait"},
    }
    path = tmp_path / "x.schema.json"
    path.write_text(json.dumps(for_editors({"type": "object", "properties": properties})))
    line = f"{MODELINE}$schema={path}\n"

    assert [found.message for found in server.diagnostics(f"{line}delay: 3\n", "file.yaml")] == [
        "Deprecated; write wait instead"
    ]
    offered = server.completions(line, "file.yaml")
    assert "wait" in offered
    assert "delay" not in offered


def test_a_file_can_be_named_in_the_settings_instead(server: LanguageServer) -> None:
    def about_us(found: list[Diagnostic]) -> bool:
        return any("instal" in one.message for one in found)

    found = server.diagnostics("hosts: {login1: {}}\ninstal: {method: nix}\n", "site.yml", until=about_us)

    assert (2, 1) in {(one.line, one.column) for one in found}


@pytest.fixture(scope="module")
def underlined(server: LanguageServer) -> dict[Path, list[tuple[str, str]]]:
    """For every example, the lines that have something underlined, with the messages; opened at once to be quicker."""
    opened = {
        path: server.open(written(schema, path.read_text()), path.name)
        for path, schema in (example.values for example in examples("valid") + examples("invalid"))
    }
    found = {path: server.published(uri) for path, uri in opened.items()}
    # Where something is missing, that can be the line after the last one.
    lines = {path: ["", *path.read_text().splitlines(), ""] for path in opened}
    return {path: [(lines[path][one.line - 1], one.message) for one in found[path]] for path in opened}


@pytest.mark.parametrize(("path", "_"), examples("valid"))
def test_a_valid_example_has_nothing_underlined_but_older_options(
    path: Path, _: str, underlined: dict[Path, list[tuple[str, str]]]
) -> None:
    wrong = [line for line, message in underlined[path] if not message.startswith("Deprecated")]
    expected = STRICTER.get(name_of(path), ())

    assert [line for line in wrong if not line.strip().endswith(expected)] == []
    assert len(wrong) == len(expected)
    assert (len(underlined[path]) > len(wrong)) is path.stem.startswith("deprecated")


@pytest.mark.parametrize(("path", "_"), examples("invalid"))
def test_an_invalid_example_has_something_underlined(
    path: Path, _: str, underlined: dict[Path, list[tuple[str, str]]]
) -> None:
    assert bool(underlined[path]) is (name_of(path) not in LOOSER)


def test_the_document_about_editors_names_paths_that_the_package_has() -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "editor.md").read_text()
    named = set(re.findall(r"site-packages/endpoint/(\S+\.schema\.json)", text))

    assert named
    assert all((editor_file("endpoint").parents[1].parent / path).is_file() for path in named)
