"""Who the endpoint is to the web service: where that comes from, whether it works, how long it lasts."""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import globus_sdk
from globus_sdk.token_storage import SQLiteTokenStorage, TokenStorageData

from endpoint.doctor.findings import Finding, failed, failure, ok, warning
from endpoint.doctor.situation import NotTried, Situation
from endpoint.errors import LoginError
from endpoint.manager.login import (
    ID_VARIABLE,
    TOKEN_FILE,
    AuthClient,
    ClientCredentials,
    auth_errors,
    client_credentials,
    globus_app,
    login_required,
    service_environment,
    storage_namespace,
)
from endpoint.privileged.client_files import (
    DIRECTORY_VARIABLE,
    FILE_VARIABLE,
    ID_FILE,
    handed_over,
    keep_from_children,
    read_client,
    with_client,
)

SOON_DAYS = 7
DAY_S = 86400


def check(situation: Situation) -> Iterator[Finding]:
    """Leaves `app`."""
    config = situation.needed_config()
    environment = service_environment(config.environment, os.environ)
    credentials, source = _client(situation)
    if credentials is None:
        yield from _person(situation, environment)
    else:
        words = f"A client identity, {credentials.client_id}, from {source}"
        yield ok(words, client_id=credentials.client_id, source=source, **_mode(source))
        yield from _client_works(situation, environment)


def _client(situation: Situation) -> tuple[ClientCredentials | None, str]:
    """The client identity and where it comes from; raises LoginError or ConfigError."""
    folder = os.environ.get(DIRECTORY_VARIABLE)  # where a unit with LoadCredential= has them
    if folder and (found := read_client(Path(folder), (os.geteuid(), 0))):
        # As the monitor does it for its manager.
        os.environ.update(with_client({}, handed_over(found)))
        keep_from_children(os.environ)
        return client_credentials(os.environ), str(Path(folder) / ID_FILE)
    credentials = client_credentials(os.environ, situation.folder)
    if os.environ.get(ID_VARIABLE, "").strip():
        return credentials, "the environment"
    if path := os.environ.get(FILE_VARIABLE):
        return credentials, path
    return credentials, str(situation.folder / ID_FILE)


def _mode(source: str) -> dict[str, str]:
    try:
        return {"mode": f"{stat.S_IMODE(Path(source).stat().st_mode):04o}"}
    except OSError:
        return {}


def _client_works(situation: Situation, environment: str | None) -> Iterator[Finding]:
    """Ask for tokens anew, and keep them nowhere: so the secret is tried, and no file changes."""
    folder = situation.leftovers.enter_context(tempfile.TemporaryDirectory(prefix="doctor-"))
    with auth_errors():
        app = globus_app(environment, Path(folder), situation.folder)
        yield from _whose(app)
    situation.app = app


def _person(situation: Situation, environment: str | None) -> Iterator[Finding]:
    path = situation.compute_dir / TOKEN_FILE
    if not path.exists():
        if situation.multi_user and DIRECTORY_VARIABLE not in os.environ:
            raise NotTried(
                "no client identity is in the environment or the endpoint's directory, and nobody is logged in; a "
                "unit's LoadCredential= is seen by the unit alone",
                "See that the unit has one, or log in as the service user",
            )
        yield failure(login_required())
        return
    status = path.stat()
    if status.st_uid != os.geteuid():
        raise NotTried(
            f"the login in {path} is that of the user with the id {status.st_uid}", "Run this command as that user, too"
        )
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield warning(
            f"Others can read the tokens in {path} (its mode is {stat.S_IMODE(status.st_mode):04o})",
            f"Run: chmod 600 {path}",
            code="TOKENS_OPEN",
        )
    yield from _stored(path, storage_namespace(environment, None))
    app = globus_app(environment, situation.compute_dir, situation.folder)
    with auth_errors():
        if app.login_required():
            yield failure(login_required())
            return
        yield from _whose(app)
    situation.app = app


def _stored(path: Path, namespace: str) -> Iterator[Finding]:
    """What is known of the tokens without asking anybody."""
    storage = SQLiteTokenStorage(path, namespace=namespace)
    try:
        tokens = storage.get_token_data_by_resource_server()
    finally:
        storage.close()
    for server, token in sorted(tokens.items()):
        yield _expiry(server, token)


def _expiry(server: str, token: TokenStorageData) -> Finding:
    left_s = token.expires_at_seconds - time.time()
    until = datetime.fromtimestamp(token.expires_at_seconds, timezone.utc).isoformat(timespec="seconds")
    facts: dict[str, Any] = {
        "resource_server": server,
        "expires": until,
        "left_s": round(left_s),
        "renews_itself": token.refresh_token is not None,
    }
    if token.refresh_token is not None:
        return ok(f"A token for {server}, good until {until}; it is renewed by itself", **facts)
    if left_s <= 0:
        again = "Log in again: globus-compute-endpoint login --force"
        return failed(f"The token for {server} was good until {until}", again, code="TOKEN_OVER", **facts)
    words = f"A token for {server}, good until {until}; it can't be renewed"
    if left_s < SOON_DAYS * DAY_S:
        return warning(words, "Log in again: globus-compute-endpoint login --force", code="TOKEN_ENDS", **facts)
    return ok(words, **facts)


def _whose(app: globus_sdk.GlobusApp) -> Iterator[Finding]:
    """Ask the authorization service; inside `auth_errors`."""
    begin = time.monotonic()
    answer = AuthClient(app=app).userinfo().data
    took_ms = round((time.monotonic() - begin) * 1000, 1)
    if not isinstance(answer, dict) or not answer.get("sub"):
        raise LoginError("The authorization service names no identity for this login", code="NO_IDENTITY")
    name = answer.get("preferred_username") or answer["sub"]
    yield ok(
        f"The authorization service knows us as {name} ({took_ms:.0f} ms)",
        username=str(name),
        identity=str(answer["sub"]),
        latency_ms=took_ms,
    )
