"""From a start request to a plan of a process: environment, directories, configuration, descriptors."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet

from endpoint.config.model import load_manager_config
from endpoint.errors import ConfigError, EndpointError, UserOptionsError
from endpoint.manager.commands import Recipient, Requester, StartRequest
from endpoint.manager.credentials import CredentialFile
from endpoint.manager.local_user import LocalUser
from endpoint.manager.spawn import PROGRAM, Host, Plan, prepare
from endpoint.manager.templates import read_user_environment
from endpoint.wire.queues import QueueInfo

ENGINE = "engine:\n  type: ThreadPoolEngine\n"
ENDPOINT_ID = "22222222-2222-4222-8222-222222222222"


class Ground:
    """An endpoint's directory, a home, a program, and the manager's own variables; `prepare` makes a plan of them."""

    def __init__(self, root: Path) -> None:
        self.endpoint_dir = root / "compute" / "ep"
        self.endpoint_dir.mkdir(parents=True)
        self.home = root / "home"
        self.home.mkdir()
        self.programs = root / "programs"
        self.programs.mkdir()
        program = self.programs / PROGRAM
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        self.environment = {"PATH": f"/usr/bin:{self.programs}", "HOME": str(self.home), "OWN": "1"}
        self.write("config.yaml", "")
        self.write("user_config_template.yaml.j2", ENGINE)
        self.credentials = CredentialFile()

    def write(self, name: str, text: str) -> None:
        (self.endpoint_dir / name).write_text(text)

    def prepare(self, **request: Any) -> Plan:
        config = load_manager_config(self.endpoint_dir / "config.yaml")
        recipient = Recipient(ENDPOINT_ID, QueueInfo("amqp://broker/", "q"))
        start = StartRequest("uep.a", Requester("me", "x", ()), recipient, {"endpoint_id": ENDPOINT_ID}, **request)
        user = LocalUser("me", os.getuid(), os.getgid(), self.home)
        return prepare(Host(self.endpoint_dir, config, self.environment), start, user, self.credentials)


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    ground = Ground(tmp_path)
    yield ground
    ground.credentials.close()


def test_a_user_endpoint_lives_beside_its_manager_and_starts_at_home(ground):
    plan = ground.prepare()

    directory = ground.endpoint_dir.parent / "uep.a"
    assert plan.argv == (str(ground.programs / PROGRAM), "_start-user-endpoint", "uep.a")
    assert plan.logfile == directory / "endpoint.log"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert plan.directory == ground.home


def test_the_environment_file_adds_to_the_managers_own_variables_and_wins(ground):
    ground.write("user_environment.yaml", "OWN: 2\nMORE: yes\nRATIO: 1.5\nEMPTY:\n")

    environment = ground.prepare().environment

    assert (environment["OWN"], environment["RATIO"], environment["EMPTY"]) == ("2", "1.5", "")
    assert environment["GLOBUS_COMPUTE_USER_DIR"] == str(ground.endpoint_dir.parent)


def test_the_directory_of_the_manager_itself_is_not_the_user_endpoints(ground):
    ground.environment |= {
        "GLOBUS_COMPUTE_ENDPOINT_DIR": str(ground.endpoint_dir),
        "GLOBUS_COMPUTE_LOG_PATH": str(ground.endpoint_dir / "endpoint.log"),
    }
    ground.write("user_environment.yaml", f"GLOBUS_COMPUTE_USER_DIR: {ground.home}\n")

    plan = ground.prepare()

    assert plan.environment["GLOBUS_COMPUTE_ENDPOINT_DIR"] == str(ground.home / "uep.a")
    assert plan.environment["GLOBUS_COMPUTE_LOG_PATH"] == str(plan.logfile) == str(ground.home / "uep.a/endpoint.log")


def test_paths_of_the_template_are_followed_with_their_variables(ground):
    ground.write(
        "user_config_template.yaml.j2", ENGINE + "paths:\n  endpoint_dir: ~/here/$OWN\n  endpoint_log: ${HOME}/my.log\n"
    )

    plan = ground.prepare()

    assert plan.environment["GLOBUS_COMPUTE_ENDPOINT_DIR"] == str(ground.home / "here" / "1")
    assert plan.logfile == ground.home / "my.log"


def test_the_working_directory_can_be_configured(ground):
    ground.write("user_environment.yaml", f"CWD: {ground.programs}\n")

    plan = ground.prepare()

    assert plan.directory == ground.programs
    assert plan.environment["CWD"] == str(ground.programs)


def test_a_working_directory_that_is_not_there_is_the_administrators_fault(ground):
    ground.write("user_environment.yaml", "CWD: /not/there\n")

    with pytest.raises(ConfigError) as caught:
        ground.prepare()

    assert "/not/there" not in caught.value.failure.for_user()


def test_a_home_that_is_not_there_is_replaced_by_the_root(ground):
    ground.home.rmdir()

    assert ground.prepare().directory == Path("/")


def test_high_assurance_comes_from_the_manager_and_never_from_the_template(ground):
    ground.write("config.yaml", "high_assurance: true\n")
    assert json.loads(ground.prepare().document)["config"].startswith("high_assurance: true\n")

    ground.write("user_config_template.yaml.j2", ENGINE + "high_assurance: false\n")
    with pytest.raises(ConfigError, match="high_assurance"):
        ground.prepare()


def test_the_allow_list_goes_into_the_document_even_when_it_is_empty(ground):
    for written, expected in ((f"[{ENDPOINT_ID}]", [ENDPOINT_ID]), ("[]", [])):
        ground.write("config.yaml", f"allowed_functions: {written}\n")
        assert json.loads(ground.prepare().document)["allowed_functions"] == expected


def test_the_administrators_limits_for_blocks_go_into_the_document(ground):
    assert json.loads(ground.prepare().document)["block_limits"] == {"max_blocks": None, "max_blocks_per_minute": 60}

    ground.write("config.yaml", "max_blocks_per_user_endpoint: 4\nmax_block_requests_per_minute: 7\n")

    assert json.loads(ground.prepare().document)["block_limits"] == {"max_blocks": 4, "max_blocks_per_minute": 7}


def test_options_reach_the_template_and_the_environment_does_too(ground):
    ground.write("user_config_template.yaml.j2", ENGINE + "display_name: {{ word }} # {{ _GC.env.OWN }}\n")

    document = json.loads(ground.prepare(user_opts={"word": "hello"}).document)

    assert 'display_name: "hello" # 1' in document["config"]


def test_an_option_that_the_schema_refuses_is_the_users_fault(ground):
    ground.write("user_config_schema.json", '{"type": "object", "additionalProperties": false}')

    with pytest.raises(UserOptionsError):
        ground.prepare(user_opts={"nope": 1})


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("user_config_template.yaml.j2", "engine: {{ oh"),
        ("user_config_template.yaml.j2", "- just\n- a list\n"),
        ("user_config_template.yaml.j2", ""),
        ("user_config_schema.json", "{"),
        ("user_config_schema.json", "[]"),
        ("user_environment.yaml", "[1, 2]"),
        ("user_environment.yaml", "A: {b: 1}"),
        ("user_environment.yaml", "A: 'unfinished"),
    ],
)
def test_a_file_of_the_administrator_that_is_broken_is_told_as_theirs(ground, name, text):
    ground.write(name, text)

    with pytest.raises(ConfigError):
        ground.prepare()


def test_a_template_that_is_missing_is_told(ground):
    (ground.endpoint_dir / "user_config_template.yaml.j2").unlink()

    with pytest.raises(ConfigError, match="template"):
        ground.prepare()


def test_a_template_without_the_suffix_is_found(ground):
    (ground.endpoint_dir / "user_config_template.yaml.j2").rename(ground.endpoint_dir / "user_config_template.yaml")

    assert ground.prepare()


def test_a_program_that_is_not_on_the_path_is_told(ground):
    ground.write("user_environment.yaml", "PATH: /not/there\n")

    with pytest.raises(EndpointError) as caught:
        ground.prepare()

    assert caught.value.failure.code == "NO_PROGRAM"


def test_the_account_says_where_home_is(ground):
    ground.write("user_environment.yaml", "HOME: /elsewhere\nUSER: root\nPWD: /\nA: b\n")

    assert read_user_environment(ground.endpoint_dir) == {"A": "b"}


def test_a_credential_file_can_be_read_and_rewritten_but_not_written_by_the_child():
    credentials = CredentialFile()
    reader = credentials.reader()
    for creds in ({"a": "x" * 1000}, {"b": 1}):
        credentials.write(creds)
        content = os.pread(reader, 1 << 20, 0)
        assert json.loads(Fernet(credentials.key).decrypt(content)) == {"amqp_creds": creds}
    with pytest.raises(OSError):
        os.write(reader, b"x")
    credentials.close()
