"""A user endpoint's configuration that its manager has checked already, as a part of the start document."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from endpoint.config.model import UserConfig, load_user_config, user_config, user_values


def checked_config(text: str, source: str) -> dict[str, Any]:
    """What to hand over beside `text`. Raises ConfigError that tells all problems."""
    return {"values": user_values(text, source), **_stamp(text)}


def take_config(text: str, source: str, checked: Mapping[str, Any] | None) -> UserConfig:
    """The typed configuration: of `checked` where that is of this very text and by this very installation, else of
    `text`. Raises ConfigError."""
    if checked is not None and _stamp(text).items() <= checked.items() and isinstance(checked.get("values"), dict):
        return user_config(checked["values"])
    return load_user_config(text, source)


def _stamp(text: str) -> dict[str, str]:
    return {
        "checked_by": f"{__file__} {Path(__file__).stat().st_mtime_ns}",  # the same installation, not changed since
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
    }
