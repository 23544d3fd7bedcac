"""What `check-config` finds in a site document beyond its form, and where."""

from __future__ import annotations

import copy
import functools
import json
import operator
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from endpoint.cli.site_rules import Rules
from endpoint.config.examine import Examiner, Report
from endpoint.config.parse import parse_yaml
from endpoint.config.schemas import schema_folder
from endpoint.config.site_check import check_site
from tests.support.sites import BEGIN, CLIENT, FIVE_MISTAKES, FIVE_SAID, HOSTS, INSTALL, MULTI_USER, found_in, told

HUB = """\
service:
  kind: hub
  url: http://hub.example.org:5000
  hub:
    host: login1
"""
BROKER = "broker:\n  host: login1\n  secrets: {password: {vault: vault_broker}}\n"
EXAMPLES = Path(str(schema_folder())) / "examples" / "valid" / "site"
EXPRESSION = "expression_identity_mapping#1.0.0"


def rules(*outputs: tuple[str, str]) -> list[dict[str, object]]:
    found = [{"source": "{username}", "match": match, "output": output} for match, output in outputs]
    return [{"DATA_TYPE": EXPRESSION, "mappings": found}]


def only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


def test_five_planted_mistakes_are_all_named_with_line_and_column(tmp_path: Path) -> None:
    found = told(tmp_path, FIVE_MISTAKES)

    assert len(found) == len(FIVE_SAID), found
    for problem, said in zip(found, FIVE_SAID, strict=True):
        assert problem.startswith(said[1:]), problem


def test_a_document_without_mistakes_has_no_problems(tmp_path: Path) -> None:
    assert told(tmp_path, BEGIN + HUB + BROKER + MULTI_USER) == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("groups: {login: [login1, login3]}\n", "5:26: groups.login[1]: there is no host 'login3'"),
        ("groups: {login1: [login2]}\n", "5:10: groups.login1: a host has this name already"),
        ("groups: {hub: [login2]}\n", "5:10: groups.hub: the playbook has a group of this name already"),
        (HUB.replace("host: login1", "host: hub1"), "9:5: service.hub.host: there is no host 'hub1'"),
    ],
)
def test_a_host_that_nobody_has_is_named(tmp_path: Path, text: str, said: str) -> None:
    assert only(told(tmp_path, BEGIN + text)).startswith(said)


def test_an_endpoint_of_a_host_that_nobody_has_is_told_the_nearest_name(tmp_path: Path) -> None:
    found = only(told(tmp_path, BEGIN + MULTI_USER.replace("[login1]", "[login1, logn2]")))

    assert found == "7:21: endpoints.cluster.hosts[1]: there is no host or group 'logn2' (did you mean 'login2'?)"


def test_a_host_can_not_be_called_as_a_group_of_the_playbook(tmp_path: Path) -> None:
    assert told(tmp_path, HOSTS.replace("login1", "hub") + INSTALL)[0].startswith("2:3: hosts.hub: the playbook has")


SECOND = "  other: {hosts: [login1], kind: templated, run_as: alice, directory: DIR}\n"


@pytest.mark.parametrize(
    ("directory", "said"),
    [
        ("/var/lib/globus-compute-endpoint", "the endpoint cluster of the account globus-compute has this directory"),
        ("/var/lib/globus-compute-endpoint/cluster", "is inside the directory of cluster"),
        ("/home/alice/endpoints", ""),
    ],
)
def test_endpoints_whose_directories_collide_on_a_host_are_told(tmp_path: Path, directory: str, said: str) -> None:
    found = told(tmp_path, BEGIN + MULTI_USER + SECOND.replace("DIR", directory))

    assert said in only(found) if said else found == []


def test_endpoints_on_two_hosts_may_have_the_same_directory(tmp_path: Path) -> None:
    second = SECOND.replace("DIR", "/var/lib/globus-compute-endpoint").replace("login1", "login2")

    assert told(tmp_path, BEGIN + MULTI_USER + second) == []


def test_endpoints_that_systemd_would_not_tell_apart_are_refused(tmp_path: Path) -> None:
    second = "  a-b: {hosts: [login1], kind: templated, run_as: alice}\n"

    found = only(told(tmp_path, BEGIN + "endpoints:\n" + second + second.replace("a-b", "a_b")))

    assert found == "7:3: endpoints.a_b: on login1 systemd can't tell it from the endpoint a-b"


