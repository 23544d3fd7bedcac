"""Every file in schemas/examples is one test: valid ones must pass, invalid ones must say what is wrong, and where."""

from __future__ import annotations

from pathlib import Path

import pytest

from endpoint.config.check import errors, problems
from endpoint.config.parse import Document, parse_yaml
from endpoint.config.schemas import SUFFIX, schema_folder, with_defaults

SCHEMAS = Path(str(schema_folder()))
EXAMPLES = SCHEMAS / "examples"
# Parts of other schemas have no files of their own.
PARTS = {"common", "engine"}
DIRECTORIES = {"endpoint-directory"}
MARK = "# expects: "


def _examples(kind: str) -> list[Path]:
    return sorted(path for path in (EXAMPLES / kind).glob("*/*.yaml") if path.parent.name not in DIRECTORIES)


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _read(path: Path) -> Document:
    return parse_yaml(path.read_text(), path.name)


@pytest.mark.parametrize("path", _examples("valid"), ids=_name)
def test_a_valid_example_has_no_problems_with_and_without_its_defaults(path: Path) -> None:
    document = _read(path)
    name = path.parent.name

    assert errors(problems(document, name)) == []

    filled = Document(with_defaults(document.data, name), path.name)
    assert errors(problems(filled, name)) == []


@pytest.mark.parametrize("path", _examples("valid"), ids=_name)
def test_a_valid_example_warns_only_where_its_name_says_that_it_is_of_an_older_kind(path: Path) -> None:
    assert bool(problems(_read(path), path.parent.name)) == path.stem.startswith("deprecated")


@pytest.mark.parametrize("path", _examples("invalid"), ids=_name)
def test_an_invalid_example_is_refused_with_the_words_it_expects_at_the_places_it_expects(path: Path) -> None:
    lines = path.read_text().splitlines()
    expected = [line.removeprefix(MARK) for line in lines if line.startswith(MARK)]
    assert expected

    reported = errors(problems(_read(path), path.parent.name))

    places = [f"{problem.line}:{problem.column}" for problem in reported]
    assert places == [":".join(line.split(":")[:2]) for line in expected], list(map(str, reported))
    for problem, line in zip(reported, expected, strict=True):
        assert line.split(":", 2)[2].strip() in str(problem)


@pytest.mark.parametrize("kind", ["valid", "invalid"])
def test_every_schema_has_an_example_of_each_kind(kind: str) -> None:
    schemas = {path.name.removesuffix(SUFFIX) for path in SCHEMAS.glob(f"*{SUFFIX}")} - PARTS

    assert {path.parent.name for path in _examples(kind)} == schemas
