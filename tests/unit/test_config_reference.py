"""The reference pages: complete, with links that lead somewhere, and as old as the schemas that they are made from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from endpoint.config.bundle import PARTS, bundled, names, subschemas, target
from endpoint.config.generated import EDITOR_SCHEMAS, PAGES, generated, write_generated
from endpoint.config.reference import page, reference

CHECKOUT = Path(__file__).resolve().parents[2]
PAGED = [name for name in names() if name not in PARTS]


def sections(text: str) -> dict[str, str]:
    """Each heading of a page with what is below it."""
    parts = re.split(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_file_that_is_made_from_the_schemas_is_up_to_date() -> None:
    files = generated()
    old = [path for path, text in files.items() if not _same(CHECKOUT / path, text)]
    there = {path.relative_to(CHECKOUT).as_posix() for folder in (PAGES, EDITOR_SCHEMAS) for path in _files(folder)}

    assert not old, f"run `make reference`: {old}"
    assert not there - files.keys(), "run `make reference`: nothing makes these any more"


def _same(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text(encoding="utf-8") == text


def _files(folder: str) -> list[Path]:
    return list((CHECKOUT / folder).iterdir())


def test_writing_the_generated_files_removes_what_nothing_makes_any_more(tmp_path: Path) -> None:
    (tmp_path / PAGES).mkdir(parents=True)
    (tmp_path / "schemas").mkdir()
    (tmp_path / PAGES / "gone.md").touch()
    (tmp_path / "schemas" / "README.md").touch()

    write_generated(tmp_path)

    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert files == {*generated(), "schemas/README.md"}


@pytest.mark.parametrize("path", generated())
def test_a_generated_file_ends_with_one_newline_and_no_line_with_a_space(path: str) -> None:
    text = generated()[path]

    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


@pytest.mark.parametrize("name", PAGED)
def test_a_page_has_no_heading_twice_and_no_link_to_nowhere(name: str) -> None:
    text = reference(name)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}

    assert len(headings) == len(set(headings)) == len(anchors)
    links = set(re.findall(r"\]\(([^)]+)\)", text))
    assert {link[1:] for link in links if link.startswith("#")} <= anchors
    for link in links:
        if not link.startswith("#"):
            assert (CHECKOUT / PAGES / link).is_file(), link


@pytest.mark.parametrize("name", [name for name in PAGED if name != "user-template"])
def test_a_page_has_every_option_of_its_schema(name: str) -> None:
    text = reference(name)
    for part in parts_of_the_file(bundled(name)):
        for option, schema in part.get("properties", {}).items():
            if isinstance(schema, dict) and ("description" in schema or "$ref" in schema):
                assert re.search(rf"`([\w.\[\]]+\.)?{option}`", text), option


def parts_of_the_file(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Every schema of a bundled document that says something about its file, not about a file with its own page."""
    definitions = document.get("$defs", {})
    others = [id(definitions[f"{name}.schema.json"]) for name in PAGED if f"{name}.schema.json" in definitions]
    waiting = [{key: value for key, value in document.items() if key != "$defs"}]
    found: dict[int, dict[str, Any]] = {}
    while waiting:
        for part in subschemas(waiting.pop()):
            if id(part) in found:
                continue
            found[id(part)] = part
            if "$ref" in part and id(meant := target(document, part["$ref"])) not in others:
                waiting.append(meant)
    return list(found.values())


def test_the_page_of_user_endpoints_has_a_section_for_each_kind_of_block() -> None:
    found = sections(reference("user"))

    for kind in ("GlobusComputeEngine", "SlurmProvider", "SrunLauncher", "address_by_interface"):
        assert f"`{kind}`" in found
    assert "| `engine.provider.partition` | text or null |" in found["`SlurmProvider`"]
    assert "[`SlurmProvider`](#slurmprovider)" in found["`engine.provider`"]
    assert "[`engine.provider.launcher`](#engineproviderlauncher)" in found["`SlurmProvider`"]


OPTIONS: dict[str, Any] = {
    "wait": {
        "description": "How long, or | forever.",
        "type": "integer",
        "minimum": 1,
        "maximum": 9,
        "x-unit": "seconds",
        "default": 3,
        "examples": [5, 7],
    },
    "name": {"description": "A name.", "type": ["string", "null"], "minLength": 1},
    "words": {"description": "Words.", "type": "array", "items": {"enum": ["a", "off"]}},
    "delay": {"description": "As before.", "type": "integer", "deprecated": True, "x-use": "wait"},
    "speed": {"description": "As before.", "deprecated": True, "x-why": "it is always the highest"},
    "labels": {"description": "Labels.", "type": "object", "additionalProperties": {"type": "string"}},
    "hosts": {
        "description": "Hosts.",
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "properties": {"port": {"description": "A port.", "type": "number"}},
        },
    },
}
PAGE = page("x", {"title": "X", "description": "An X.", "required": ["name"], "properties": OPTIONS})


@pytest.mark.parametrize(
    "line",
    [
        "| `wait` | whole number (seconds), at least 1, at most 9 | `3` | How long, or \\| forever. "
        "Examples: `wait: 5`, `wait: 7`. |",
        "| `name` | text or null, not empty | **required** | A name. |",
        '| `words` | list, each item: one of `a`, `"off"` |  | Words. |',
        "| `labels` | mapping, each value: text |  | Labels. |",
        "| `hosts` | mapping; see [`hosts.NAME`](#hostsname) |  | Hosts. |",
        "| `hosts.NAME.port` | number |  | A port. |",
        "- `delay`: As before. Write `wait` instead.",
        "- `speed`: As before. It is always the highest.",
    ],
)
def test_a_page_says_of_an_option_what_the_schema_says(line: str) -> None:
    assert line in PAGE.splitlines()


def test_an_older_option_is_not_among_those_to_choose_from() -> None:
    assert "| `delay`" not in PAGE
