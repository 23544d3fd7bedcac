"""When an engine makes an environment for its workers, and what it writes for them."""

from __future__ import annotations

import json
import sys

import pytest

from endpoint.engines.user_environment import name_of
from endpoint.engines.worker_python import check_environment, is_needed, set_up_pool
from endpoint.errors import ConfigError, EngineFailure
from endpoint.worker.explain import why_not_loaded

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
DIRECTORY = {"directory": "~/e", "always": False}
TEMPLATE = "process_worker_pool.py -a {addresses}"


class LocalProvider:
    worker_init = "module load x\n"


class KubernetesProvider(LocalProvider):
    pass


@pytest.mark.parametrize(
    ("environment", "needed"),
    [
        ({}, False),
        ({"python": ""}, False),
        ({"python": f"{HERE}.99", "sdk": "4.19.0", "requirements": ""}, False),
        ({"python": f"{HERE}.99", "always": True}, True),
        ({"python": "3.8.1"}, True),
        ({"requirements": "numpy"}, True),
        ({"path": "/opt/env"}, True),
    ],
)
def test_one_is_made_where_the_endpoints_own_python_would_not_do(environment, needed):
    assert is_needed({**DIRECTORY, **environment}) is needed


def test_what_is_wanted_is_written_where_the_block_reads_it_and_made_before_worker_init(tmp_path):
    provider = LocalProvider()
    wanted = {**DIRECTORY, "requirements": "a $(b) 'c'", "sdk": "4.19.0", "python": None}

    set_up_pool(provider, TEMPLATE, module="m", run_dir=tmp_path, lifeline=None, environment=wanted)

    (written,) = (tmp_path / "worker").glob("environment-*.json")
    assert json.loads(written.read_text()) == {
        "directory": "~/e",
        "python": HERE,
        "requirements": "a $(b) 'c'",
        "sdk": "4.19.0",
    }
    before, _, after = provider.worker_init.partition(str(written))
    assert before.startswith("export GC_BEFORE=")
    assert after.endswith("\nmodule load x\n")


def test_a_provider_of_images_gets_nothing_that_it_could_not_see(tmp_path):
    provider = KubernetesProvider()

    command = set_up_pool(
        provider, TEMPLATE, module="m", run_dir=tmp_path, lifeline=None, environment={**DIRECTORY, "python": "3.8"}
    )

    assert str(tmp_path) not in command + provider.worker_init
    assert provider.worker_init == "module load x\n"


@pytest.mark.parametrize("asked", [{"requirements": "numpy"}, {"path": "/opt/env"}])
@pytest.mark.parametrize(("provider", "container"), [("KubernetesProvider", None), ("LocalProvider", "apptainer")])
def test_packages_for_workers_that_are_images_are_refused(asked, provider, container):
    with pytest.raises(ConfigError, match=container or provider):
        check_environment(asked, provider, container)
    check_environment({"python": "3.8"}, provider, container)
    check_environment(asked, "LocalProvider", None)


def test_a_run_directory_that_can_not_be_written_is_an_engine_failure(tmp_path):
    (tmp_path / "worker").write_text("a file in its place")

    with pytest.raises(EngineFailure, match="can't use its run directory"):
        set_up_pool(LocalProvider(), TEMPLATE, module="m", run_dir=tmp_path, lifeline=None, environment=None)


def test_a_name_says_what_is_in_it_and_is_the_same_for_the_same_lines():
    assert name_of("3.13", "4.19.0", None) == "py3.13-sdk4.19.0"
    assert name_of("3.12", None, " \n") == "py3.12-dill"
    one, same, other = (name_of("3.12", "4.19.0", text) for text in ("b\na\n", " a\n\nb", "a"))
    assert one == same != other
    assert "/" not in name_of("3.12", "4.19.0+../../x", "y")


def test_what_is_known_of_the_submitter_is_told_where_reading_fails(monkeypatch):
    monkeypatch.setenv("GC_USER_PYTHON_VERSION", "3.10.1")
    monkeypatch.setenv("GC_USER_SDK_VERSION", "4.18.2")

    said = why_not_loaded("DillCode", "the function", AttributeError("no such thing"))

    assert f"The worker has Python {HERE}." in said
    assert "the submitter Python 3.10.1 and globus-compute-sdk 4.18.2" in said
