"""Where a client identity comes from."""

from __future__ import annotations

import pytest
from globus_sdk.config import get_service_url

from endpoint.errors import ConfigError, ExitStatus, LoginError
from endpoint.manager.login import (
    AUTH_URL_VARIABLE,
    COMPUTE_URL_VARIABLE,
    ENVIRONMENT_VARIABLE,
    ENVIRONMENTS,
    FILE_VARIABLE,
    ID_VARIABLE,
    SECRET_VARIABLE,
    ClientCredentials,
    client_credentials,
    service_environment,
    storage_namespace,
)

CLIENT = "0c9bbcc5-8b8a-4a5e-9c1c-0b5a3a0a9a01"


def test_client_identity_comes_from_the_two_variables() -> None:
    found = client_credentials({ID_VARIABLE: CLIENT.upper(), SECRET_VARIABLE: "s3cret"})
    assert found == ClientCredentials(CLIENT, "s3cret")


def test_client_identity_keeps_its_secret_when_shown() -> None:
    assert "s3cret" not in repr(ClientCredentials(CLIENT, "s3cret"))


def test_no_variables_mean_a_persons_login() -> None:
    assert client_credentials({}) is None
    assert client_credentials({ID_VARIABLE: "", SECRET_VARIABLE: " "}) is None


@pytest.mark.parametrize(("given", "missing"), [(ID_VARIABLE, SECRET_VARIABLE), (SECRET_VARIABLE, ID_VARIABLE)])
def test_half_a_client_identity_is_an_error_that_names_the_other_half(given: str, missing: str) -> None:
    with pytest.raises(LoginError) as caught:
        client_credentials({given: CLIENT, FILE_VARIABLE: "/somewhere"})
    assert missing in caught.value.failure.reason
    assert missing in caught.value.failure.hint


def test_client_id_that_is_no_uuid_is_an_error_without_the_secret() -> None:
    with pytest.raises(LoginError) as caught:
        client_credentials({ID_VARIABLE: "me", SECRET_VARIABLE: "s3cret"})
    assert "s3cret" not in caught.value.failure.for_admin()


@pytest.mark.parametrize(
    ("environment", "credentials", "expected"),
    [
        (None, None, "user/production"),
        ("local", None, "user/local"),
        ("local", ClientCredentials(CLIENT, "s"), f"clientprofile/local/{CLIENT}"),
    ],
)
def test_tokens_are_kept_under_the_official_names(
    environment: str | None, credentials: ClientCredentials | None, expected: str
) -> None:
    assert storage_namespace(environment, credentials) == expected


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_environments_that_are_offered_are_known_to_the_library(name: str) -> None:
    assert get_service_url("auth", environment=service_environment(name, {}))
    assert get_service_url("compute", environment=service_environment(None, {ENVIRONMENT_VARIABLE: name}))


def test_no_environment_means_the_public_service() -> None:
    assert service_environment(None, {ENVIRONMENT_VARIABLE: ""}) is None


def test_configured_environment_wins_over_the_variable() -> None:
    assert service_environment("preview", {ENVIRONMENT_VARIABLE: "moon"}) == "preview"


@pytest.mark.parametrize(
    ("configured", "environ", "words"),
    [
        (None, {ENVIRONMENT_VARIABLE: "moon"}, ENVIRONMENT_VARIABLE),
        ("moon", {}, "config.yaml"),
        ("moon", {AUTH_URL_VARIABLE: "http://localhost"}, COMPUTE_URL_VARIABLE),
        ("local", {}, AUTH_URL_VARIABLE),
    ],
)
def test_unknown_environment_is_an_error_that_names_where_and_the_known_ones(
    configured: str | None, environ: dict[str, str], words: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        service_environment(configured, environ)
    assert words in caught.value.failure.for_admin()
    assert "preview" in caught.value.failure.hint
    assert caught.value.exit_status is ExitStatus.BAD_CONFIG


def test_environment_of_a_sites_own_needs_its_addresses() -> None:
    addresses = {AUTH_URL_VARIABLE: "http://localhost", COMPUTE_URL_VARIABLE: "http://localhost"}
    assert service_environment("moon", addresses) == "moon"
    assert service_environment(None, {ENVIRONMENT_VARIABLE: "local", AUTH_URL_VARIABLE: "http://localhost"}) == "local"
