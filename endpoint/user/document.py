"""What a manager (ours or the official one) tells a user endpoint at its start, and credentials renewed later."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from endpoint.engines.block_limits import NO_LIMITS, BlockLimits
from endpoint.errors import ConfigError, EndpointError, Stage
from endpoint.wire.queues import Registration

LARGEST_DOCUMENT = 16 * 1024 * 1024
LARGEST_CREDENTIALS = 1024 * 1024
_HINT = "This command is run by a manager (globus-compute-endpoint start NAME), not by hand"


@dataclass(frozen=True)
class StartDocument:
    """The JSON document on standard input (protocol.md, section 3).

    checked: what `checked_config` made of `config` in the manager, if it is one of ours.
    allowed_functions: None where every function may run.
    limits_functions: whether the document says which functions may run at all (else the configuration does).
    audit_required: whether no task may begin before what happened so far is in the audit log.
    block_limits: how many blocks there may be, whatever `config` says.
    """

    amqp_creds: Mapping[str, Any]
    config: str = field(repr=False)
    ep_info: Mapping[str, Any]
    allowed_functions: tuple[str, ...] | None = None
    limits_functions: bool = False
    audit_fd: int | None = None
    audit_required: bool = False
    block_limits: BlockLimits = NO_LIMITS
    mem_fd: int | None = None
    enckey: str | None = field(default=None, repr=False)
    checked: Mapping[str, Any] | None = field(default=None, repr=False)

    @classmethod
    def read(cls, stream: BinaryIO) -> StartDocument:
        """Read the document to the end of `stream`; raises ConfigError for anything that is not one."""
        raw = stream.read(LARGEST_DOCUMENT + 1)
        if len(raw) > LARGEST_DOCUMENT:
            raise ConfigError("The start document is larger than 16 MiB", hint=_HINT, stage=Stage.EXEC)
        try:
            data = json.loads(raw)
            return cls(
                amqp_creds=_object(data, "amqp_creds"),
                config=_text(data, "config"),
                ep_info=_object(data, "ep_info"),
                allowed_functions=_functions(data.get("allowed_functions")),
                limits_functions="allowed_functions" in data,
                audit_fd=_descriptor(data, "audit_fd"),
                audit_required=data.get("audit_required") is True,
                block_limits=BlockLimits.of(data.get("block_limits") or {}),
                mem_fd=_descriptor(data, "mem_fd"),
                enckey=data.get("enckey"),
                checked=_object(data, "checked") if "checked" in data else None,
            )
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"Standard input does not hold a start document: {error}", hint=_HINT, stage=Stage.EXEC
            ) from error


class _Cipher:
    """Fernet, loaded when there is something to decrypt: most user endpoints end before their credentials do."""

    def __init__(self, key: str) -> None:
        self._key = key

    def decrypt(self, token: bytes) -> bytes:
        """Raises ValueError for what was not encrypted with the key."""
        from cryptography.fernet import Fernet, InvalidToken

        try:
            return Fernet(self._key).decrypt(token)
        except InvalidToken as error:
            raise ValueError("not encrypted with our key") from error


class Credentials:
    """The broker addresses, as they are now: the manager may have put newer ones into the memory file."""

    def __init__(self, document: StartDocument, amqp_port: int | None) -> None:
        self._amqp_port = amqp_port
        self._mem_fd = document.mem_fd
        self._cipher = _Cipher(document.enckey) if document.enckey else None
        self._latest = Registration.parse(document.amqp_creds, amqp_port)
        self._read_version = (0, 0)

    def now(self) -> Registration:
        """The newest registration that can be read; the one before if what is there is not (yet) whole."""
        if self._mem_fd is not None and self._cipher is not None:
            try:
                facts = os.fstat(self._mem_fd)
                version = (facts.st_mtime_ns, facts.st_size)
                if version != self._read_version:  # this is asked for every result
                    self._latest = self._read(self._cipher, self._mem_fd, facts.st_size)
                    self._read_version = version
            except (OSError, ValueError, KeyError, TypeError, EndpointError):
                # Half written, or not written yet: the registration that we have is still the best.
                return self._latest
        return self._latest

    def _read(self, cipher: _Cipher, descriptor: int, size: int) -> Registration:
        content = cipher.decrypt(os.pread(descriptor, min(size, LARGEST_CREDENTIALS), 0))
        return Registration.parse(json.loads(content)["amqp_creds"], self._amqp_port)


def _object(data: Any, key: str) -> Mapping[str, Any]:
    value = data[key]
    if not isinstance(value, dict):
        raise TypeError(f"'{key}' is not an object")
    return value


def _text(data: Any, key: str) -> str:
    value = data[key]
    if not isinstance(value, str):
        raise TypeError(f"'{key}' is not a string")
    return value


def _descriptor(data: Any, key: str) -> int | None:
    value = data.get(key)
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 0):
        raise TypeError(f"'{key}' is not a file descriptor")
    return value or None


def _functions(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(str(function).lower() for function in value)
