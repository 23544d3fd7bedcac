"""Who this endpoint is to the web service: a person's login, or a client identity.

Token files, their namespaces and the native client are those of the official SDK, so that one login serves both.
A client identity comes from `GLOBUS_COMPUTE_CLIENT_ID` and `GLOBUS_COMPUTE_CLIENT_SECRET`, or from the file that
`GLOBUS_COMPUTE_CREDENTIAL_FILE` names, whose mode must keep others out, or from the files `client_id` and
`client_secret` among the credentials of a unit of systemd (`$CREDENTIALS_DIRECTORY`), or in the endpoint's directory.
"""

from __future__ import annotations

import json
import os
import sqlite3
import stat
import sys
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import globus_sdk
from globus_sdk.config.env_vars import SSL_VERIFY_VAR
from globus_sdk.login_flows import CommandLineLoginFlowEOFError, CommandLineLoginFlowManager
from globus_sdk.scopes import AuthScopes
from globus_sdk.token_storage import MemoryTokenStorage, SQLiteTokenStorage, TokenValidationError
from globus_sdk.transport import RequestsTransport, RetryConfig

from endpoint.errors import ConfigError, EndpointError, LoginError, NetworkFailure, Stage, UnexpectedAnswer
from endpoint.privileged.client_files import DIRECTORY_VARIABLE, FILE_VARIABLE, read_client

ID_VARIABLE = "GLOBUS_COMPUTE_CLIENT_ID"
SECRET_VARIABLE = "GLOBUS_COMPUTE_CLIENT_SECRET"  # noqa: S105 - the name of a variable
ENVIRONMENT_VARIABLE = "GLOBUS_SDK_ENVIRONMENT"
AUTH_URL_VARIABLE = "GLOBUS_SDK_SERVICE_URL_AUTH"
COMPUTE_URL_VARIABLE = "GLOBUS_SDK_SERVICE_URL_COMPUTE"
AUTHORITIES_VARIABLE = "SSL_CERT_FILE"  # as OpenSSL has it, for the broker too
ENVIRONMENTS = ("production", "preview", "sandbox", "integration", "test", "staging")  # those that globus_sdk knows
TOKEN_FILE = "storage.db"  # noqa: S105 - the name of a file
# The public client of the official SDK for people's logins; it has no secret.
NATIVE_CLIENT_ID = "4cf29807-cf21-49ec-9443-ff9a3fb9f81c"
TIMEOUT_S = 30.0
RETRIES = 2  # beside the first try; the default would keep a person waiting for a quarter of a minute
_MAX_CREDENTIAL_BYTES = 64 * 1024


