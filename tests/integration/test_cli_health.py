"""`health`, on endpoints that are well and on some that are not, at a real hub."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint.errors import ExitStatus
from tests.support.hubs import Credentials, RunningHub, clean_environment
from tests.support.waiting import wait_for

PROGRAM = str(Path(sys.executable).with_name("globus-compute-endpoint"))
THREADS = "engine: {type: ThreadPoolEngine}\nheartbeat_period: 5\n"
ME = psutil.Process().username()


class Lab:
    """An endpoint `lab` in a directory of its own, its owner's identity, and somebody else's."""

    def __init__(self, directory: Path, hub: RunningHub) -> None:
        self.directory = directory
        self.folder = directory / "lab"
        self.owner, self.other = hub.client("owner"), hub.client("other")
        self._hub = hub
        self._started: list[subprocess.Popen[bytes]] = []
        self._own_identity(self.owner)

    def _own_identity(self, owner: Credentials) -> None:
        self.folder.mkdir(parents=True, mode=0o700)
        for name, text in vars(owner).items():
            path = self.folder / name
            path.write_text(text)
            path.chmod(0o600)

    def configure(self, template: str = THREADS, schema: dict[str, Any] | None = None, **config: Any) -> None:
        (self.folder / "config.yaml").write_text(json.dumps({"heartbeat_period": 5, **config}))
        (self.folder / "user_config_template.yaml.j2").write_text(template)
        (self.folder / "user_config_schema.json").write_text(json.dumps(schema or {}))

    @property
    def environment(self) -> dict[str, str]:
        return clean_environment({**self._hub.env, "GLOBUS_COMPUTE_USER_DIR": str(self.directory)})

    def start(self) -> subprocess.Popen[bytes]:
        """Start it, and do not wait for anything."""
        process = subprocess.Popen(
            [PROGRAM, "start", "lab"],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.directory / "start.stderr").open("ab"),
        )
        self._started.append(process)
        assert wait_for((self.folder / "daemon.pid").exists, timeout=20)
        return process

    def health(self, *arguments: str, given: str = "", name: str = "lab") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [PROGRAM, "health", name, *arguments],
            env=self.environment,
            input=given,
            capture_output=True,
            text=True,
            timeout=100,
        )

    def told(self, *arguments: str, status: int = 0, given: str = "", name: str = "lab") -> dict[str, Any]:
        """Its document."""
        done = self.health("--json", *arguments, given=given, name=name)
        assert done.returncode == status, f"{done.returncode}: {done.stdout}{done.stderr}"
        document: dict[str, Any] = json.loads(done.stdout)
        assert document["healthy"] == (status == 0)
        return document

    def end(self) -> None:
        for process in self._started:
            children = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
            process.terminate()
            process.wait(30)
            psutil.wait_procs(children, timeout=20)


@pytest.fixture
def lab(tmp_path: Path, hub: RunningHub) -> Iterator[Lab]:
    made = Lab(tmp_path / "gc", hub)
    made.configure()
    yield made
    made.end()


def test_an_endpoint_that_has_just_been_started_is_waited_for_and_tells_who_ran_the_function(lab: Lab) -> None:
    lab.start()

    document = lab.told("--user", ME)

    assert [(stage["stage"], stage["state"]) for stage in document["stages"]] == [
        ("registered", "ok"),
        ("heartbeat", "ok"),
        ("task", "ok"),
    ]
    assert document["endpoint"]["id"] == json.loads((lab.folder / "endpoint.json").read_text())["endpoint_id"]
    task = document["task"]
    assert (task["user"], task["python"]) == (ME, ".".join(map(str, sys.version_info[:3])))
    assert 0 < task["seconds"] < 60

    shown = lab.health("--no-task")
    assert (shown.returncode, shown.stdout.splitlines()[-1], shown.stderr) == (0, "Healthy", "")


def test_another_local_user_than_the_expected_one_is_a_failure_of_its_own(lab: Lab) -> None:
    lab.start()

    document = lab.told("--user", "somebody-else", status=ExitStatus.MAPPING_UNREADABLE)

    failed = document["stages"][-1]
    assert (failed["stage"], failed["code"]) == ("task", "WRONG_USER")
    assert "it should have been somebody-else" in failed["detail"]
    assert document["task"]["user"] == ME


def test_who_may_not_use_the_endpoint_reads_so_and_the_secret_can_come_on_standard_input(lab: Lab) -> None:
    lab.start()
    lab.told("--no-task")

    who = ["--client-id", lab.other.client_id, "--client-secret-file", "-"]
    document = lab.told(*who, status=ExitStatus.FAILED, given=f"{lab.other.client_secret}\n")

    assert document["stages"][-1]["code"] == "FORBIDDEN"
    wrong = lab.told(*who, status=ExitStatus.FAILED, given="not-the-secret-of-anybody\n")
    assert wrong["stages"][-1]["code"] == "LOGIN_REFUSED"
    assert lab.other.client_id.encode() not in (lab.directory / "storage.db").read_bytes(), "tokens are kept nowhere"


def test_a_user_endpoint_that_does_not_start_is_told_in_its_own_words(lab: Lab) -> None:
    lab.configure("engine: {type: ThreadPoolEngine}\nendpoint_setup: 'echo no scratch here >&2; exit 3'\n")
    lab.start()

    document = lab.told(status=ExitStatus.REGISTRATION_REFUSED)

    assert document["stages"][-1]["stage"] == "task"
    assert "no scratch here" in document["stages"][-1]["detail"]


def test_required_options_are_the_schemas_examples_or_those_given(lab: Lab) -> None:
    template = "engine: {type: ThreadPoolEngine}\ndisplay_name: {{ queue }}\n"
    queue: dict[str, Any] = {"type": "string", "enum": ["short", "long"]}
    lab.configure(template, {"type": "object", "properties": {"queue": queue}, "required": ["queue"]})
    lab.start()

    assert lab.told()["healthy"]
    refused = lab.told("--options", '{"queue": "wide"}', status=ExitStatus.REGISTRATION_REFUSED)
    assert "queue" in refused["stages"][-1]["detail"]


def test_a_function_list_is_named_as_the_reason(lab: Lab) -> None:
    lab.configure(allowed_functions=["b4a4d9f6-8d5c-4f0b-9a0e-0f2a2d4b7d11"])
    lab.start()

    document = lab.told(status=ExitStatus.FAILED)

    assert "not permitted" in document["stages"][-1]["detail"]


def test_an_endpoint_that_never_ran_and_one_that_has_stopped_are_told_apart(lab: Lab) -> None:
    never = lab.told("--timeout", "1", status=ExitStatus.ENDPOINT_BLOCKED)
    assert [stage["code"] for stage in never["stages"]] == ["NOT_REGISTERED"]

    process = lab.start()
    lab.told("--no-task")
    process.terminate()
    process.wait(30)
    stopped = lab.told("--timeout", "1", status=ExitStatus.NETWORK)
    assert [stage["code"] for stage in stopped["stages"]] == ["", "NOT_ONLINE"]
    assert "endpoint.log" in stopped["stages"][-1]["next_step"]


def test_ctrl_c_ends_it_and_keeps_what_was_seen(lab: Lab) -> None:
    lab.start()
    lab.told("--no-task")
    lab.end()
    process = subprocess.Popen(
        [PROGRAM, "health", "lab"], env=lab.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "Registered\n"
    assert "The service knows it" in process.stdout.readline()

    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=20)

    assert (process.returncode, rest) == (ExitStatus.INTERRUPTED, "")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--client-id", "b4a4d9f6-8d5c-4f0b-9a0e-0f2a2d4b7d11"], "--client-secret-file belong together"),
        (["--no-task", "--user", "alice"], "--no-task leaves nothing"),
        (["--options", "{queue: 1}"], "is not JSON"),
    ],
)
def test_a_command_line_that_makes_no_sense_is_refused(lab: Lab, arguments: list[str], says: str) -> None:
    done = lab.health(*arguments)

    assert done.returncode == ExitStatus.USAGE
    assert says in done.stderr


def test_a_secret_that_others_can_read_is_not_taken(lab: Lab, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(lab.other.client_secret)
    secret.chmod(0o644)

    done = lab.health("--client-id", lab.other.client_id, "--client-secret-file", str(secret))

    assert (done.returncode, "is open to others" in done.stderr) == (ExitStatus.FAILED, True)
    assert lab.other.client_secret not in done.stderr + done.stdout
    nowhere = lab.told(name="nowhere", status=ExitStatus.BAD_CONFIG)
    assert (nowhere["stages"], nowhere["error"]["code"]) == ([], "NO_SUCH_ENDPOINT")
