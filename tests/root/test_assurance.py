"""What a multi-user endpoint registers, and that its users' functions are held to it."""

from __future__ import annotations

import json
import tempfile
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.config.model import load_manager_config
from endpoint.errors import ExitStatus
from endpoint.manager.registration import registration_body
from tests.support.accounts import Accounts, TestUser
from tests.support.hubs import RunningHub
from tests.support.installed import Installed
from tests.support.multi_user import NAME, MultiUserEndpoint, SdkUser


@pytest.fixture(scope="module")
def her(machine: Accounts) -> TestUser:
    return machine.user()


@pytest.fixture(scope="module")
def sdk(hub: RunningHub, peer_sdk_python: Path) -> SdkUser:
    return SdkUser(peer_sdk_python, hub.env, hub.client("assured"))


@pytest.fixture(scope="module")
def functions(sdk: SdkUser) -> dict[str, str]:
    return dict(SdkUser.end(sdk.begin("register", "")))


@pytest.fixture
def endpoint(hub: RunningHub, machine: Accounts, program: Installed, her: TestUser, sdk: SdkUser) -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="gct-assured-") as folder:
        Path(folder).chmod(0o755)
        made = MultiUserEndpoint(
            Path(folder) / "site",
            programs=program.root / "bin",
            service_user=machine.user(system=True, shell="/usr/sbin/nologin").name,
            hub_env=hub.env,
            owner=hub.client(f"owner-{Path(folder).name}"),
            users={sdk.client_id: her.name},
            policy={"pam": {"enable": False}},
        )
        made.configure()
        yield made
        made.__exit__()


def test_only_functions_on_the_list_run_and_a_user_endpoint_keeps_the_list_that_it_was_started_with(
    endpoint, sdk, functions
):
    endpoint.reconfigure(allowed_functions=[functions["numbers"]])
    endpoint.start()

    assert sdk.play("call", endpoint, functions["numbers"]) == {"result": 3}
    answer = sdk.play("call", endpoint, functions["words"])
    assert answer["status"] == 403
    assert "FUNCTION_NOT_PERMITTED" in answer["text"]

    # The service lets it through now. The user endpoint, which outlives its manager, does not.
    endpoint.run("stop", NAME, "--keep-users")
    endpoint.reconfigure(allowed_functions=[functions["numbers"], functions["words"]])
    endpoint.start()
    answer = sdk.play("call", endpoint, functions["words"])
    assert f"Function {functions['words']} not permitted on endpoint" in answer["error"]

    endpoint.run("stop", NAME)
    endpoint.start()
    assert sdk.play("call", endpoint, functions["words"]) == {"result": "word"}


def test_what_the_service_should_know_of_the_endpoint_is_registered(endpoint, hub):
    admin, subscription = str(uuid.uuid4()), str(uuid.uuid4())
    endpoint.reconfigure(high_assurance=True, admins=[admin], subscription_id=subscription, public=True)
    endpoint.start()

    known = registered(endpoint, hub)

    assert known["multi_user"] is True
    assert known["high_assurance"] is True
    assert known["admins"] == [admin]
    assert known["subscription_uuid"] == subscription
    assert known["public"] is True


def registered(endpoint: MultiUserEndpoint, hub: RunningHub) -> dict[str, Any]:
    """The endpoint as its owner sees it at the service."""
    owner = json.loads((endpoint.folder / "client.json").read_text())
    form = f"grant_type=client_credentials&client_id={owner['client_id']}&client_secret={owner['client_secret']}"
    scope = "https%3A%2F%2Fauth.globus.org%2Fscopes%2Ffacd7ccc-c5f4-42aa-916b-a0e270e2c2a9%2Fall"
    with urllib.request.urlopen(f"{hub.url}/v2/oauth2/token", f"{form}&scope={scope}".encode()) as answer:
        token = json.load(answer)["access_token"]
    request = urllib.request.Request(
        f"{hub.url}/v2/endpoints/{endpoint.endpoint_id}", headers={"Authorization": f"Bearer {token}"}
    )
    with urllib.request.urlopen(request) as answer:
        return dict(json.load(answer))


def test_a_policy_for_logins_that_the_service_would_not_enforce_is_no_endpoint(endpoint):
    policy = str(uuid.uuid4())
    endpoint.reconfigure(authentication_policy=policy)
    config = load_manager_config(endpoint.folder / "config.yaml")
    assert registration_body(endpoint.folder, config, multi_user=True)["authentication_policy"] == policy

    with pytest.raises(AssertionError):
        endpoint.start()

    assert endpoint.process.wait(10) == ExitStatus.REGISTRATION_REFUSED


def test_a_user_who_is_mapped_to_the_service_user_is_refused_by_the_manager_and_by_the_monitor(
    endpoint, sdk, machine, her
):
    rules = endpoint.folder / "identity_mapping_config.json"
    rules.write_text(rules.read_text().replace(her.name, endpoint.service_user))
    endpoint.start()
    assert "SAME_USER" in sdk.play("refused", endpoint)["text"]

    endpoint.run("stop", NAME)
    endpoint.reconfigure(force_mu_allow_same_user=True)
    endpoint.start()
    assert "force_mu_allow_same_user has no effect here" in endpoint.log
    answer = sdk.play("refused", endpoint)
    assert answer["status"] == 422
    assert "[policy: FORBIDDEN_USER]" in answer["text"]


def test_an_identity_mapping_that_can_not_be_used_ends_the_start_with_a_status_of_its_own(endpoint):
    (endpoint.folder / "identity_mapping_config.json").write_text('[{"DATA_TYPE": "nothing_that_is_known"}]')

    with pytest.raises(AssertionError):
        endpoint.start()

    assert endpoint.process.wait(10) == ExitStatus.MAPPING_UNREADABLE
    assert "[map-identity: MAPPING_UNREADABLE]" in endpoint.said


def test_an_audit_log_of_the_configuration_that_the_policy_does_not_have_is_no_audit_log(endpoint):
    endpoint.reconfigure(audit_log_path="/var/log/gct-nowhere/audit.log")

    with pytest.raises(AssertionError):
        endpoint.start()

    assert endpoint.process.wait(10) == ExitStatus.BAD_CONFIG
    assert "set `audit_log` in the policy" in endpoint.said
