"""Users with different Pythons on one endpoint of ours, with the official SDK and the templates of `configure`."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.hubs import RunningHub, clean_environment
from tests.support.managed import TEMPLATE, ManagedEndpoint
from tests.support.pythons import UV_CACHE, python, uv
from tests.support.user_endpoint import BIN

SCENARIOS = Path(__file__).parent / "peers" / "python_scenarios.py"
OWN = f"{sys.version_info.major}.{sys.version_info.minor}"
NO_SUCH = "no-such-package-in-this-world"

Play = Callable[..., subprocess.Popen[str]]


class DefaultEndpoint(ManagedEndpoint):
    """An endpoint as `configure` makes it, where uv and the Pythons of this machine are on PATH."""

    def __init__(self, directory: Path, env: dict[str, str], *options: str, versions: list[str]) -> None:
        super().__init__(BIN / "globus-compute-endpoint", directory, env)
        self._options = options
        others = [str(python(version).parent) for version in versions]
        self.env["PATH"] = ":".join([str(uv().parent), self.env["PATH"], *others])
        self.env["UV_CACHE_DIR"] = str(UV_CACHE)

    def configure(self) -> None:
        self.run("configure", "lab", *self._options)


@pytest.fixture(scope="module")
def client_env(hub: RunningHub) -> dict[str, str]:
    return hub.client_env("scientist")


@pytest.fixture(scope="module")
def submitters(peer_sdk_python: Path, peer_sdk_newer_python: Path) -> dict[str, Path]:
    """The version of Python -> one with the official SDK; ours is among them, and another one."""
    question = "import sys; print('%d.%d' % sys.version_info[:2])"
    found = {}
    for path in (peer_sdk_python, peer_sdk_newer_python):
        done = subprocess.run([path, "-c", question], capture_output=True, text=True, check=True)
        found[done.stdout.strip()] = path
    assert OWN in found
    assert len(found) == 2, "the two environments are to have different Pythons"
    return found


@pytest.fixture(scope="module")
def other(submitters: dict[str, Path]) -> str:
    """The version that is not the endpoint's."""
    return next(version for version in submitters if version != OWN)


@pytest.fixture(scope="module", params=["text", "data"])
def endpoint(request, client_env, submitters, tmp_path_factory) -> Iterator[ManagedEndpoint]:
    options = ["--data-template"] if request.param == "data" else []
    directory = tmp_path_factory.mktemp(request.param)
    with DefaultEndpoint(directory, client_env, *options, versions=list(submitters)) as started:
        yield started


@pytest.fixture(scope="module")
def play(submitters: dict[str, Path], client_env: dict[str, str]) -> Play:
    """Start a scenario in a version of Python."""

    def start(scenario: str, version: str, endpoint: ManagedEndpoint, **options: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [submitters[version], SCENARIOS, scenario, endpoint.endpoint_id, json.dumps(options)],
            env=clean_environment(client_env),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def answer_of(started: subprocess.Popen[str], endpoint: ManagedEndpoint) -> dict[str, Any]:
    said, errors = started.communicate(timeout=110)
    assert started.returncode == 0, f"{said}\n{errors}\n{endpoint.log}"
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return answer


def test_users_with_two_pythons_are_served_at_once_each_in_their_own(play, endpoint, submitters, other):
    started = {version: play("pickled", version, endpoint) for version in submitters}

    answers = {version: answer_of(one, endpoint) for version, one in started.items()}

    assert {version: answer.get("python") for version, answer in answers.items()} == {OWN: OWN, other: other}, answers
    assert {answer["doubled"] for answer in answers.values()} == {42}
    assert answers[OWN]["prefix"] == sys.prefix
    made = Path(answers[other]["prefix"])
    assert made.parent == endpoint.directory / ".globus_compute" / "environments"
    assert made.name.startswith(f"py{other}-sdk4.")


def test_packages_that_a_user_asks_for_are_in_an_environment_of_their_own(play, endpoint, other):
    assert answer_of(play("package", other, endpoint, requirements="six==1.17.0"), endpoint) == {"six": "1.17.0"}


def test_shell_functions_run_in_an_environment_that_was_made(play, endpoint, other):
    assert answer_of(play("shell", other, endpoint), endpoint) == {"stdout": "spoken\n", "returncode": 0}


def test_an_environment_that_can_not_be_made_is_told_to_the_user_in_uvs_own_words(play, endpoint, other):
    answer = answer_of(play("pickled", other, endpoint, requirements=f"{NO_SUCH}==3"), endpoint)

    assert "The workers' environment can't be made" in answer["error"], answer
    assert f"Because {NO_SUCH} was not found" in answer["error"]


@pytest.fixture(scope="module")
def plain(client_env, tmp_path_factory) -> Iterator[ManagedEndpoint]:
    """An endpoint whose template knows nothing of the user's Python."""
    template = TEMPLATE.replace("ThreadPoolEngine", "GlobusComputeEngine").replace(
        "max_workers", "max_workers_per_node"
    )
    with ManagedEndpoint(BIN / "globus-compute-endpoint", tmp_path_factory.mktemp("plain"), client_env) as started:
        (started.folder / "user_config_template.yaml.j2").write_text(template)
        yield started


def test_without_such_an_environment_source_runs_and_bytecode_is_refused_in_one_sentence(play, plain, other):
    started = [play(scenario, other, plain) for scenario in ("source", "pickled")]

    by_source, by_bytecode = (answer_of(one, plain) for one in started)

    assert (by_source["python"], by_source["doubled"]) == (OWN, 42)
    said = by_bytecode["error"]
    (sentence,) = [line for line in said.splitlines() if "bytecode" in line and "can't be deserialized" in line]
    assert f"it holds bytecode of Python {other}" in sentence
    assert f"and the worker has Python {OWN}." in sentence
    words, _, place = sentence.partition("can't be deserialized")[2].partition(". [")
    assert (". " in words, place.startswith("task: TASK_REFUSED")) == (False, True), "no worker was asked"
