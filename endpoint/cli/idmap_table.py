"""What people write for `idmap`: identities, and tables of identities with the local users that they should be."""

from __future__ import annotations

import csv
import io
import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from endpoint.cli.common import is_uuid
from endpoint.config.parse import Document
from endpoint.errors import ConfigError, UsageError

REFUSED = ("-", "", None)
COLUMNS = ["identity", "user"]
Identities = list[dict[str, Any]]


@dataclass(frozen=True)
class Row:
    """One line of a table; `user` is None for somebody who should be refused."""

    line: int
    who: str
    identities: Identities
    user: str | None


def identities_of(value: Any) -> Identities:
    """Identities from a user name, an identity's id, an identity, a list of these, or `{"identities": [...]}`.

    One without an id gets one, and one without a status counts as used. Raises ConfigError.
    """
    if isinstance(value, Mapping) and isinstance(value.get("identities"), list):
        value = value["identities"]
    several = value if isinstance(value, list) else [value]
    if not several:
        raise ConfigError("There is no identity in an empty list")
    return [_identity(each) for each in several]


def _identity(value: Any) -> dict[str, Any]:
    if isinstance(value, str) and value:
        value = {"id": value.lower()} if is_uuid(value) else {"username": value}
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise ConfigError(f"An identity is a user name, an id, or an object with its fields, and not {value!r:.80}")
    made_up = str(uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(value, sort_keys=True, default=str)))
    number = value.get("id") or value.get("sub") or made_up
    return {"status": "used", **value, "id": number, "sub": number}


def named(identities: Identities) -> str:
    """How to call somebody with `identities`."""
    first = identities[0]
    return str(first.get("username") or first.get("email") or first["id"])


def given_identities(argument: str, standard_input: str | None) -> Identities:
    """The identities that a command's argument names: a user name, an id, a JSON file, or standard input."""
    if standard_input is not None:
        return identities_of(_json(standard_input, "standard input"))
    path = Path(argument)
    if path.suffix == ".json" or path.is_file():
        return identities_of(_json(read(path), argument))
    return identities_of(argument)


def people(text: str, source: str) -> list[Identities]:
    """A JSON list of people: each an identity, or a list of one person's identities."""
    data = _json(text, source)
    if isinstance(data, Mapping):
        data = data.get("identities")
    if not isinstance(data, list):
        raise ConfigError(f"{source} is not a list of identities")
    return [identities_of(each) for each in data]


def rows(path: Path) -> list[Row]:
    """The lines of a table: CSV with `identity,user`; or YAML, a mapping of them or a list with both keys."""
    found = list(_csv_rows(path) if path.suffix == ".csv" else _yaml_rows(path))
    if not found:
        raise ConfigError(f"There are no identities in {path}")
    return found


def read(path: Path) -> str:
    """The text of a file; ConfigError or UsageError where there is none."""
    from endpoint.config.model import read_text

    if not path.exists():
        raise UsageError(f"There is no file {path}", code="NO_SUCH_FILE")
    return read_text(path)


def _csv_rows(path: Path) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(read(path)), skipinitialspace=True)
    for cells in reader:
        if not cells or cells[0].startswith("#") or cells == COLUMNS:
            continue
        if len(cells) != len(COLUMNS):
            raise ConfigError(
                f"{path}:{reader.line_num}: a line has an identity and a user, and not {len(cells)} cells"
            )
        yield Row(reader.line_num, cells[0], identities_of(cells[0]), _user(cells[1].strip()))


def _yaml_rows(path: Path) -> Iterator[Row]:
    from endpoint.config.parse import parse_yaml
    from endpoint.config.report import located, refusal

    document = parse_yaml(read(path), str(path))
    if document.faults:
        raise refusal(located(document.faults, str(path), document.position))
    if isinstance(document.data, dict):
        for key, user in document.data.items():
            yield Row(document.position((key,)).line, key, identities_of(key), _user(user))
        return
    for index, entry in enumerate(document.data or []):
        yield _yaml_row(document, index, entry)


def _yaml_row(document: Document, index: int, entry: Any) -> Row:
    line = document.position((index,)).line
    if not isinstance(entry, dict) or set(entry) != set(COLUMNS):
        raise ConfigError(f"{document.source}:{line}: an entry has the keys identity and user")
    try:
        identities = identities_of(entry["identity"])
    except ConfigError as error:
        raise ConfigError(f"{document.source}:{line}: {error.failure.reason}") from error
    return Row(line, named(identities), identities, _user(entry["user"]))


def _user(value: Any) -> str | None:
    return None if value in REFUSED else str(value)


def _json(text: str, source: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source} is not JSON: {error}") from error
