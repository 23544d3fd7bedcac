"""The site's policy: what it says of an account, and that Python and the schema read the same files the same way."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from endpoint.config.check import errors, problems
from endpoint.config.load import load_yaml
from endpoint.config.parse import parse_yaml
from endpoint.config.schemas import load_schema, schema_folder, with_defaults
from endpoint.errors import ConfigError
from endpoint.privileged.accounts import Account, is_account_name
from endpoint.privileged.policy import Bounds, Policy, StartRate, judge, parse_policy

EXAMPLES = Path(str(schema_folder())) / "examples"
HER = Account("her", 1001, 1001, "/home/her", "/bin/bash", (1001, 2000), ("her", "science"))
BOUNDS = Bounds(minimum_uid=1000, shells=frozenset({"/bin/bash"}))
SERVICE_UID = 990


def code(account: Account | None, **policy: object) -> str | None:
    refusal = judge(Policy(**policy), BOUNDS, account, SERVICE_UID)
    return refusal.code if refusal else None


def test_an_ordinary_account_may() -> None:
    assert code(HER) is None


@pytest.mark.parametrize("uid", [0, -1, 65534, 2**32 - 1, SERVICE_UID])
def test_root_nobody_the_service_user_and_ids_that_are_none_never_may_whatever_the_policy_says(uid: int) -> None:
    anything = Bounds(minimum_uid=1, shells=None)

    assert judge(Policy(), anything, replace(HER, uid=uid), SERVICE_UID).code == "FORBIDDEN_USER"


def test_a_group_id_that_the_kernel_takes_for_no_change_is_refused() -> None:
    assert code(replace(HER, gid=2**32 - 1)) == "FORBIDDEN_USER"


def test_an_account_that_is_not_there_is_refused() -> None:
    assert code(None) == "NO_SUCH_USER"


def test_a_system_account_is_refused_by_its_uid() -> None:
    assert code(replace(HER, uid=999)) == "UID_TOO_SMALL"


def test_forbidden_users_and_groups_are_refused() -> None:
    assert code(HER, forbidden_users=("her",)) == "FORBIDDEN_USER"
    assert code(HER, forbidden_groups=("science",)) == "FORBIDDEN_GROUP"


def test_one_of_the_required_groups_is_enough_and_none_is_not() -> None:
    assert code(HER, required_groups=("science", "arts")) is None
    assert code(HER, required_groups=("arts",)) == "NOT_IN_GROUP"


def test_a_shell_that_is_not_listed_is_refused_unless_every_one_is_allowed() -> None:
    locked = replace(HER, shell="/usr/sbin/nologin")

    assert code(locked) == "SHELL_NOT_ALLOWED"
    assert judge(Policy(shells=()), Bounds.of(Policy(shells=())), locked, SERVICE_UID) is None


def test_the_user_reads_nothing_of_what_the_admin_does() -> None:
    refusal = judge(Policy(forbidden_groups=("science",)), BOUNDS, HER, SERVICE_UID)

    assert "science" in refusal.detail
    assert "science" not in refusal.reason
    assert "1001" not in refusal.reason


def test_so_many_starts_in_any_minute_and_each_user_alone() -> None:
    rate = StartRate(2)

    assert [rate.allows(1, now) for now in (0.0, 30.0, 59.0, 61.0, 61.0)] == [True, True, False, True, False]
    assert rate.allows(2, 61.0)


def test_starts_of_many_users_don_t_pile_up() -> None:
    rate = StartRate(1)
    for uid in range(StartRate.MOST_USERS + 5):
        assert rate.allows(uid, float(uid) / 100)

    assert rate.allows(5, 1000.0)


@pytest.mark.parametrize("name", ["", "a b", "a:b", "../root", "-x", ".x", "a\nb", "x" * 257, "a,b", "a\0"])
def test_what_means_something_elsewhere_is_no_account_s_name(name: str) -> None:
    assert not is_account_name(name)


@pytest.mark.parametrize("name", ["her", "her.name", "her@example.org", "DOMAIN\\her", "her$", "élise"])
def test_names_as_directory_services_have_them_are_accounts(name: str) -> None:
    assert is_account_name(name)


def test_the_defaults_are_those_of_the_schema() -> None:
    ours = json.loads(json.dumps(asdict(Policy())))

    assert ours == with_defaults({}, "policy")
    assert list(ours) == list(load_schema("policy")["properties"])


def texts(kind: str) -> list[object]:
    return [
        pytest.param(path.read_text(), id=path.stem) for path in sorted((EXAMPLES / kind / "policy").glob("*.yaml"))
    ]


@pytest.mark.parametrize("text", texts("valid"))
def test_what_the_schema_takes_python_takes_with_the_same_values(text: str) -> None:
    data = load_yaml(text, "policy").data

    policy = parse_policy(json.dumps(data).encode())

    assert json.loads(json.dumps(asdict(policy))) == with_defaults(data, "policy")


@pytest.mark.parametrize("text", texts("invalid"))
def test_what_the_schema_refuses_python_refuses_too(text: str) -> None:
    with pytest.raises(ConfigError, match="can't be used"):
        parse_policy(json.dumps(load_yaml(text, "policy").data).encode())


VALUES = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3600,
    3601,
    1.5,
    "",
    "a",
    "a:b",
    "/a",
    "a/b",
    [],
    ["a"],
    ["/a"],
    [1],
    {},
    {"a": 1},
]


@pytest.mark.parametrize("option", list(load_schema("policy")["properties"]))
@pytest.mark.parametrize("value", VALUES, ids=json.dumps)
def test_python_and_schema_agree_about_any_value_of_any_option(option: str, value: object) -> None:
    text = json.dumps({option: value})
    refused = bool(errors(problems(parse_yaml(text, "policy"), "policy")))

    try:
        parse_policy(text.encode())
    except ConfigError:
        assert refused, text
    else:
        assert not refused, text


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"end_s": 1, "end_s": 2}', b"null"])
def test_what_is_no_json_object_is_refused(content: bytes) -> None:
    with pytest.raises(ConfigError):
        parse_policy(content)
