"""The JSON schemas that ship with us: the only home of options, defaults and descriptions."""

from __future__ import annotations

import copy
import functools
import importlib.resources
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource

if TYPE_CHECKING:
    from importlib.abc import Traversable

SUFFIX = ".schema.json"

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
    return Draft202012Validator(load_schema(name), registry=_registry())


def with_defaults(data: Any, name: str) -> Any:
    """A copy of `data`, which must be valid by the schema called `name`, with defaults at every level that it has."""
    resource = Resource.from_contents(load_schema(name))
    return _fill(copy.deepcopy(data), [(load_schema(name), _registry().resolver_with_root(resource))])


@functools.cache
def _registry() -> Registry[Any]:
    def retrieve(uri: str) -> Resource[Any]:
        return Resource.from_contents(load_schema(uri.removesuffix(SUFFIX)))

    return Registry(retrieve=retrieve)  # type: ignore[call-arg]  # the stubs hide the attribute


def _fill(data: Any, places: list[Place]) -> Any:
    """`data` with the defaults of all of `places`, which all apply to it."""
    parts = [part for place in places for part in _applied(place, data)]
    if isinstance(data, list):
        items = [(schema["items"], resolver) for schema, resolver in parts if "items" in schema]
        return [_fill(item, items) for item in data]
    if not isinstance(data, dict):
        return data
    properties: dict[str, list[Place]] = {}
    for schema, resolver in parts:
        for key, below in schema.get("properties", {}).items():
            properties.setdefault(key, []).append((below, resolver))
    for key, below_places in properties.items():
        if key not in data:
            defaults = [part["default"] for place in below_places for part, _ in _joined(place) if "default" in part]
            if not defaults:
                continue
            data[key] = copy.deepcopy(defaults[0])
        data[key] = _fill(data[key], below_places)
    return data


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
            branch = "then" if Draft202012Validator(schema["if"]).is_valid(data) else "else"
            if branch in schema:
                yield from _applied((schema[branch], resolver), data)
