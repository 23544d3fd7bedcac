"""Authentication policies that `configure` makes, at a stand-in for the authorization service."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from endpoint.cli.main import run
from endpoint.config.load import load_yaml
from endpoint.errors import ExitStatus
from tests.support.web_service import Answer, WebService

PROJECT = "22222222-2222-4222-8222-222222222222"
POLICY = "33333333-3333-4333-8333-333333333333"


@dataclass
class Authorization(WebService):
    """Makes policies, or answers what `refusal` says."""

    refusal: Answer | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)

    def handle(self, method: str, path: str, raw: bytes) -> Answer:
        if (method, path) == ("POST", "/v2/api/policies"):
            self.asked.append(json.loads(raw)["policy"])
            return self.refusal or Answer(201, {"policy": {"id": POLICY}})
        return super().handle(method, path, raw)


@pytest.fixture
def authorization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Authorization]:
    with Authorization(register=lambda *_: Answer(500, {})) as service:
        for name, value in service.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("GLOBUS_COMPUTE_USER_DIR", str(tmp_path / "gc"))
        monkeypatch.delenv("GLOBUS_COMPUTE_ENDPOINT_DIR", raising=False)
        monkeypatch.delenv("GLOBUS_SDK_ENVIRONMENT", raising=False)
        yield service


def test_configure_makes_the_policy_that_its_options_describe(authorization: Authorization, tmp_path: Path) -> None:
    options = ["--auth-policy-project-id", PROJECT, "--allowed-domains", "a.org, *.edu", "--excluded-domains", "b.edu"]
    options += ["--auth-timeout", "3600", "--auth-policy-display-name", "Mine", "--auth-policy-description", "For us"]
    options += ["--high-assurance", "--auth-policy-mfa-required", "--subscription-id", PROJECT]
    assert run(["configure", "one", *options]) == 0
    assert authorization.asked == [
        {
            "project_id": PROJECT,
            "display_name": "Mine",
            "description": "For us",
            "domain_constraints_include": ["a.org", "*.edu"],
            "domain_constraints_exclude": ["b.edu"],
            "high_assurance": True,
            "authentication_assurance_timeout": 3600,
            "required_mfa": True,
        }
    ]
    text = (tmp_path / "gc" / "one" / "config.yaml").read_text()
    assert load_yaml(text, "config.yaml").data["authentication_policy"] == POLICY


def test_policy_has_only_the_rules_that_were_asked_for(authorization: Authorization) -> None:
    assert run(["configure", "one", "--auth-policy-project-id", PROJECT]) == 0
    assert set(authorization.asked[0]) == {"project_id", "display_name", "description"}


def test_refused_policy_leaves_no_endpoint(
    authorization: Authorization, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    authorization.refusal = Answer(
        403, {"errors": [{"code": "FORBIDDEN", "detail": "not your project", "status": "403"}]}
    )
    assert run(["configure", "one", "--auth-policy-project-id", PROJECT]) == ExitStatus.FAILED
    assert "not your project" in capsys.readouterr().err
    assert not (tmp_path / "gc" / "one").exists()


def test_answer_without_a_policy_is_the_services_fault(
    authorization: Authorization, capsys: pytest.CaptureFixture[str]
) -> None:
    authorization.refusal = Answer(201, {"something": "else"})
    assert run(["configure", "one", "--auth-policy-project-id", PROJECT]) == ExitStatus.UNEXPECTED_ANSWER
    assert "names no policy" in capsys.readouterr().err


def test_policy_without_a_project_and_without_a_terminal_is_wrong_usage(
    authorization: Authorization, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["configure", "one", "--allowed-domains", "a.org"]) == ExitStatus.USAGE
    assert "--auth-policy-project-id" in capsys.readouterr().err
    assert authorization.asked == []