@dataclass(frozen=True, repr=False)
class ClientCredentials:
    """A client identity; its `repr` keeps the secret."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"ClientCredentials(client_id={self.client_id!r})"


def client_credentials(environ: Mapping[str, str], endpoint_dir: Path | None = None) -> ClientCredentials | None:
    """The client identity that the environment gives or points to, else the endpoint's own files; None: a person's
    login is wanted.

    Half an identity is an error, LoginError or ConfigError: to go on as a person would be a surprise.
    """
    given = {name: environ.get(name, "").strip() for name in (ID_VARIABLE, SECRET_VARIABLE)}
    missing = [name for name, value in given.items() if not value]
    if not missing:
        return checked_credentials(given[ID_VARIABLE], given[SECRET_VARIABLE], "the environment")
    if len(missing) == 1:
        raise LoginError(
            f"{missing[0]} is not set, although its companion is; a client identity needs both",
            hint=f"Set {missing[0]} too, or unset both to log in as a person",
            code="PARTIAL_CREDENTIALS",
        )
    if path := environ.get(FILE_VARIABLE):
        return read_credential_file(Path(path))
    if unit := environ.get(DIRECTORY_VARIABLE):
        client = read_client(Path(unit), (0, os.geteuid()), of_unit=True)
        if client:
            return checked_credentials(*client, unit)
    return _own_files(endpoint_dir) if endpoint_dir else None


def _own_files(endpoint_dir: Path) -> ClientCredentials | None:
    """Whoever owns the directory owns the files: root, too, follows nothing else that lies there."""
    try:
        owner = endpoint_dir.stat().st_uid
    except OSError:  # there is no endpoint here
        return None
    client = read_client(endpoint_dir, (owner,))
    return checked_credentials(*client, str(endpoint_dir)) if client else None


def read_credential_file(path: Path) -> ClientCredentials:
    """The client identity in a file that only its owner can read: a JSON object, or KEY=VALUE lines.

    The keys are the two variables' names; `client_id` and `client_secret` do as well. LoginError otherwise.
    """
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            content = file.read(_MAX_CREDENTIAL_BYTES)
    except OSError as error:
        raise _bad_file(path, f"can't be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise _bad_file(path, "is not a regular file")
    if status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise LoginError(
            f"The credential file {path} is open to others (its mode is {stat.S_IMODE(status.st_mode):04o})",
            hint=f"Run: chmod 600 {path}. If others could read it, replace the client's secret as well",
            code="CREDENTIAL_FILE_OPEN",
        )
    values = _parse_credentials(path, content)
    client_id = values.get(ID_VARIABLE.lower()) or values.get("client_id")
    secret = values.get(SECRET_VARIABLE.lower()) or values.get("client_secret")
    if not client_id or not secret:
        raise _bad_file(path, f"has no {SECRET_VARIABLE if client_id else ID_VARIABLE}")
    return checked_credentials(client_id, secret, str(path))


def _parse_credentials(path: Path, content: bytes) -> dict[str, str]:
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _bad_file(path, "is not UTF-8 text") from error
    if text.lstrip().startswith("{"):
        try:
            document: dict[str, Any] = json.loads(text)
        except ValueError as error:
            raise _bad_file(path, "starts like JSON, and is not") from error
        return {key.lower(): value.strip() for key, value in document.items() if isinstance(value, str)}
    values = {}
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip().removeprefix("export ")
        if not line or line.startswith("#"):
            continue
        key, separator, value = line.partition("=")
        if not separator:
            raise _bad_file(path, f"has a line that is not KEY=VALUE: line {number}")
        values[key.strip().lower()] = value.strip().strip("'\"")
    return values


def _bad_file(path: Path, problem: str) -> LoginError:
    return LoginError(
        f"The credential file {path} {problem}",
        hint=f"Write it as JSON or as KEY=VALUE lines with {ID_VARIABLE} and {SECRET_VARIABLE}, mode 0600",
        code="BAD_CREDENTIAL_FILE",
    )


def checked_credentials(client_id: str, secret: str, source: str) -> ClientCredentials:
    """A client identity that `source` gives; LoginError where its id is no UUID."""
    try:
        return ClientCredentials(str(uuid.UUID(client_id)), secret)
    except ValueError as error:
        raise LoginError(
            f"The client id in {source} is not a UUID",
            hint="Look at the client's page of the authorization service, or ask who made the client",
            code="BAD_CREDENTIALS",
        ) from error


def storage_namespace(environment: str | None, credentials: ClientCredentials | None) -> str:
    """Which part of the token file is ours, by the official SDK's convention."""
    name = environment or "production"
    return f"clientprofile/{name}/{credentials.client_id}" if credentials else f"user/{name}"


def service_environment(configured: str | None, environ: Mapping[str, str]) -> str | None:
    """The environment of the services; None: the public one. ConfigError where nobody knows the services' addresses.

    configured: as config.yaml has it; it wins over the variable in `environ`. A name of a site's own will do where
    the variables `GLOBUS_SDK_SERVICE_URL_*` have the addresses.
    """
    name = configured or environ.get(ENVIRONMENT_VARIABLE) or None
    if name is None or name in ENVIRONMENTS:
        return name
    # For `local`, the Compute service has an address of its own accord.
    needed = [AUTH_URL_VARIABLE, *([] if name == "local" else [COMPUTE_URL_VARIABLE])]
    missing = [variable for variable in needed if not environ.get(variable)]
    if missing:
        source = "environment in config.yaml" if configured else f"The variable {ENVIRONMENT_VARIABLE}"
        raise ConfigError(
            f"{source} names the service environment {name!r}, whose addresses are not known",
            hint=f"Known are {', '.join(ENVIRONMENTS)}. For another, set {' and '.join(missing)}",
            stage=Stage.LOGIN,
            code="UNKNOWN_ENVIRONMENT",
        )
    return name


def authorities() -> str | None:
    """The file with the authorities that web services are believed by, where `SSL_CERT_FILE` names one.

    None: by `GLOBUS_SDK_VERIFY_SSL`, or those that come with the library.
    """
    path = os.environ.get(AUTHORITIES_VARIABLE, "")
    return path if path and not os.environ.get(SSL_VERIFY_VAR) and Path(path).is_file() else None


