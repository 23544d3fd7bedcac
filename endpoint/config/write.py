"""Plain data as YAML that every reader takes for the same data, readers of YAML 1.1 too."""

from __future__ import annotations

import io
import re
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import RoundTripRepresenter
from ruamel.yaml.scalarstring import DoubleQuotedScalarString, LiteralScalarString

# What needs no quotation marks in any reader: no number, no date, no word such as `yes`.
_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_./-]*")
_WORDS = frozenset(("y", "n", "yes", "no", "on", "off", "true", "false", "null"))
# Lines that a block can hold as they are: printable ASCII, not beginning or ending with a space.
_BLOCK = re.compile(r"(?:[!-~](?:[ -~]*[!-~])?)?(?:\n(?:[!-~ ](?:[ -~]*[!-~])?)?)+")
_NEVER_FOLDED = 1 << 30


class _Representer(RoundTripRepresenter):
    def represent_none(self, _: None) -> Any:
        return self.represent_scalar("tag:yaml.org,2002:null", "null")

    def represent_number(self, number: float) -> Any:
        digits, exponent, power = repr(number).partition("e")
        # Without a dot, or a sign before the power, a reader of YAML 1.1 takes it for text.
        sign = "+" if exponent and power[0] not in "+-" else ""
        text = f"{digits}{'' if '.' in digits else '.0'}{exponent}{sign}{power}"
        return self.represent_scalar("tag:yaml.org,2002:float", text)


_Representer.add_representer(type(None), _Representer.represent_none)
_Representer.add_representer(float, _Representer.represent_number)


def dump_yaml(data: Any) -> str:
    """`data` (dicts with text as keys, lists, str, int, float, bool, None) as one YAML document."""
    yaml = YAML(typ="rt")
    yaml.width = _NEVER_FOLDED
    yaml.Representer = _Representer
    stream = io.StringIO()
    yaml.dump(_dressed(data), stream)
    return stream.getvalue()


def _dressed(value: Any) -> Any:
    if isinstance(value, dict):
        return {_dressed_text(key, may_span=False): _dressed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_dressed(item) for item in value]
    return _dressed_text(value) if isinstance(value, str) else value


def _dressed_text(text: str, *, may_span: bool = True) -> Any:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    if may_span and "\n" in text and _BLOCK.fullmatch(text):
        return LiteralScalarString(text)
    return DoubleQuotedScalarString(text)
