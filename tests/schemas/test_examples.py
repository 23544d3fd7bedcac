"""Every file in schemas/examples is one test: valid ones must pass, invalid ones must say what they expect."""

from __future__ import annotations

from pathlib import Path

import pytest

from endpoint.config.check import problems
from endpoint.config.load import load_yaml
from endpoint.config.schemas import SUFFIX, schema_folder, with_defaults
from endpoint.errors import ConfigError

SCHEMAS = Path(str(schema_folder()))
EXAMPLES = SCHEMAS / "examples"
# Parts of other schemas have no files of their own.
PARTS = {"common", "engine"}
MARK = "# expects: "


def _examples(kind: str) -> list[Path]:
    return sorted((EXAMPLES / kind).glob("*/*.yaml"))


def _name(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def _reported(path: Path) -> list[str]:
    try:
        return list(map(str, problems(load_yaml(path.read_text(), path.name), path.parent.name)))
    except ConfigError as error:
        return [error.failure.for_admin()]


@pytest.mark.parametrize("path", _examples("valid"), ids=_name)
def test_a_valid_example_has_no_problems_with_and_without_its_defaults(path: Path) -> None:
    document = load_yaml(path.read_text(), path.name)
    name = path.parent.name

    assert problems(document, name) == []

    filled = type(document)(with_defaults(document.data, name), path.name)
    assert problems(filled, name) == []


@pytest.mark.parametrize("path", _examples("invalid"), ids=_name)
def test_an_invalid_example_is_refused_with_the_words_it_expects(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    assert first.startswith(MARK)
    expected = first.removeprefix(MARK)

    reported = _reported(path)

    assert any(expected in problem for problem in reported), reported


@pytest.mark.parametrize("kind", ["valid", "invalid"])
def test_every_schema_has_an_example_of_each_kind(kind: str) -> None:
    schemas = {path.name.removesuffix(SUFFIX) for path in SCHEMAS.glob(f"*{SUFFIX}")} - PARTS

    assert {path.parent.name for path in _examples(kind)} == schemas