def globus_app(
    environment: str | None,
    compute_dir: Path,
    endpoint_dir: Path | None = None,
    *,
    credentials: ClientCredentials | None = None,
) -> globus_sdk.GlobusApp:
    """The login with which REST clients of `globus_sdk` are made; with `endpoint_dir`, perhaps that endpoint's own.

    With `credentials` it is that client's, whose tokens are kept in this process alone.
    It asks for the Compute service and the caller's identity; a client that needs more scopes adds them.
    Without a terminal, a person's login that is missing or over is a LoginError, never a prompt. ConfigError for an
    environment that is not known.
    """
    environment = service_environment(environment, os.environ)
    given, credentials = credentials, credentials or client_credentials(os.environ, endpoint_dir)
    scopes = {
        globus_sdk.ComputeClientV3.scopes.resource_server: [globus_sdk.ComputeClientV3.scopes.all],
        AuthScopes.resource_server: [AuthScopes.openid],
    }
    config: dict[str, Any] = {
        "request_refresh_tokens": True,
        "token_storage": MemoryTokenStorage()
        if given
        else _token_storage(compute_dir, storage_namespace(environment, credentials)),
    }
    client: dict[str, Any] = {
        "app_name": "Compute endpoint",
        "transport": RequestsTransport(verify_ssl=authorities(), http_timeout=TIMEOUT_S),
        "retry_config": RetryConfig(max_retries=RETRIES),
    }
    if environment:
        config["environment"] = client["environment"] = environment
    if credentials:
        return globus_sdk.ClientApp(
            client["app_name"],
            login_client=globus_sdk.ConfidentialAppAuthClient(
                credentials.client_id, credentials.client_secret, **client
            ),
            scope_requirements=scopes,
            config=globus_sdk.GlobusAppConfig(**config),
        )
    native = globus_sdk.NativeAppAuthClient(NATIVE_CLIENT_ID, **client)
    config |= {
        "login_flow_manager": _TerminalLogin,
        "token_validation_error_handler": _log_in_or_refuse,
        # The library's own joins wrongly where the service's address was given without a slash at its end.
        "login_redirect_uri": native.base_url.rstrip("/") + "/v2/web/auth-code",
    }
    return globus_sdk.UserApp(
        client["app_name"],
        login_client=native,
        scope_requirements=scopes,
        config=globus_sdk.GlobusAppConfig(**config),
    )


class AuthClient(globus_sdk.AuthClient):
    """Asks who somebody is with what every login has: the library's own needs scopes that ours doesn't ask for."""

    default_scope_requirements = [AuthScopes.openid]

    def __init__(self, *, app: globus_sdk.GlobusApp) -> None:
        super().__init__(app=app, transport=RequestsTransport(verify_ssl=authorities(), http_timeout=TIMEOUT_S))


def _token_storage(compute_dir: Path, namespace: str) -> SQLiteTokenStorage:
    path = compute_dir / TOKEN_FILE
    try:
        compute_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        # REST calls run in worker threads, one at a time
        return SQLiteTokenStorage(path, namespace=namespace, connect_params={"check_same_thread": False})
    except (OSError, globus_sdk.GlobusError, sqlite3.Error) as error:
        raise LoginError(
            f"The token file {path} can't be used: {error}",
            hint="Look at the directory's permissions, or move the file away and log in again",
            code="TOKEN_FILE",
        ) from error


class _TerminalLogin(CommandLineLoginFlowManager):
    """Asks on stderr, so that a redirected stdout stays clean."""

    def print_authorize_url(self, authorize_url: str) -> None:
        sys.stderr.write(f"Log in with a browser at this address:\n\n{authorize_url}\n\n")

    def prompt_for_code(self) -> str:
        sys.stderr.write("Then paste the code here: ")
        sys.stderr.flush()
        code = sys.stdin.readline()
        if not code.strip():
            raise login_required()
        return code.strip()


def _log_in_or_refuse(app: globus_sdk.GlobusApp, error: TokenValidationError) -> None:
    if not sys.stdin or not sys.stdin.isatty():
        raise login_required() from error
    app.login(force=True)


def login_required() -> LoginError:
    """Nobody is logged in, and nobody can be asked."""
    return LoginError(
        "Nobody is logged in to the web service",
        hint=f"Run: globus-compute-endpoint login, or set {ID_VARIABLE} and {SECRET_VARIABLE}, or {FILE_VARIABLE}",
    )


@contextmanager
def auth_errors(stage: Stage = Stage.LOGIN) -> Iterator[None]:
    """Turn what `globus_sdk` raises about the authorization service into our errors."""
    try:
        yield
    except EndpointError:
        raise
    except globus_sdk.NetworkError as error:
        raise NetworkFailure(
            f"The authorization service can't be reached: {error}",
            hint="Look at the network, and at GLOBUS_SDK_SERVICE_URL_AUTH if it is set",
            detail=str(error.underlying_exception),
            stage=stage,
        ) from error
    except (TokenValidationError, CommandLineLoginFlowEOFError) as error:
        raise login_required().at(stage) from error
    except globus_sdk.GlobusAPIError as error:
        raise _refused(error, stage) from error
    except globus_sdk.GlobusError as error:
        raise LoginError(f"The login failed: {error}", stage=stage) from error


def _refused(error: globus_sdk.GlobusAPIError, stage: Stage) -> EndpointError:
    said = error.message or error.code or "no reason given"
    if error.http_status >= 500:
        return UnexpectedAnswer(
            f"The authorization service answered {error.http_status}: {said}", detail=error.text, stage=stage
        )
    return LoginError(
        f"The authorization service refused ({error.http_status}): {said}",
        hint="Look at the client's id and secret, or log in again: globus-compute-endpoint login --force",
        code="LOGIN_REFUSED",
        stage=stage,
    )
