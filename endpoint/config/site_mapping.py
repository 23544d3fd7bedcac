"""The identity mappings of a site document: who becomes whom by their rules, and who should."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any, Protocol

from endpoint.config.check import errors, problems
from endpoint.config.faults import Fault, Path
from endpoint.config.mapping_faults import mapping_faults
from endpoint.config.parse import Document, parse_json, parse_yaml
from endpoint.config.report import located
from endpoint.config.site_document import Site, mapping, text, texts
from endpoint.errors import ConfigError

if TYPE_CHECKING:
    from endpoint.config.examine import Examiner

EVERY_ACCOUNT = "*"


@dataclass(frozen=True)
class Shared:
    """An account that rules give to two identities; `rules`: their places as (document, rule), counted from 0."""

    account: str
    message: str
    rules: tuple[tuple[int, int], ...]


class Judge(Protocol):
    """What the rules of an identity mapping do; `data` is a mapping file's, and right in its form."""

    def shared(self, data: Sequence[Any]) -> tuple[list[Shared], list[str]]:
        """The accounts that several identities may be, and notes on what can't be told."""

    def user(self, data: Sequence[Any], identity: Any) -> tuple[str | None, bool]:
        """Who somebody is here (None: nobody), and whether that is sure: what a program says is not."""


def check_mappings(examiner: Examiner, site: Site, document: Document, path: FilePath) -> None:
    """Report what is wrong with the rules where they stand, and with `expect` in the document."""
    for name, endpoint in site.present.items():
        block = endpoint.get("identity_mapping")
        if isinstance(block, dict) and endpoint.get("kind") == "multi-user":
            _check(examiner, _Mapping(site, endpoint, block, ("endpoints", name)), document, path)


@dataclass(frozen=True)
class _Mapping:
    """The mapping of one endpoint; `place` is the endpoint's path in the document."""

    site: Site
    endpoint: dict[str, Any]
    block: dict[str, Any]
    place: Path

    @property
    def here(self) -> Path:
        return (*self.place, "identity_mapping")

    @property
    def shared(self) -> list[str]:
        return texts(self.block.get("shared_accounts"))

    @property
    def expect(self) -> dict[str, str | None]:
        """Those that say something sensible."""
        given = mapping(self.block.get("expect")).items()
        return {who: user for who, user in given if user is None or isinstance(user, str)}

    def may_share(self, account: str) -> bool:
        return account in self.shared or EVERY_ACCOUNT in self.shared


def _check(examiner: Examiner, its: _Mapping, document: Document, path: FilePath) -> None:
    found = list(_twice_expected(its))
    if "data" in its.block:
        rules, where, before = Document(its.block["data"], str(path)), path, (*its.here, "data")
        found += [_below(before, fault) for fault in mapping_faults(rules.data)]
    else:
        loaded = _loaded(examiner, its)
        if loaded is None:
            examiner.found(path, located(found, str(path), document.position))
            return
        rules, where = loaded
    if examiner.judge and not errors(problems(rules, "identity-mapping")) and not _broken(rules):
        shared, notes = examiner.judge.shared(rules.data)
        told = [_fault(one) for one in shared if not its.may_share(one.account)]
        if where == path:
            found += [_below((*its.here, "data"), fault) for fault in told]
        else:
            examiner.found(where, located(told, str(where), rules.position))
        examiner.found(where, (), notes)
        found += _expectations(examiner.judge, its, rules.data)
    examiner.found(path, located(found, str(path), document.position))


def _broken(rules: Document) -> bool:
    return any(not fault.warning for fault in mapping_faults(rules.data))


def _loaded(examiner: Examiner, its: _Mapping) -> tuple[Document, FilePath] | None:
    """The rules in a file, which has been reported on; None where there is none that can be read."""
    from endpoint.config.model import read_text

    file = text(its.block.get("file"))
    if not file or not examiner.follow:
        return None
    where = its.site.folder / file
    try:
        written = read_text(where)
    except ConfigError:
        return None
    return (parse_json if where.suffix == ".json" else parse_yaml)(written, str(where)), where


def _fault(shared: Shared) -> Fault:
    document, rule = shared.rules[-1] if shared.rules else (0, 0)
    hint = f"if they may, name {shared.account} in `shared_accounts`"
    return Fault((document, "mappings", rule, "output"), f"two people become one account: {shared.message}", hint)


def _below(place: Path, fault: Fault) -> Fault:
    return Fault((*place, *fault.path), fault.message, fault.hint, fault.warning)


def _twice_expected(its: _Mapping) -> Iterator[Fault]:
    first: dict[str, str] = {}
    for who, user in its.expect.items():
        if user is not None and first.setdefault(user, who) != who and not its.may_share(user):
            said = f"{first[user]} is {user} already, and two people should not be one account"
            yield Fault((*its.here, "expect", who), said, f"if they may, name {user} in `shared_accounts`")


def _expectations(judge: Judge, its: _Mapping, rules: Sequence[Any]) -> Iterator[Fault]:
    for who, user in its.expect.items():
        got, sure = judge.user(rules, who)
        if sure and got != user:
            yield Fault((*its.here, "expect", who), f"by the rules this is {got or 'nobody'}, not {user or 'nobody'}")
    health = mapping(its.endpoint.get("health"))
    expected = text(health.get("user"))
    identity = _identity(its, health)
    if expected and identity:
        got, sure = judge.user(rules, identity)
        if sure and got != expected:
            said = f"by the rules the client that asks is {got or 'nobody'}, not {expected}"
            yield Fault((*its.place, "health", "user"), said)


def _identity(its: _Mapping, health: Mapping[str, Any]) -> dict[str, str] | None:
    """The identity of the client that asks for the sample function, where the document tells its user name."""
    client = mapping(health.get("client")) or mapping(mapping(its.endpoint.get("secrets")).get("client"))
    for one in mapping((its.site.hub or {}).get("clients")).values():
        known = mapping(one)
        if text(known.get("id")) and text(known["id"]).lower() == text(client.get("id")).lower():
            username = text(known.get("username"))
            return {"id": known["id"], "username": username} if username else None
    return None
