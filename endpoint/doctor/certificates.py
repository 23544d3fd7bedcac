"""TLS as a client of ours would have it: who the other side is, by whom that is signed, and how long it lasts."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import SplitResult, unquote

from cryptography import x509
from cryptography.x509.oid import NameOID

from endpoint.doctor.findings import Finding, failed, ok, warning
from endpoint.errors import ExitStatus, Mender, NetworkFailure

WARN_DAYS = 14
DAY_S = 86400
MOST_NAMES = 10


@dataclass(frozen=True)
class Place:
    """A host and port, with the HTTP proxy on the way to it, if there is one."""

    host: str
    port: int
    proxy: SplitResult | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@contextlib.contextmanager
def connection(place: Place, timeout_s: float) -> Iterator[socket.socket]:
    """A TCP connection to it. Raises NetworkFailure."""
    try:
        opened = _through_proxy(place, timeout_s) if place.proxy else _direct(place, timeout_s)
    except socket.gaierror as error:
        raise NetworkFailure(
            f"The name {place.host} is unknown here", hint="Look at the resolver: /etc/resolv.conf", code="DNS"
        ) from error
    except OSError as error:
        raise NetworkFailure(
            f"No connection to {place}: {_words(error)}",
            hint="Look at the network and its firewall, whether that port is open outwards",
            detail=repr(error),
        ) from error
    with opened:
        yield opened


def _direct(place: Place, timeout_s: float) -> socket.socket:
    return socket.create_connection((place.host, place.port), timeout_s)


def _through_proxy(place: Place, timeout_s: float) -> socket.socket:
    assert place.proxy is not None
    proxy = place.proxy
    client = http.client.HTTPConnection(proxy.hostname or "", proxy.port or 80, timeout=timeout_s)
    client.set_tunnel(place.host, place.port, headers=_authorization(proxy))
    client.connect()
    assert client.sock is not None
    return client.sock


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if not proxy.username:
        return {}
    from base64 import b64encode

    pair = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}".encode()
    return {"Proxy-Authorization": f"Basic {b64encode(pair).decode()}"}


def tls_findings(
    place: Place, context: ssl.SSLContext, timeout_s: float, *, checked_name: bool = True
) -> list[Finding]:
    """The handshake's time and the certificate. Raises NetworkFailure where there is no TCP connection."""
    refused = None
    begin = time.monotonic()
    certificate: bytes | None = None
    with connection(place, timeout_s) as opened:
        begin = time.monotonic()
        try:
            context.check_hostname = checked_name and context.verify_mode is not ssl.CERT_NONE
            with context.wrap_socket(opened, server_hostname=place.host) as secure:
                took_ms = round((time.monotonic() - begin) * 1000, 1)
                version = secure.version()
                certificate = secure.getpeercert(binary_form=True)
        except ssl.SSLCertVerificationError as error:
            refused = error.verify_message
        except (OSError, ssl.SSLError) as error:
            return [_no_tls(place, error)]
    if refused is not None:
        return [_refused(place, refused, _unverified(place, timeout_s))]
    facts: dict[str, Any] = _facts(certificate) | {"handshake_ms": took_ms, "protocol": version}
    return [_dates(place, facts)]


def _unverified(place: Place, timeout_s: float) -> bytes | None:
    """The certificate of somebody whom we don't believe, only to tell of it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with connection(place, timeout_s) as opened, context.wrap_socket(opened, server_hostname=place.host) as secure:
            return secure.getpeercert(binary_form=True)
    except (OSError, ssl.SSLError, NetworkFailure):
        return None


def _facts(certificate: bytes | None) -> dict[str, Any]:
    if certificate is None:
        return {}
    found = x509.load_der_x509_certificate(certificate)
    end = found.not_valid_after_utc
    return {
        "issuer": _organization(found.issuer),
        "names": _names(found),
        "valid_from": found.not_valid_before_utc.isoformat(),
        "valid_until": end.isoformat(),
        "days_left": round((end - datetime.now(timezone.utc)).total_seconds() / DAY_S, 1),
    }


def _organization(name: x509.Name) -> str:
    for kind in (NameOID.ORGANIZATION_NAME, NameOID.COMMON_NAME):
        if found := name.get_attributes_for_oid(kind):
            return str(found[0].value)
    return name.rfc4514_string()


def _names(certificate: x509.Certificate) -> list[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    names = [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]
    return names[:MOST_NAMES]


def _dates(place: Place, facts: dict[str, Any]) -> Finding:
    until, days = facts["valid_until"][:10], facts["days_left"]
    words = f"Certificate of {place} by {facts['issuer']}, good until {until}"
    if days < WARN_DAYS:
        return warning(
            f"{words}: {days:.0f} days are left",
            "Whoever runs the service renews it; after that day no endpoint gets through",
            mender=Mender.SERVICE,
            code="CERTIFICATE_ENDS",
            **facts,
        )
    took = f"{days:.0f} days are left, handshake {facts['handshake_ms']:.0f} ms, {facts['protocol']}"
    return ok(f"{words} ({took})", **facts)


def _refused(place: Place, why: str, certificate: bytes | None) -> Finding:
    facts: dict[str, Any] = _facts(certificate)
    seen = f" It is by {facts['issuer']}, for {', '.join(facts['names']) or 'no name'}, good until " if facts else ""
    seen += facts["valid_until"][:10] if facts else ""
    return failed(
        f"The certificate of {place} is not believed: {why}.{seen}",
        "If the site's network looks into TLS, name a file with its authorities in SSL_CERT_FILE "
        "(for the web service, GLOBUS_SDK_VERIFY_SSL wins); if it is over, whoever runs the service renews it",
        code="CERTIFICATE",
        status=ExitStatus.NETWORK,
        **facts,
    )


def _no_tls(place: Place, error: OSError) -> Finding:
    return failed(
        f"No TLS with {place}: {_words(error)}",
        "Look whether something else answers at that port, or a firewall cuts the connection",
        code="TLS",
        status=ExitStatus.NETWORK,
        detail=repr(error),
    )


def _words(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "nothing answers in time"
    return (error.strerror or str(error)).strip() or type(error).__name__
