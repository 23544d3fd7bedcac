"""What a user sends, against the endpoint's own schema of it."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from jsonschema import Draft202012Validator, SchemaError
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
    kind = validator_for(schema, default=Draft202012Validator)
    try:
        kind.check_schema(schema)
        # Without a way to get at what the schema may name elsewhere: no request goes out from here.
        errors = list(strict(kind)(schema, registry=Registry()).iter_errors(options))
    except SchemaError as error:
        raise ConfigError(
            "The endpoint's schema for user options is not a JSON schema.", detail=error.message
        ) from error
    except (Unresolvable, re.error, RecursionError) as error:
        raise ConfigError("The endpoint's schema for user options can't be used.", detail=str(error)) from error
    return [Fault(path, message, hint) for error in errors for path, message, hint in explain(error)]


def metaschema_faults(schema: Any) -> list[Fault]:
    """What is wrong with an endpoint's schema for user options, as a JSON schema."""
    kind = validator_for(schema, default=Draft202012Validator) if isinstance(schema, dict) else Draft202012Validator
    found = [
        Fault(path, message, hint)
        for error in kind(kind.META_SCHEMA).iter_errors(schema)
        for path, message, hint in explain(error)
    ]
    if not isinstance(schema, dict):
        found = [Fault((), "it must be a JSON object")]
    return found


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
