"""What a user sends, against the endpoint's own schema of it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Collection
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for
from referencing import Registry
from referencing.exceptions import Unresolvable

from endpoint.config.faults import Fault, dotted
from endpoint.config.patterns import strict
from endpoint.config.validate import explain, nearest
from endpoint.errors import ConfigError, UserOptionsError

RESERVED = ("parent_config", "user_runtime", "mapped_identity", "_GC")
MOST_TOLD = 5  # problems, or names, in one message to a user
# A schema that has one of these says more about unknown options than its `properties` do.
_SAYS_MORE = {
    *("additionalProperties", "unevaluatedProperties", "patternProperties", "propertyNames"),
    *("$ref", "allOf", "anyOf", "oneOf", "if", "dependentSchemas"),
}


def check_user_options(
    options: dict[str, Any], schema: dict[str, Any] | None, variables: Collection[str] | None
) -> None:
    """Refuse options with reserved names, those that don't fit `schema`, and those that nobody knows.

    schema: None where the endpoint has none.
    variables: what the template takes from outside; None where that is not known, and then nothing is unknown.

    Raises UserOptionsError, which names the options, and ConfigError for a schema that can't be used.
    """
    for name in RESERVED:
        if name in options:
            raise UserOptionsError(f"The option {name!r} is reserved: it can't be set by users.")
    found = schema_faults(options, schema) if schema else []
    if not _SAYS_MORE & (schema or {}).keys():
        found += _unknown(options, schema or {}, variables)
    if found:
        told = list(dict.fromkeys(map(_sentence, found)))
        more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
        raise UserOptionsError(
            f"The endpoint does not take these options: {'; '.join(told[:MOST_TOLD])}{more}.",
            hint="Change user_endpoint_config",
        )


def schema_faults(options: Any, schema: dict[str, Any]) -> list[Fault]:
    """What is wrong with `options` by an endpoint's schema for them; ConfigError where the schema can't be used."""
    if wrong := metaschema_faults(schema):
        raise ConfigError("The endpoint's schema for user options is not a JSON schema.", detail=_sentence(wrong[0]))
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        # Without a way to get at what the schema may name elsewhere: no request goes out from here.
        errors = list(strict(kind)(schema, registry=Registry()).iter_errors(options))
    except (Unresolvable, re.error, RecursionError) as error:
        raise ConfigError("The endpoint's schema for user options can't be used.", detail=str(error)) from error
    return [Fault(path, message, hint) for error in errors for path, message, hint in explain(error)]


def metaschema_faults(schema: Any) -> list[Fault]:
    """What is wrong with an endpoint's schema for user options (JSON data), as a JSON schema."""
    if not isinstance(schema, dict):
        return [Fault((), "it must be a JSON object")]
    return list(_metaschema_faults(json.dumps(schema)))


@functools.lru_cache(maxsize=8)
def _metaschema_faults(text: str) -> tuple[Fault, ...]:
    schema = json.loads(text)
    kind = validator_for(schema, default=Draft202012Validator)
    found = kind(kind.META_SCHEMA).iter_errors(schema)
    return tuple(Fault(path, message, hint) for error in found for path, message, hint in explain(error))


def _unknown(options: dict[str, Any], schema: dict[str, Any], variables: Collection[str] | None) -> list[Fault]:
    if variables is None:
        return []
    known = sorted({*schema.get("properties", {}), *variables} - {*RESERVED})
    if len(known) > MOST_TOLD:
        all_of_them = f"the endpoint has {', '.join(known[:MOST_TOLD])} and {len(known) - MOST_TOLD} more"
    else:
        all_of_them = f"the endpoint has {', '.join(known)}" if known else "the endpoint takes none"
    return [
        Fault((name,), "there is no such option here", nearest(name, known, options) or all_of_them)
        for name in options
        if name not in known
    ]


def _sentence(fault: Fault) -> str:
    option = f"the option {dotted(fault.path)!r}: " if fault.path else ""
    return f"{option}{fault.message}{f' ({fault.hint})' if fault.hint else ''}"
