"""`idmap` as people and deployments run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.errors import ExitStatus

PROGRAM = [str(Path(sys.executable).parent / "globus-compute-endpoint"), "idmap"]
GUEST = "9cf5a1d2-41c4-4925-b0bb-f5e0a16c98ab"
MAPPING = [
    {
        "DATA_TYPE": "expression_identity_mapping#1.0.0",
        "mappings": [
            {"source": "{username}", "match": r"(.*)@example\.org", "output": "{0}"},
            {"source": "{username}", "match": r"(.*)\.(.*)@partner\.example\.com", "output": "ext_{0}"},
            {"source": "{id}", "match": GUEST, "output": "guest", "literal": True},
        ],
    }
]


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    name = "gce-idmap-b"
    subprocess.run(["useradd", "--no-create-home", "--shell", "/bin/sh", name], check=True)
    yield name
    subprocess.run(["userdel", name], check=False)


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps(MAPPING))
    return path


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy.json"
    path.write_text("{}")
    return path


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can look into, which pytest's own are not."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


def idmap(*words: Any, stdin: str | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*PROGRAM, *map(str, words)],
        input=stdin,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def explained(*words: Any, **more: Any) -> tuple[int, dict[str, Any]]:
    done = idmap("explain", "--json", *words, **more)
    return done.returncode, json.loads(done.stdout)


def test_explain_tells_rule_capture_local_user_and_policy(mapping, policy, account):
    done = idmap("explain", "--mapping", mapping, "--policy", policy, f"{account}@example.org")

    assert done.returncode == 0, done.stderr
    for words in (
        "Decides:     document 1, rule 1",
        rf"match      (.*)@example\.org: {{0}} = {account}",
        f"Local user:  {account}, uid ",
        "Policy:      may have a user endpoint",
    ):
        assert words in done.stdout


def test_explain_as_data_has_every_trial_and_the_decision(mapping, policy, account):
    status, found = explained("--mapping", mapping, "--policy", policy, f"{account}@example.org")

    assert status == 0
    assert found["admitted"] is True
    assert [trial["outcome"] for trial in found["documents"][0]["trials"]] == ["hit", "no match", "no match"]
    assert found["documents"][0]["trials"][0]["groups"] == [account]
    assert (found["decides"]["document"], found["decides"]["rule"], found["local_user"]["uname"]) == (1, 1, account)


@pytest.mark.parametrize(
    ("who", "code"),
    [
        ("eve@evil.com", "IDENTITY_NOT_MAPPED"),
        ("no-such-user@example.org", "NO_SUCH_USER"),
        ("root@example.org", "ROOT_REFUSED"),
        ("games@example.org", "UID_TOO_SMALL"),
        (GUEST, "NO_SUCH_USER"),
    ],
)
def test_explain_tells_who_would_be_refused_and_why(mapping, policy, who, code):
    status, found = explained("--mapping", mapping, "--policy", policy, who)

    assert status == 1
    assert found["refusal"]["code"] == code
    assert found["admitted"] is False
    text = idmap("explain", "--mapping", mapping, "--policy", policy, who)
    assert f"[{code}]" in text.stdout
    assert text.returncode == 1


def test_explain_takes_a_set_of_identities_from_a_file_or_standard_input(mapping, policy, account, tmp_path):
    identities = [{"id": "1", "username": "x@y.z", "status": "used"}, {"username": f"{account}@example.org"}]
    path = tmp_path / "me.json"
    path.write_text(json.dumps({"identities": identities}))

    status, found = explained("--mapping", mapping, "--policy", policy, path)
    again = explained("--mapping", mapping, "--policy", policy, "-", stdin=json.dumps(identities))

    assert (status, found["local_user"]["uname"]) == (0, account)
    assert again == (status, found)
    assert idmap("explain", "-m", mapping, "-", stdin="nonsense").returncode == ExitStatus.BAD_CONFIG


def test_explain_takes_the_mapping_of_an_endpoint(tmp_path, mapping, account):
    folder = tmp_path / "all" / "site"
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(f"identity_mapping_config_path: {mapping}\n")
    (tmp_path / "all" / "mine").mkdir()
    (tmp_path / "all" / "mine" / "config.yaml").write_text("display_name: mine\n")
    here = {"GLOBUS_COMPUTE_USER_DIR": str(tmp_path / "all")}

    status, found = explained("--endpoint", "site", f"{account}@example.org", **here)

    assert found["decides"]["output"] == account
    assert "maps nobody" in idmap("explain", "-e", "mine", "x@y.z", **here).stderr
    assert status in (0, 1)  # by the machine's own policy


def test_programs_are_asked_as_the_owner_of_the_mapping_and_never_as_root(open_folder, mapping, account):
    assert os.geteuid() == 0, "this needs root"
    program = open_folder / "ask"
    program.write_text("#!/bin/sh\nid -un >&2\nexit 1\n")
    program.chmod(0o755)
    mapping.write_text(json.dumps([{"DATA_TYPE": "external_identity_mapping#1.0.0", "command": [str(program)]}]))
    mapping.chmod(0o644)
    subprocess.run(["chown", account, str(mapping)], check=True)

    status, found = explained("--mapping", mapping, "x@y.z")

    assert status == 1
    assert f"said: {account}" in found["documents"][0]["problem"]
    assert found["refusal"]["code"] == "LOOKUP_FAILED"


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["explain", "x@y.z"], ExitStatus.USAGE),
        (["explain", "-m", "/nowhere.json", "x@y.z"], ExitStatus.USAGE),
        (["explain", "-e", "nowhere", "x@y.z"], ExitStatus.BAD_CONFIG),
        (["explain"], ExitStatus.USAGE),
        (["explain", "-m", "MAPPING", "/nowhere.json"], ExitStatus.USAGE),
        (["test", "-m", "MAPPING", "/nowhere.yaml"], ExitStatus.USAGE),
    ],
)
def test_what_makes_no_sense_is_told_with_a_status(mapping, words, status):
    done = idmap(*[mapping if word == "MAPPING" else word for word in words])

    assert done.returncode == status
    assert "Traceback" not in done.stderr
    assert done.stderr


def test_an_invalid_mapping_has_the_official_status_in_every_command(mapping, tmp_path):
    mapping.write_text('[{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mapings": []}]')
    (tmp_path / "t.yaml").write_text("x@y.z: null\n")

    for words in (["explain", "x@y.z"], ["test", tmp_path / "t.yaml"], ["collisions"]):
        done = idmap(*words, "-m", mapping)
        assert done.returncode == ExitStatus.MAPPING_UNREADABLE
        assert "did you mean 'mappings'?" in done.stderr


TABLES = {
    "map.yaml": 'jo@example.org: jo\nmy.name@partner.example.com: ext_my\neve@evil.com: null\n"bob@evil.com": "-"\n',
    "list.yaml": f"""\
