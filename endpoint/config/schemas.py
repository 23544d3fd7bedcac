"""The JSON schemas that ship with us: the only home of options, defaults and descriptions."""

from __future__ import annotations

import copy
import functools
import importlib.resources
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from jsonschema.validators import extend
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from endpoint.config.faults import Path
from endpoint.config.patterns import strict

if TYPE_CHECKING:
    from importlib.abc import Traversable

SUFFIX = ".schema.json"

# Stricter than the standard: 2.0 is no whole number to the programs that get it.
_TYPES = Draft202012Validator.TYPE_CHECKER.redefine(
    "integer", lambda _, value: isinstance(value, int) and not isinstance(value, bool)
)
_Validator = extend(strict(Draft202012Validator), type_checker=_TYPES)  # type: ignore[no-untyped-call]

Schema = dict[str, Any]
Place = tuple[Schema, Any]  # a schema, and the resolver for the references in it


def schema_folder() -> Traversable:
    """The folder with the schemas: inside the installed package, or beside it in a checkout."""
    package = importlib.resources.files("endpoint")
    inside = package.joinpath("schemas")
    return inside if inside.is_dir() else package.joinpath("..").joinpath("schemas")


@functools.cache
def load_schema(name: str) -> Schema:
    """The schema called `name` (`manager`, `user`, ...). Don't change what it returns."""
    text = schema_folder().joinpath(f"{name}{SUFFIX}").read_text(encoding="utf-8")
    schema: Schema = json.loads(text)
    return schema


@functools.cache
def validator(name: str) -> Draft202012Validator:
    """A validator of the schema called `name` that knows the other schemas by their file names."""
    made: Draft202012Validator = _Validator(load_schema(name), registry=_registry(name))
    return made


def with_defaults(data: Any, name: str) -> Any:
    """A copy of `data`, which must be valid by the schema called `name`, with defaults at every level that it has."""
    return _fill(copy.deepcopy(data), [_top(name)])


def blocks(data: Any, name: str) -> Iterator[tuple[Path, dict[str, Any], dict[str, list[Schema]]]]:
    """Each mapping in `data` that the schema called `name` knows, outer ones first, as (path, mapping, options).

    options: the schemas of every option that the mapping has or may have.
    """
    return _walk(data, (), [_top(name)])


def _top(name: str) -> Place:
    return load_schema(name), _registry(name).resolver_with_root(Resource.from_contents(load_schema(name)))


@functools.cache
def _registry(name: str) -> Registry[Any]:
    """The schema called `name` with all that it refers to, looked up once."""
    names = [name]
    for found in names:  # grows while we go through it
        names += [other for other in _referred(load_schema(found)) if other not in names]
    # Without the name of the dialect: a validator goes over to the standard's own class where a schema names one.
    bare = {found: {key: value for key, value in load_schema(found).items() if key != "$schema"} for found in names}
    resources = [(f"{found}{SUFFIX}", DRAFT202012.create_resource(schema)) for found, schema in bare.items()]
    return Registry().with_resources(resources).crawl()


def _referred(schema: Any) -> Iterator[str]:
    """The names of the other schemas that a schema's references name."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and not value.startswith("#"):
                yield value.partition(SUFFIX)[0]
            else:
                yield from _referred(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from _referred(item)


def _fill(data: Any, places: list[Place]) -> Any:
    """`data` with the defaults of all of `places`, which all apply to it."""
    parts = [part for place in places for part in _applied(place, data)]
    if isinstance(data, list):
        items = [(schema["items"], resolver) for schema, resolver in parts if "items" in schema]
        return [_fill(item, items) for item in data]
    if not isinstance(data, dict):
        return data
    for key, below in _options(data, parts).items():
        if data.get(key) is None:  # left out, or null, which means the same
            defaults = [part["default"] for place in below for part, _ in _joined(place) if "default" in part]
            if defaults:
                data[key] = copy.deepcopy(defaults[0])
            elif key not in data:
                continue
        data[key] = _fill(data[key], below)
    return data


def _walk(data: Any, path: Path, places: list[Place]) -> Iterator[tuple[Path, dict[str, Any], dict[str, list[Schema]]]]:
    parts = [part for place in places for part in _applied(place, data)]
    if isinstance(data, list):
        items = [(schema["items"], resolver) for schema, resolver in parts if "items" in schema]
        for index, item in enumerate(data):
            yield from _walk(item, (*path, index), items)
    elif isinstance(data, dict):
        options = _options(data, parts)
        yield (
            path,
            data,
            {key: [part for place in below for part, _ in _joined(place)] for key, below in options.items()},
        )
        for key, below in options.items():
            if key in data:
                yield from _walk(data[key], (*path, key), below)


def _options(data: dict[str, Any], parts: list[Place]) -> dict[str, list[Place]]:
    """The schemas of each option that a block has or may have."""
    options: dict[str, list[Place]] = {}
    for schema, resolver in parts:
        for key, below in schema.get("properties", {}).items():
            options.setdefault(key, []).append((below, resolver))
    for schema, resolver in parts:
        if isinstance(others := schema.get("additionalProperties"), dict):
            for key in data.keys() - schema.get("properties", {}).keys():
                options.setdefault(key, []).append((others, resolver))
    return options


def _joined(place: Place) -> Iterator[Place]:
    """The schema of `place`, and those that it refers to."""
    schema, resolver = place
    yield place
    if "$ref" in schema:
        target = resolver.lookup(schema["$ref"])
        yield from _joined((target.contents, target.resolver))
    for part in schema.get("allOf", ()):
        yield from _joined((part, resolver))


def _applied(place: Place, data: Any) -> Iterator[Place]:
    """Every schema that the one of `place` applies to the same `data`. Conditions (`if`) hold no references."""
    for schema, resolver in _joined(place):
        yield schema, resolver
        if "if" in schema:
            branch = "then" if _Validator(schema["if"]).is_valid(data) else "else"
            if branch in schema:
                yield from _applied((schema[branch], resolver), data)