def test_ports_that_clash_on_a_host_are_told(tmp_path: Path) -> None:
    broker = BROKER.replace("host: login1", "host: login1\n  port: 5000\n  management_port: 5000")

    found = told(tmp_path, BEGIN + HUB + broker)

    said = "on login1 the broker listens at port 5000 already"
    assert [line.partition(": ")[2] for line in found] == [
        f"service.hub.config.listen.port: {said}",
        f"broker.management_port: {said}",
    ]


@pytest.mark.parametrize(
    ("pam", "said"),
    [
        ("{service: sshdd}", "14:11: endpoints.cluster.pam.service: there is no such PAM service: 'sshdd' (did you"),
        (
            "{service: ours}",
            "14:11: endpoints.cluster.pam.service: there is no such PAM service: 'ours' (give its lines",
        ),
        ("{stack: ['@include common-acount']}", "14:19: endpoints.cluster.pam.stack[0]: there is no such PAM service"),
        ("{stack: [account substack ours]}", "14:19: endpoints.cluster.pam.stack[0]: there is no such PAM service"),
        ("{service: sshd, stack: ['@include login']}", "14:11: endpoints.cluster.pam.service: sshd is the"),
        ("{stack: ['@include login'], existing: true}", "14:38: endpoints.cluster.pam.existing: the service has its"),
        *(("{}", ""), ("{service: sshd}", ""), ("{service: ours, existing: true}", "")),
        ("{service: ours, stack: ['@include system-auth', '# no more']}", ""),
    ],
)
def test_a_pam_service_is_there_has_lines_or_is_an_error(tmp_path: Path, pam: str, said: str) -> None:
    found = told(tmp_path, BEGIN + MULTI_USER + f"    pam: {pam}\n")

    assert only(found).startswith(said) if said else found == []


def test_two_endpoints_of_a_host_can_not_have_other_lines_for_one_pam_service(tmp_path: Path) -> None:
    first = "    pam: {stack: [account required pam_unix.so]}\n"
    second = MULTI_USER.replace("endpoints:\n", "").replace("cluster", "other") + "    directory: /srv/other\n"

    found = only(told(tmp_path, BEGIN + MULTI_USER + first + second + first.replace("unix", "permit")))

    assert "on login1 the endpoint cluster has other lines for this PAM service" in found


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("config: {pam: {enable: true}}", "config.pam: this follows from `pam`"),
        ("config: {user_config_template_path: a}", "config.user_config_template_path: this follows from `template`"),
        ("config: {audit_log_path: /a}", "config.audit_log_path: with several users the audit log is root's"),
        ("policy: {service_user: alice}", "policy.service_user: this follows from `run_as`"),
        ("policy: {pam: {}}", "policy.pam: this follows from `pam`"),
    ],
)
def test_an_option_that_follows_from_others_can_not_be_given(tmp_path: Path, line: str, said: str) -> None:
    assert f"endpoints.cluster.{said}" in only(told(tmp_path, f"{BEGIN}{MULTI_USER}    {line}\n"))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BROKER, "broker: there is no hub in this document that would use it"),
        (
            HUB + "    config: {directory: /srv/hub}\n" + BROKER,
            "service.hub.config.directory: this follows from `broker`",
        ),
        (HUB + "    secrets: {broker_password: {vault: a}}\n" + BROKER, "broker_password: the password is `secrets"),
        (HUB + "    secrets: {broker_password: {vault: a}}\n", "there is no broker that would have this password"),
        (HUB + MULTI_USER.replace("login1", "login2"), "can't be reached from login2, where the endpoint cluster runs"),
        (MULTI_USER + "    health: {user: alice}\n", "endpoints.cluster.health: there is no client that could ask"),
        (HUB + "    tls: {certificate: /a, key: {vault: a}}\n", "service.url: must begin with https"),
        (HUB + "    config: {listen: {tls: {certificate: /a, key: /b}}}\n", "listen.tls: this follows from `tls`"),
        (HUB + "    secrets: {broker_password: {vault: class}}\n" + BROKER, "'class' can't be the name of a variable"),
    ],
)
def test_parts_that_do_not_go_together_are_told(tmp_path: Path, text: str, said: str) -> None:
    assert any(said in one for one in told(tmp_path, BEGIN + text))


