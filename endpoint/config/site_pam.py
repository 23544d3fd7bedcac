"""PAM services of a site document: the lines that are written where none are given, and which services hosts have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from endpoint.config.faults import Fault, Path
from endpoint.config.site_document import Site, mapping, text
from endpoint.config.validate import nearest

DEFAULT_SERVICE = "globus-compute-endpoint"
# Who may have a session is for the account modules; what the session gets, for the others. All are in every Linux-PAM.
DEFAULT_STACK = (
    "account  required  pam_nologin.so",
    "account  required  pam_unix.so",
    "session  optional  pam_keyinit.so force revoke",
    "session  required  pam_limits.so",
    "session  required  pam_env.so",
)
# What is in /etc/pam.d of a host by the packages of its distribution.
_EVERYWHERE = {*("chfn", "chsh", "cron", "login", "other", "passwd", "sshd", "su", "su-l", "sudo", "systemd-user")}
_DEBIAN = {
    *("common-account", "common-auth", "common-password", "common-session", "common-session-noninteractive"),
    *("atd", "chpasswd", "newusers", "runuser", "runuser-l", "sudo-i"),
}
_RED_HAT = {
    *("system-auth", "password-auth", "postlogin", "fingerprint-auth", "smartcard-auth", "remote", "crond"),
    *("config-util", "polkit-1", "vlock"),
}
KNOWN_SERVICES = frozenset(_EVERYWHERE | _DEBIAN | _RED_HAT)
_INCLUDE = re.compile(r"@include\s+(?P<file>\S+)|-?\w+\s+(?:include|substack)\s+(?P<service>\S+)")


def pam_stack(pam: dict[str, Any]) -> list[str] | None:
    """The lines of the service that are to be written; None where the file is on the host already."""
    if pam.get("stack") is not None:
        return list(pam["stack"])
    ours = pam["service"] == DEFAULT_SERVICE and not pam["existing"]
    return list(DEFAULT_STACK) if ours else None


def pam_faults(site: Site) -> Iterator[Fault]:
    """Services that no host has, and files of a distribution that would be written over."""
    for name, endpoint in site.present.items():
        pam = endpoint.get("pam")
        if isinstance(pam, dict):
            yield from _service_faults(site, pam, ("endpoints", name, "pam"))


def _service_faults(site: Site, pam: dict[str, Any], path: Path) -> Iterator[Fault]:
    service, stack = text(pam.get("service")), pam.get("stack")
    if isinstance(stack, list):
        yield from _written_faults(pam, service, path)
        for index, line in enumerate(stack):
            yield from _include_faults(site, line, (*path, "stack", index))
    elif service and not (service == DEFAULT_SERVICE or pam.get("existing") or _known(site, service)):
        yield Fault(
            (*path, "service"),
            f"there is no such PAM service: {service!r}",
            nearest(service, sorted(KNOWN_SERVICES), ())
            or "give its lines in `stack`, or say `existing: true` where somebody else puts it on the hosts",
        )


def _written_faults(pam: dict[str, Any], service: str, path: Path) -> Iterator[Fault]:
    if pam.get("existing"):
        yield Fault((*path, "existing"), "the service has its lines in `stack`, so nobody else puts it there")
    if service in KNOWN_SERVICES:
        message = f"{service} is the distribution's own service, and `stack` would take its place for everybody"
        yield Fault((*path, "service"), message, f"give it another name, such as {DEFAULT_SERVICE}")


def _include_faults(site: Site, line: Any, path: Path) -> Iterator[Fault]:
    found = _INCLUDE.match(line) if isinstance(line, str) else None
    named = (found["file"] or found["service"]) if found else ""
    if named and not named.startswith("/") and not _known(site, named):
        hint = (
            nearest(named, sorted(KNOWN_SERVICES), ()) or "write its lines here; or another endpoint's `pam` brings it"
        )
        yield Fault(path, f"there is no such PAM service: {named!r}", hint)


def _known(site: Site, service: str) -> bool:
    """Whether a distribution brings the service, or another endpoint's `pam`."""
    if service in KNOWN_SERVICES:
        return True
    given = (mapping(endpoint.get("pam")) for endpoint in site.present.values())
    return any(pam.get("service") == service and (pam.get("stack") or pam.get("existing")) for pam in given)
