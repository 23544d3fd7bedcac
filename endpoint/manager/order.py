"""What is wanted of a user endpoint, as data: the document that whoever becomes the user renders and starts.

A single-user manager keeps it to itself. Under a monitor it travels to `endpoint.cli.prepare`, which runs as the mapped
user; that process starts for each user endpoint, so this module and `plan.py` import no more than it needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from endpoint.errors import EndpointError, Mender, Stage

LARGEST_ORDER = 16 * 1024 * 1024


class SpawnFailure(EndpointError):
    """The process of a user endpoint can't be started."""

    mender = Mender.ADMIN
    stage = Stage.EXEC
    code = "CANNOT_START"


@dataclass(frozen=True)
class Order:
    """One user endpoint that is to be started. The template and its schema are as the manager read them."""

    name: str
    template_path: Path
    template_text: str = field(repr=False)
    mapped_identity: Mapping[str, Any]
    amqp_creds: Mapping[str, Any] = field(repr=False)
    enckey: str = field(repr=False)
    args: tuple[str, ...] = ()
    options_schema: dict[str, Any] | None = None
    user_options: Mapping[str, Any] = field(default_factory=dict)
    user_runtime: Mapping[str, Any] = field(default_factory=dict)
    parent_config: Mapping[str, Any] = field(default_factory=dict)
    user_environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    ep_info: Mapping[str, Any] = field(default_factory=dict)
    allowed_functions: tuple[str, ...] | None = None
    high_assurance: bool = False
    block_limits: Mapping[str, int | None] = field(default_factory=dict)
    compute_dir: str | None = None

    @property
    def account(self) -> Mapping[str, Any]:
        """The local user, as templates see it."""
        local: Mapping[str, Any] = self.mapped_identity["local"]
        return local

    def to_json(self) -> bytes:
        """The document."""
        return json.dumps(asdict(self), separators=(",", ":"), default=str).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Order:
        """The order in a document; raises SpawnFailure for what is none."""
        try:
            order = cls(**json.loads(text))
            functions = order.allowed_functions
            return replace(
                order,
                template_path=Path(order.template_path),
                args=tuple(map(str, order.args)),
                allowed_functions=None if functions is None else tuple(map(str, functions)),
            )
        except (ValueError, TypeError, RecursionError) as error:
            raise SpawnFailure(
                "The manager's order for a user endpoint can't be read",
                hint="Manager and user endpoints may be of different versions: restart the endpoint",
                detail=repr(error),
                code="BAD_ORDER",
            ) from error