def test_a_client_is_in_the_hub_once(tmp_path: Path) -> None:
    clients = "".join(f"      {name}: {{id: {CLIENT}, secret: {{vault: a}}}}\n" for name in ("one", "two"))

    found = only(told(tmp_path, BEGIN + HUB + "    clients:\n" + clients))

    assert found == "12:13: service.hub.clients.two.id: the client one has this id already"


@pytest.mark.parametrize(
    ("install", "said"),
    [
        (
            "wheel: compute_endpoint-0.2.0-py3-none-any.whl, version: 0.1.0",
            "install.version: must be 0.2.0, as the name",
        ),
        ("wheel: endpoint.whl", "install.wheel: its name doesn't tell the version"),
        *(("wheel: endpoint.whl, version: 0.1.0", ""), ("wheel: compute_endpoint-0.2.0-py3-none-any.whl", "")),
    ],
)
def test_the_version_follows_from_the_name_of_the_wheel_or_is_given(tmp_path: Path, install: str, said: str) -> None:
    found = told(tmp_path, f"{HOSTS}install: {{method: virtualenv, {install}}}\n")

    assert said in only(found) if said else found == []


def test_a_wheel_that_is_not_there_yet_is_a_warning_until_it_is_to_be_installed(tmp_path: Path) -> None:
    path = tmp_path / "site.yml"
    path.write_text(f"{HOSTS}install: {{method: virtualenv, wheel: compute_endpoint-0.1.0-py3-none-any.whl}}\n")

    assert [problem.warning for problem in found_in(path)] == [True]
    assert [problem.warning for problem in found_in(path, applied=True)] == [False]
    assert "hatchling build" in str(found_in(path)[0])


def test_a_file_that_is_not_there_is_named_unless_its_endpoint_is_to_go(tmp_path: Path) -> None:
    text = MULTI_USER + "    template: {file: nothing.yaml.j2}\n"

    assert only(told(tmp_path, BEGIN + text)).startswith(
        "14:16: endpoints.cluster.template.file: the file nothing.yaml.j2 is not there"
    )
    assert told(tmp_path, BEGIN + text + "    state: absent\n") == []


def mapped(folder: Path, given: object, more: str = "") -> list[str]:
    (folder / "map.json").write_text(json.dumps(given, indent=1))
    text = MULTI_USER.partition("      data:")[0] + f"      file: map.json\n{more}"
    return told(folder, BEGIN + text)


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (rules(("alice@a\\.example", "users"), ("bob@a\\.example", "users")), 13),
        (rules((".*@a\\.example", "users")), 8),
        (rules(("(.*)@a\\.example", "{0}"), ("(.*)@b\\.example", "{0}")), 13),
    ],
)
def test_two_people_for_one_account_are_told_in_the_file_of_the_rules(tmp_path: Path, given: object, line: int) -> None:
    found = only(mapped(tmp_path, given))

    assert found.startswith(f"{tmp_path}/map.json:{line}:5: [0].mappings[")
    assert "two people become one account" in found


@pytest.mark.parametrize("shared", ["[users]", "['*']"])
def test_an_account_that_people_may_share_is_no_mistake(tmp_path: Path, shared: str) -> None:
    given = rules(("alice@a\\.example", "users"), ("bob@a\\.example", "users"))
    expect = "      expect: {alice@a.example: users, bob@a.example: users}\n"

    assert mapped(tmp_path, given, f"{expect}      shared_accounts: {shared}\n") == []


def test_the_rules_are_compared_with_what_is_expected(tmp_path: Path) -> None:
    given = rules(("(.*)@lab\\.example", "{0}"))
    expect = "alice@lab.example: bob, carol@lab.example: carol, mallory@other.example: null, bob@lab.example: null"

    found = mapped(tmp_path, given, f"      expect: {{{expect}}}\n")

    assert [line.partition("expect.")[2] for line in found] == [
        '"alice@lab.example": by the rules this is alice, not bob',
        '"bob@lab.example": by the rules this is bob, not nobody',
    ]


