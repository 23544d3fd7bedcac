"""A valid site document as what Ansible's roles need."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from endpoint.config.check import errors, problems
from endpoint.config.parse import Document, parse_yaml
from endpoint.config.rendering import render_user_config
from endpoint.config.site import inventory
from endpoint.config.site_document import Site, vault_names
from endpoint.config.site_endpoint import HEADER
from endpoint.config.site_pam import DEFAULT_STACK
from tests.support.sites import BEGIN, CLIENT, HOSTS, INSTALL, MULTI_USER, told

HUB = """\
service:
  kind: hub
  url: http://hub.example.org:5000
  ca: /etc/ssl/certs/site.pem
  hub:
    host: login1
    clients: {alice: {id: 11111111-1111-4111-8111-111111111111, secret: {vault: vault_alice}}}
"""
BROKER = "broker: {host: login2, secrets: {password: {vault: vault_broker}}}\n"
LAB = "endpoints:\n  lab: {hosts: [login1], kind: single-user, run_as: alice, template: {data: DATA}}\n"
ENGINE = "{engine: {type: ThreadPoolEngine}}"


def resolved(folder: Path, text: str) -> dict[str, Any]:
    """The inventory of a document, which must be valid."""
    assert told(folder, text) == []
    return inventory(Site.of(parse_yaml(text, "site.yml"), folder))


def host(folder: Path, text: str, name: str = "login1") -> dict[str, Any]:
    found: dict[str, Any] = resolved(folder, text)["_meta"]["hostvars"][name]
    return found


def endpoint(folder: Path, text: str) -> dict[str, Any]:
    found: dict[str, Any] = host(folder, text)["endpoint_endpoints"][0]
    return found


def files(found: dict[str, Any]) -> dict[str, str]:
    return {file["name"]: file["content"] for file in found["files"]}


def test_groups_are_those_of_the_document_and_those_that_the_playbook_goes_by(tmp_path: Path) -> None:
    text = BEGIN + "groups: {login: [login1, login2]}\n" + HUB + BROKER + MULTI_USER.replace("[login1]", "[login]")

    found = resolved(tmp_path, text)

    assert {name: group["hosts"] for name, group in found.items() if name != "_meta"} == {
        **{name: ["login1", "login2"] for name in ("all", "login", "endpoints")},
        "hub": ["login1"],
        "rabbitmq": ["login2"],
    }


def test_a_host_has_the_variables_of_ansible_that_the_document_gives(tmp_path: Path) -> None:
    hosts = HOSTS.replace(
        "{address: 192.0.2.10}", "{address: 192.0.2.10, port: 2222, user: admin, python: /usr/bin/python3}"
    )

    found = host(tmp_path, hosts + INSTALL)

    assert {name: value for name, value in found.items() if name.startswith("ansible_")} == {
        "ansible_host": "192.0.2.10",
        "ansible_connection": "ssh",
        "ansible_port": 2222,
        "ansible_user": "admin",
        "ansible_become": True,
        "ansible_python_interpreter": "/usr/bin/python3",
    }


@pytest.mark.parametrize(
    ("install", "version"),
    [
        ("method: virtualenv, wheel: w/compute_endpoint-0.2.1-py3-none-any.whl", "0.2.1"),
        ("method: virtualenv, wheel: w/compute_endpoint-0.2.1+site.3-py3-none-any.whl", "0.2.1+site.3"),
        ("method: bundle, bundle: compute-endpoint-0.2.1-cp311-linux_x86_64.tar.gz", "0.2.1"),
        ("method: bundle, bundle: compute-endpoint-0.2.1.tar.zst", "0.2.1"),
        ("method: bundle, bundle: site.tar.gz, version: 1.0", "1.0"),
        ("method: nix, flake: 'path:/srv/endpoint'", None),
    ],
)
def test_the_version_and_local_paths_are_told(tmp_path: Path, install: str, version: str | None) -> None:
    text = f"{HOSTS}install: {{{install.replace('version: 1.0', 'version: ' + chr(39) + '1.0' + chr(39))}}}\n"

    found = host(tmp_path, text)["program_install"]

    assert found["version"] == version
    local = found.get("wheel") or found.get("bundle")
    assert local is None or (Path(local).is_absolute() and Path(local).is_relative_to(tmp_path))


def test_every_file_of_an_endpoint_is_valid_by_its_own_schema(tmp_path: Path) -> None:
    schemas = {
        "config.yaml": "endpoint",
        "user_environment.yaml": "user-environment",
        "identity_mapping_config.json": "identity-mapping",
    }

    found = files(endpoint(tmp_path, BEGIN + HUB + BROKER + MULTI_USER + "    config: {display_name: 'yes'}\n"))

    assert set(found) == {*schemas, "user_config_template.yaml.j2", "user_config_schema.json"}
    for name, schema in schemas.items():
        assert errors(problems(parse_yaml(found[name], name), schema)) == []
        assert name.endswith(".json") or found[name].startswith(HEADER)


def test_a_multi_user_endpoint_gets_what_follows_from_the_document(tmp_path: Path) -> None:
    found = endpoint(tmp_path, BEGIN + MULTI_USER + "    pam: {}\n    policy: {minimum_uid: 2000}\n")

    config = parse_yaml(files(found)["config.yaml"], "config.yaml").data
    place = "/var/lib/globus-compute-endpoint/cluster/identity_mapping_config.json"
    pam = {"enable": True, "service_name": "globus-compute-endpoint"}
    assert config == {"identity_mapping_config_path": place, "pam": pam}
    assert found["policy"] == {"service_user": "globus-compute", "pam": pam, "own_slices": False, "minimum_uid": 2000}
    assert errors(problems(Document(found["policy"], "policy.json"), "policy")) == []
    assert found["pam"] == {"service": "globus-compute-endpoint", "stack": list(DEFAULT_STACK)}


def test_without_pam_nobody_asks_it(tmp_path: Path) -> None:
    found = endpoint(tmp_path, BEGIN + MULTI_USER)

    assert found["pam"] is None
    assert found["policy"]["pam"] == {"enable": False}


def test_a_service_that_is_there_already_is_not_written(tmp_path: Path) -> None:
    found = endpoint(tmp_path, BEGIN + MULTI_USER + "    pam: {service: sshd}\n")

    assert found["pam"] == {"service": "sshd", "stack": None}


@pytest.mark.parametrize(
    ("lines", "own"),
    [
        ("    limits_per_user: {memory_max: 4G}\n", True),
        ("    limits: {cpu_quota: 400}\n", True),
        ("    limits: {cpu_quota: 400}\n    policy: {own_slices: false}\n", False),
        ("    limits: {cpu_quota: null}\n", False),
    ],
)
def test_slices_of_its_own_follow_from_limits_unless_the_policy_says_it(tmp_path: Path, lines: str, own: bool) -> None:
    assert endpoint(tmp_path, BEGIN + MULTI_USER + lines)["policy"]["own_slices"] is own


def test_an_endpoint_of_a_hub_finds_it_by_its_environment(tmp_path: Path) -> None:
    text = BEGIN + HUB + BROKER + MULTI_USER + "    unit: {environment: {SSL_CERT_FILE: /own.pem, A: b}}\n"

    found = endpoint(tmp_path, text)

    assert found["unit"]["environment"] == {
        "GLOBUS_SDK_ENVIRONMENT": "local",
        "GLOBUS_SDK_SERVICE_URL_AUTH": "http://hub.example.org:5000/",
        "GLOBUS_SDK_SERVICE_URL_COMPUTE": "http://hub.example.org:5000",
        "SSL_CERT_FILE": "/own.pem",
        "A": "b",
    }
    assert "SSL_CERT_FILE: " in files(found)["user_environment.yaml"]


@pytest.mark.parametrize(
    "text", ["plain", "{{ braces }}", "a {% b %}", '{# "quoted" \\ #}', "two\nlines {{ }}", "ü {{ é 😀"]
)
def test_a_single_configuration_renders_to_itself_whatever_its_texts_are(tmp_path: Path, text: str) -> None:
    data = {"engine": {"type": "ThreadPoolEngine"}, "endpoint_setup": text}
    document = BEGIN + LAB.replace("DATA", json.dumps(data, ensure_ascii=False))

    template = files(endpoint(tmp_path, document))["user_config_template.yaml"]

    made = render_user_config(
        template=template,
        template_path=tmp_path / "user_config_template.yaml",
        user_options_schema=None,
        user_options={},
        user_runtime={},
        parent_config={},
        mapped_identity=None,
        environ={},
    )
    assert parse_yaml(template, "template").data.keys() == data.keys()
    assert parse_yaml(made, "made").data == data


@pytest.mark.parametrize(
    ("more", "health"),
    [
        ("", None),
        (", secrets: {client: CLIENT}", {"client": "CLIENT", "user": "alice"}),
        (", health: {user: bob}, secrets: {client: CLIENT}", {"client": "CLIENT", "user": "bob"}),
        (", health: {client: CLIENT}", {"client": "CLIENT", "user": "alice"}),
    ],
)
def test_the_own_client_of_a_single_account_asks_where_no_other_is_named(
    tmp_path: Path, more: str, health: dict[str, str] | None
) -> None:
    client = {"id": CLIENT, "secret": {"vault": "vault_lab"}}
    text = LAB.replace("{data: DATA}", f"{{data: {ENGINE}}}{more.replace('CLIENT', json.dumps(client))}")

    found = endpoint(tmp_path, BEGIN + text)["health"]

    assert found == (health and {**health, "client": client})


def test_an_endpoint_that_is_to_go_has_no_files_and_says_where_it_was(tmp_path: Path) -> None:
    text = BEGIN + MULTI_USER + "    state: absent\n  old: {hosts: [login1], state: absent}\n"

    cluster, old = host(tmp_path, text)["endpoint_endpoints"]

    assert (cluster["state"], cluster["files"], old["state"], old["kind"]) == ("absent", [], "absent", None)
    assert cluster["directory"] == "/var/lib/globus-compute-endpoint"
    assert set(cluster) == set(old) == set(endpoint(tmp_path, BEGIN + MULTI_USER))


@pytest.mark.parametrize(
    ("broker", "amqp", "management", "address"),
    [
        ("{host: login1", "amqp://192.0.2.10:5672/compute", "http://127.0.0.1:15672", "127.0.0.1"),
        ("{host: login2", "amqp://192.0.2.11:5672/compute", "http://192.0.2.11:15672", "0.0.0.0"),
        (
            "{host: login2, address: '2001:db8::5', vhost: site, tls: {certificate: /a, key: {file: /k}}",
            "amqps://[2001:db8::5]:5671/site",
            "https://[2001:db8::5]:15672",
            "0.0.0.0",
        ),
    ],
)
def test_a_hub_uses_the_broker_of_the_document(
    tmp_path: Path, broker: str, amqp: str, management: str, address: str
) -> None:
    text = BEGIN + HUB + f"broker: {broker}, secrets: {{password: {{vault: vault_broker}}}}}}\n"
    variables = resolved(tmp_path, text)

    hub = variables["_meta"]["hostvars"]["login1"]
    rabbitmq = variables["_meta"]["hostvars"][variables["rabbitmq"]["hosts"][0]]

    assert hub["hub_config"]["broker"] == {
        "amqp_url": amqp,
        "management_url": management,
        "user": "compute-hub",
        "password_file": "/run/credentials/compute-hub.service/broker_password",
    }
    assert rabbitmq["rabbitmq_management_address"] == address
    assert hub["hub_broker_password"] == rabbitmq["rabbitmq_password"] == {"vault": "vault_broker"}
    assert errors(problems(parse_yaml(hub["hub_content"], "hub.yaml"), "hub")) == []


def test_a_hub_without_a_broker_has_one_of_its_own_in_its_directory(tmp_path: Path) -> None:
    assert host(tmp_path, BEGIN + HUB)["hub_config"] == {"directory": "/var/lib/compute-hub"}


def test_a_hub_with_a_certificate_reads_its_key_from_its_credentials(tmp_path: Path) -> None:
    text = HUB.replace("http:", "https:") + "    tls: {certificate: /etc/ssl/hub.pem, key: {vault: vault_hub_key}}\n"

    found = host(tmp_path, BEGIN + text)

    key = "/run/credentials/compute-hub.service/tls_key"
    assert found["hub_config"]["listen"] == {"tls": {"certificate": "/etc/ssl/hub.pem", "key": key}}
    assert found["hub_tls"]["key"] == {"vault": "vault_hub_key"}
    assert errors(problems(Document(found["hub_config"], "hub.yaml"), "hub")) == []


def test_a_broker_of_somebody_else_keeps_its_addresses_and_gets_the_password(tmp_path: Path) -> None:
    broker = "{amqp_url: 'amqp://b/v', management_url: 'http://b:1', user: u, password_file: /p}"
    text = HUB + f"    config: {{database: /d, broker: {broker}}}\n    secrets: {{broker_password: {{file: /s}}}}\n"

    found = host(tmp_path, BEGIN + text)

    assert found["hub_broker_password"] == {"file": "/s"}
    assert found["hub_config"]["broker"]["amqp_url"] == "amqp://b/v"
    assert found["hub_config"]["broker"]["password_file"] == "/run/credentials/compute-hub.service/broker_password"


def test_the_variables_of_the_vault_are_told_once_and_keys_of_certificates_apart(tmp_path: Path) -> None:
    tls = "    tls: {certificate: /a, key: {vault: vault_key}}\n"
    text = BEGIN + HUB.replace("http:", "https:") + tls + BROKER.replace("vault_broker", "vault_alice")

    site = Site.of(parse_yaml(text, "site.yml"), tmp_path)

    assert vault_names(site) == (["vault_alice"], ["vault_key"])