- identity: jo@example.org
  user: jo
- identity: {{id: {GUEST}, username: x@y.z}}
  user: guest
- identity: [{{username: a@b.c}}, {{username: bo@example.org, status: unused}}, {{username: jo@example.org}}]
  user: jo
- {{identity: eve@evil.com, user: null}}
""",
    "table.csv": "# staff\nidentity,user\njo@example.org,jo\neve@evil.com,-\n" + f"{GUEST}, guest\nbob@evil.com,\n",
}


@pytest.mark.parametrize("name", TABLES)
def test_a_table_that_is_as_the_mapping_says_has_status_0(mapping, tmp_path, name):
    (tmp_path / name).write_text(TABLES[name])

    done = idmap("test", "--mapping", mapping, tmp_path / name)

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("identities, 0 mismatches\n")


def test_every_mismatch_is_told_with_its_line(mapping, tmp_path):
    table = tmp_path / "map.yaml"
    table.write_text("jo@example.org: jo\n\njo2@example.org: jo\neve@evil.com: eve\nbob@example.org: null\n")

    done = idmap("test", "--mapping", mapping, table)

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"{table}:3: jo2@example.org: expected jo, got jo2 (document 1, rule 1)",
        f"{table}:4: eve@evil.com: expected eve, got a refusal (no document knows them)",
        f"{table}:5: bob@example.org: expected a refusal, got bob (document 1, rule 1)",
    ]
    assert done.stdout == "4 identities, 3 mismatches\n"
    as_data = json.loads(idmap("test", "--json", "--mapping", mapping, table).stdout)
    assert [each["line"] for each in as_data["mismatches"]] == [3, 4, 5]


def test_a_table_can_ask_for_accounts_and_policy_too(mapping, policy, tmp_path, account):
    table = tmp_path / "map.yaml"
    table.write_text(f"{account}@example.org: {account}\ngames@example.org: null\nno-such-user@example.org: null\n")
    words = ["test", "--mapping", mapping, "--policy", policy, table]

    assert idmap(*words, "--accounts").returncode == 0
    assert idmap(*words).returncode == 1


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.yaml", "", "There are no identities"),
        ("a.yaml", "- identity: x\n", "a.yaml:1: an entry has the keys identity and user"),
        ("a.yaml", "- {identity: 5, user: x}\n", "a.yaml:1: An identity is"),
        ("a.yaml", "a: b\na: c\n", "stands here twice"),
        ("a.yaml", "- {identity: [], user: x}\n", "a.yaml:1: There is no identity"),
        ("a.csv", "a,b\na,b,c\n", "a.csv:2: a line has an identity and a user"),
    ],
)
def test_a_table_that_is_none_is_told(mapping, tmp_path, name, text, words):
    (tmp_path / name).write_text(text)

    done = idmap("test", "--mapping", mapping, tmp_path / name)

    assert done.returncode == ExitStatus.BAD_CONFIG
    assert words in done.stderr


def test_a_lookup_that_fails_is_a_mismatch_whatever_is_expected(mapping, tmp_path):
    rule = {"source": "{username}", "match": "(a*)*b", "output": "x"}
    mapping.write_text(json.dumps([{"DATA_TYPE": MAPPING[0]["DATA_TYPE"], "mappings": [rule]}]))
    (tmp_path / "map.yaml").write_text(f"{'a' * 60}: null\nb: x\n")

    done = idmap("test", "--mapping", mapping, tmp_path / "map.yaml")

    assert done.returncode == 1
    assert "a rule took too long" in done.stderr
    assert "2 identities, 1 mismatch\n" in done.stdout


def test_collisions_are_shown_with_people_and_status_1(mapping):
    done = idmap("collisions", "--mapping", mapping)

    assert done.returncode == 1
    assert (
        "document 1, rule 2: jdoe.jdoe@partner.example.com and jdoe.x@partner.example.com become ext_jdoe"
        in done.stdout
    )


def test_no_collision_is_status_0(mapping):
    mapping.write_text(json.dumps([MAPPING[0] | {"mappings": MAPPING[0]["mappings"][:1]}]))

    done = idmap("collisions", "--mapping", mapping)

    assert (done.returncode, done.stdout) == (0, "0 collisions\n")


def test_collisions_among_given_people_are_found_and_linked_identities_are_none(mapping, tmp_path):
    mapping.write_text(json.dumps([MAPPING[0] | {"mappings": MAPPING[0]["mappings"][:1]}]))
    same = [{"id": "1", "username": "jo@example.org"}, {"id": "2", "username": "jo@home.org"}]
    people = tmp_path / "people.json"
    people.write_text(json.dumps([same, {"id": "3", "username": "jo@example.org"}, "bo@example.org"]))

    done = idmap("collisions", "--json", "--mapping", mapping, "--identities", people)

    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert found["possible"] == []
    assert [each["account"] for each in found["among_identities"]] == ["jo"]
    people.write_text(json.dumps([same]))
    assert idmap("collisions", "--mapping", mapping, "--identities", people).returncode == 0


def test_check_config_warns_of_rules_that_were_hardly_meant(mapping):
    written = MAPPING[0]["mappings"][0] | {"match": r"^(.+)@example\.org$"}
    mapping.write_text(json.dumps([MAPPING[0] | {"mappings": [written]}]))

    done = subprocess.run(
        [PROGRAM[0], "check-config", "--kind", "identity-mapping", str(mapping)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.returncode == 0
    assert "[0].mappings[0].match: ^ has no meaning here but itself" in done.stderr
