"""The commands that make, show, check, split and remove an endpoint's files; no service is needed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from endpoint.cli.main import run
from endpoint.config.load import load_yaml
from endpoint.errors import ExitStatus
from endpoint.lease import Lease

POLICY = "0c9bbcc5-8b8a-4a5e-9c1c-0b5a3a0a9a01"
NOBODY = str(2**22 + 1)


@pytest.fixture(autouse=True)
def compute_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("CLIENT_ID", "CLIENT_SECRET", "CREDENTIAL_FILE", "ENDPOINT_DIR"):
        monkeypatch.delenv(f"GLOBUS_COMPUTE_{name}", raising=False)
    monkeypatch.setenv("GLOBUS_COMPUTE_USER_DIR", str(tmp_path / "gc"))
    # Nobody listens there: a command that calls the service fails at once.
    for service in ("AUTH", "COMPUTE"):
        monkeypatch.setenv(f"GLOBUS_SDK_SERVICE_URL_{service}", "http://127.0.0.1:9/")
    return tmp_path / "gc"


@pytest.fixture
def one(compute_dir: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    assert run(["configure", "one", "--multi-user", "false"]) == 0
    capsys.readouterr()
    return compute_dir / "one"


def old_endpoint(compute_dir: Path, text: str = "engine:\n  type: ThreadPoolEngine\n") -> Path:
    directory = compute_dir / "old"
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(text)
    return directory


def test_configure_makes_an_endpoint_that_checks_and_renders(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check-config", str(one)]) == 0
    assert run(["render-user-config", "-e", "one"]) == 0
    assert "GlobusComputeEngine" in capsys.readouterr().out
    assert one.stat().st_mode & 0o777 == 0o700


def test_configure_refuses_a_name_that_is_taken(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (one / "config.yaml").read_bytes()
    assert run(["configure", "one", "--multi-user", "false"]) == ExitStatus.USAGE
    assert "already" in capsys.readouterr().err
    assert (one / "config.yaml").read_bytes() == before


def test_configure_writes_what_the_options_say(compute_dir: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text("# ours\ndebug: true\n")
    template = tmp_path / "own.j2"
    template.write_text("engine:\n  type: ThreadPoolEngine\n")
    options = ["--display-name", "A name", "--contact-email", "a@b.org", "--auth-policy", POLICY]
    options += ["--subscription-id", POLICY, "--high-assurance", "--multi-user", "true"]
    options += ["--core-config", str(own), "--template-config", str(template)]
    assert run(["configure", "two", *options]) == 0
    text = (compute_dir / "two" / "config.yaml").read_text()
    config = load_yaml(text, "config.yaml").data
    written = {"debug": True, "display_name": "A name", "email": "a@b.org", "authentication_policy": POLICY}
    written |= {"subscription_id": POLICY, "high_assurance": True, "public": True}
    assert {key: config[key] for key in written} == written
    assert "# ours" in text
    assert (compute_dir / "two" / "user_config_template.yaml.j2").read_text() == template.read_text()
    assert (compute_dir / "two" / "example_identity_mapping_config.json").exists()


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        (["--multi-user", "true"], "--contact-email"),
        (["--multi-user", "false", "--id-mapping-config", __file__], "--multi-user true"),
        (["--multi-user", "false", "--auth-policy", POLICY, "--auth-timeout", "60"], "one or the other"),
        (["--multi-user", "false", "--high-assurance"], "--subscription-id"),
        (["--multi-user", "false", "--auth-policy-mfa-required"], "--auth-policy-project-id"),
        (["--multi-user", "false", "--auth-policy-mfa-required", "--allowed-domains", "a"], "--high-assurance"),
        (["--multi-user", "false", "--auth-policy", "not-an-id"], "--help"),
    ],
)
def test_configure_refuses_contradictions_and_says_what_to_do(
    options: list[str], hint: str, compute_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["configure", "one", *options]) == ExitStatus.USAGE
    if hint != "--help":
        assert hint in capsys.readouterr().err
    assert not compute_dir.exists()


def test_list_shows_each_state_of_an_endpoint(one: Path, compute_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    states: dict[str, str | None] = {"never": None, "running": "", "gone": NOBODY, "stopped": None, "elsewhere": ""}
    for name in states:
        (compute_dir / name).mkdir()
        (compute_dir / name / "config.yaml").touch()
        if name != "never":
            (compute_dir / name / "endpoint.json").write_text(json.dumps({"endpoint_id": POLICY}))
    (compute_dir / "gone" / "daemon.pid").write_text(f'{{"pid": {NOBODY}, "host": null, "process_start": 1}}')
    (compute_dir / "elsewhere" / "daemon.pid").write_text('{"pid": 1, "host": "login2"}')
    (one / "endpoint.json").write_text("broken")
    with Lease.take(compute_dir / "running" / "daemon.pid"):
        assert run(["list", "--json"]) == 0
        found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert found["never"]["status"] == "Initialized"
    assert found["running"]["status"] == "Running"
    assert found["stopped"]["status"] == "Stopped"
    assert found["elsewhere"]["host"] == "login2"
    assert found["one"]["status"] == "Unreadable"
    assert "endpoint.json" in found["one"]["problem"]
    assert run(["list"]) == 0
    assert "Endpoint ID" in capsys.readouterr().out


def test_list_of_nothing_says_how_to_begin(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["list"]) == 0
    assert "configure" in capsys.readouterr().err


def test_status_without_a_login_shows_what_is_known_here(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one / "endpoint.json").write_text(json.dumps({"endpoint_id": POLICY}))
    assert run(["status", POLICY.upper(), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["name"], document["status"]) == ("one", "Stopped")
    assert "logged in" in document["service"]["unknown"]


@pytest.mark.parametrize("command", ["start", "status", "stop", "restart", "delete", "migrate-to-template-capable"])
def test_command_about_an_endpoint_that_is_not_there_names_those_that_are(
    command: str, one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([command, "nobody"]) == ExitStatus.BAD_CONFIG
    assert "Endpoints here: one" in capsys.readouterr().err


def test_check_config_tells_every_problem_with_its_place(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one / "config.yaml").write_text("display_nam: x\nheartbeat_period: often\n")
    (one / "user_config_template.yaml.j2").write_text("engine: {{ 1\n")
    (one / "user_config_schema.json").write_text('{"type": "nothing"}')
    (one / "user_environment.yaml").write_text("PATH: /bin\nPATH: /usr/bin\n")
    assert run(["check-config", str(one), "--json"]) == ExitStatus.BAD_CONFIG
    document = json.loads(capsys.readouterr().out)
    by_kind: dict[str, Any] = {report["kind"]: report for report in document["files"]}
    places = [(problem["line"], problem["path"]) for problem in by_kind["endpoint"]["problems"]]
    assert places == [(1, "display_nam"), (2, "heartbeat_period")]
    assert "display_name" in by_kind["endpoint"]["problems"][0]["hint"]
    assert len(document["files"]) == 4
    assert not any(report["valid"] for report in document["files"])
    assert run(["check-config", str(one)]) == ExitStatus.BAD_CONFIG
    assert f"{one / 'config.yaml'}:1:1: display_nam: " in capsys.readouterr().err


def test_check_config_says_how_far_a_template_can_be_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = tmp_path / "mine.yaml.j2"
    template.write_text("engine:\n  type: {{ engine_type }}\n")
    assert run(["check-config", str(template)]) == 0
    assert "engine_type" in capsys.readouterr().err


def test_check_config_reads_a_user_configuration_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "rendered.yaml"
    path.write_text("engine:\n  type: ThreadPoolEngine\n")
    assert run(["check-config", str(path)]) == 0
    path.write_text("engine:\n  type: NoSuchEngine\n")
    assert run(["check-config", str(path)]) == ExitStatus.BAD_CONFIG


def test_render_user_config_uses_options_and_refuses_bad_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    template, options, schema = (tmp_path / name for name in ("t.yaml.j2", "o.json", "s.json"))
    template.write_text("engine:\n  type: ThreadPoolEngine\n  max_workers: {{ workers }}\n")
    options.write_text('{"workers": 3}')
    schema.write_text('{"properties": {"workers": {"type": "integer", "maximum": 4}}}')
    command = ["render-user-config", "-t", str(template), "-o", str(options), "-s", str(schema)]
    assert run(command) == 0
    assert "max_workers: 3" in capsys.readouterr().out
    options.write_text('{"workers": 5}')
    assert run(command) == ExitStatus.BAD_CONFIG
    assert "workers" in capsys.readouterr().err
    options.write_text("[3]")
    assert run(command) == ExitStatus.BAD_CONFIG
    assert str(options) in capsys.readouterr().err


def test_render_user_config_without_a_template_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["render-user-config"]) == ExitStatus.USAGE
    assert "--template" in capsys.readouterr().err


def test_render_user_config_reads_one_file_from_stdin_and_no_more(one: Path, compute_dir: Path) -> None:
    command = [sys.executable, "-m", "endpoint.cli.main", "-c", str(compute_dir), "render-user-config", "-e", "one"]
    options = {"input": '{"worker_init": "module load python"}', "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run([*command, "-o", "-"], **options)
    assert done.returncode == 0, done.stderr
    assert "module load python" in done.stdout
    assert subprocess.run([*command, "-o", "-", "-t", "-"], **options).returncode == ExitStatus.USAGE


def test_migration_splits_the_file_and_keeps_the_old_one(compute_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "display_name: Old\nengine:\n  type: ThreadPoolEngine\n"
    directory = old_endpoint(compute_dir, text)
    assert run(["start", "old"]) == ExitStatus.BAD_CONFIG
    assert "migrate-to-template-capable" in capsys.readouterr().err
    assert run(["migrate-to-template-capable", "old", "--yes"]) == 0
    assert (directory / "config.yaml.backup").read_text() == text
    assert (directory / "config.yaml").read_text() == "display_name: Old\n"
    assert run(["check-config", str(directory)]) == 0
    assert run(["migrate-to-template-capable", "old", "--yes"]) == ExitStatus.BAD_CONFIG


def test_migration_that_would_break_something_changes_nothing(compute_dir: Path) -> None:
    directory = old_endpoint(compute_dir, "engine:\n  type: NoSuchEngine\n")
    assert run(["migrate-to-template-capable", "old", "--yes"]) == ExitStatus.BAD_CONFIG
    assert [path.name for path in directory.iterdir()] == ["config.yaml"]


def test_migration_leaves_a_running_endpoint_alone(compute_dir: Path) -> None:
    directory = old_endpoint(compute_dir)
    with Lease.take(directory / "daemon.pid"):
        assert run(["migrate-to-template-capable", "old", "--yes"]) == ExitStatus.ALREADY_RUNNING


def test_delete_asks_and_takes_silence_for_no_answer(one: Path, compute_dir: Path) -> None:
    command = [sys.executable, "-m", "endpoint.cli.main", "-c", str(compute_dir), "delete", "one"]
    silent = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
    assert silent.returncode == ExitStatus.USAGE
    assert "--yes" in silent.stderr
    refused = subprocess.run(command, input="n\n", capture_output=True, text=True, timeout=60)
    assert refused.returncode == ExitStatus.FAILED
    assert one.exists()
    agreed = subprocess.run(command, input="y\n", capture_output=True, text=True, timeout=60)
    assert agreed.returncode == 0, agreed.stderr
    assert not one.exists()


def test_delete_of_a_registered_endpoint_needs_the_service_unless_forced(
    one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (one / "endpoint.json").write_text(json.dumps({"endpoint_id": POLICY}))
    assert run(["delete", "one", "--yes"]) == ExitStatus.FAILED
    assert one.exists()
    assert "login" in capsys.readouterr().err
    assert run(["delete", "one", "--yes", "--force"]) == 0
    assert not one.exists()


def test_stop_of_an_endpoint_on_another_host_names_it(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one / "daemon.pid").write_text('{"pid": 1, "host": "login2", "machine": "other", "boot_id": "other"}')
    assert run(["stop", "one"]) == ExitStatus.ALREADY_RUNNING
    said = capsys.readouterr().err
    assert "login2" in said
    assert "--remote" in said


def test_stop_of_an_endpoint_that_died_tidies_up(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (one / "daemon.pid").write_text("4194305\n")
    os.utime(one / "daemon.pid", (1, 1))
    assert run(["stop", "one"]) == 0
    assert "not running" in capsys.readouterr().err
    assert not (one / "daemon.pid").exists()


def test_logout_waits_for_running_endpoints(one: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Lease.take(one / "daemon.pid"):
        assert run(["logout"]) == ExitStatus.ALREADY_RUNNING
    assert "one" in capsys.readouterr().err


def test_whoami_without_a_login_says_how_to_log_in(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["whoami"]) == ExitStatus.FAILED
    assert "globus-compute-endpoint login" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "mode", "code"),
    [
        (f'{{"client_id": "{POLICY}", "client_secret": "s3cret"}}', 0o600, "UNREACHABLE"),
        (
            f"# a comment\nexport GLOBUS_COMPUTE_CLIENT_ID='{POLICY}'\nGLOBUS_COMPUTE_CLIENT_SECRET=s3cret\n",
            0o400,
            "UNREACHABLE",
        ),
        (f"client_id={POLICY}\nclient_secret=s3cret\n", 0o644, "CREDENTIAL_FILE_OPEN"),
        (f"client_id={POLICY}\n", 0o600, "BAD_CREDENTIAL_FILE"),
        ("{broken", 0o600, "BAD_CREDENTIAL_FILE"),
        ("no equals sign", 0o600, "BAD_CREDENTIAL_FILE"),
        ("client_id=me\nclient_secret=s3cret\n", 0o600, "BAD_CREDENTIALS"),
        (None, 0o600, "BAD_CREDENTIAL_FILE"),
    ],
)
def test_credential_file_is_read_in_both_forms_and_kept_private(
    content: str | None,
    mode: int,
    code: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "credentials"
    if content is not None:
        path.write_text(content)
        path.chmod(mode)
    monkeypatch.setenv("GLOBUS_COMPUTE_CREDENTIAL_FILE", str(path))
    assert run(["whoami", "--json"]) != 0
    said = capsys.readouterr()
    assert json.loads(said.out)["error"]["code"] == code
    assert "s3cret" not in said.out + said.err
