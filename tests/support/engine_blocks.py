"""`engine` blocks as an engine gets them: today's options, with the schema's defaults."""

from __future__ import annotations

from typing import Any

from endpoint.config.schemas import with_defaults


def engine_block(**options: Any) -> dict[str, Any]:
    """The block with `options` as configured, the others by default; without a `type`, a GlobusComputeEngine's."""
    filled: dict[str, Any] = with_defaults({"type": "GlobusComputeEngine", **options}, "engine")
    return filled