def test_two_people_who_are_expected_in_one_account_are_told(tmp_path: Path) -> None:
    program = [{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": ["/bin/accounts"]}]

    found = only(mapped(tmp_path, program, "      expect: {alice@a.example: users, bob@a.example: users}\n"))

    assert 'expect."bob@a.example": alice@a.example is users already' in found


def test_the_client_that_asks_for_the_sample_function_must_be_the_user_that_is_expected(tmp_path: Path) -> None:
    client = f"id: {CLIENT}, secret: {{vault: a}}"
    hub = f"{HUB}    clients:\n      alice: {{{client}, username: alice@lab.example}}\n"
    health = f"    health: {{user: bob, client: {{{client}}}}}\n"

    found = only(told(tmp_path, BEGIN + hub + BROKER + MULTI_USER + health))

    assert "endpoints.cluster.health.user: by the rules the client that asks is alice, not bob" in found


TEMPLATE = "engine:\n  type: ThreadPoolEngine\n  max_workers: {{ workers }}\n"
OPTIONS = "    user_options_schema: {data: {type: object, required: [workers], properties: {workers: {type: TYPE}}}}\n"


def test_a_template_in_a_file_is_tried_with_the_options_of_the_document(tmp_path: Path) -> None:
    (tmp_path / "t.yaml.j2").write_text(TEMPLATE)
    text = BEGIN + MULTI_USER + "    template: {file: t.yaml.j2}\n"

    assert told(tmp_path, text + OPTIONS.replace("TYPE", "integer")) == []
    assert only(told(tmp_path, text + OPTIONS.replace("TYPE", "string"))).startswith(f"{tmp_path}/t.yaml.j2:3:")
    assert "'workers' is undefined" in only(told(tmp_path, text))


def test_a_template_that_takes_in_others_is_refused_as_they_do_not_come_along(tmp_path: Path) -> None:
    (tmp_path / "engine.yaml.j2").write_text("engine: {type: ThreadPoolEngine}\n")
    (tmp_path / "t.yaml.j2").write_text("{% include 'engine.yaml.j2' %}\n")

    found = only(told(tmp_path, BEGIN + MULTI_USER + "    template: {file: t.yaml.j2}\n"))

    assert found.startswith("14:5: endpoints.cluster.template: it takes in other templates")


def test_a_schema_of_options_that_is_none_is_told_where_it_stands(tmp_path: Path) -> None:
    schema = "    user_options_schema: {data: {type: objekt}}\n"
    template = "    template: {data: {engine: {type: ThreadPoolEngine}}}\n"

    found = told(tmp_path, BEGIN + MULTI_USER + template + schema)

    assert found[0].startswith("15:34: endpoints.cluster.user_options_schema.data.type: ")


@pytest.mark.parametrize(
    "text", ["", "[]", "hosts: 3", "endpoints: [a]", "endpoints: {a: 1, b: {kind: [], hosts: {}}}"]
)
def test_a_document_of_any_form_is_told_in_words(tmp_path: Path, text: str) -> None:
    assert told(tmp_path, text)


def places(value: object, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every path in `value` but the top."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, below in pairs:
        yield from places(below, (*path, key))


def test_a_wrong_value_anywhere_leaves_the_other_checks_at_work() -> None:
    path = EXAMPLES / "air-gapped.yaml"
    document = parse_yaml(path.read_text(), str(path))

    for place in places(document.data):
        data = copy.deepcopy(document.data)
        above = functools.reduce(operator.getitem, place[:-1], data)
        above[place[-1]] = [{"file": 3}] if isinstance(above[place[-1]], dict) else {"data": [3]}
        examiner = Examiner(None, judge=Rules(), reports={str(path): Report(str(path), "site")})
        check_site(examiner, replace(document, data=data), path)


def test_a_document_of_nothing_but_wrong_types_is_told_in_words(tmp_path: Path) -> None:
    names = ("service", "broker", "groups", "install", "hosts", "endpoints")

    found = told(tmp_path, "".join(f"{name}: [{{a: [b]}}]\n" for name in names))

    assert {line.split(": ")[1] for line in found} >= {"service", "groups", "install", "hosts", "endpoints"}
