"""Which Python runs functions on the nodes of a batch system, which need not have the endpoint's own."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from endpoint.engines import launch
from endpoint.errors import EndpointError
from tests.support.engine_tasks import double, source_task, value_of
from tests.support.pythons import another_python
from tests.support.running_engines import FIRST_RESULT, running_engine
from tests.support.slurm_blocks import slurm_engine

WHERE = "def where():\n    import os, sys\n    return [sys.prefix, os.environ['SLURMD_NODENAME']]\n"


def environment(place: Path, python: Path) -> Path:
    subprocess.run([python, "-m", "venv", "--without-pip", place], check=True)
    return place


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From now on the endpoint's own Python has a path that the nodes don't have."""
    monkeypatch.setattr(launch, "PYTHON", "/not/on/this/node/python")


def test_a_nodes_functions_run_in_the_python_that_worker_init_chooses_there(slurm, tmp_path):
    place = environment(tmp_path / "other", another_python()[1])
    init = f". {place}/bin/activate"

    with running_engine(tmp_path / "run", **slurm_engine(provider={"worker_init": init})) as engine:
        prefix, node = value_of(engine.submit(source_task("where", WHERE)).result(FIRST_RESULT))

    assert (prefix, node in slurm.nodes()) == (str(place), True)


def test_the_pool_runs_from_the_zip_in_an_environment_with_parsl_alone(slurm, elsewhere, tmp_path):
    place = environment(tmp_path / "parsl", Path(sys.executable))
    (folder,) = place.glob("lib/python3*/site-packages")
    (folder / "parsl.pth").write_text(sysconfig.get_path("purelib") + "\n")
    init = f". {place}/bin/activate"

    with running_engine(tmp_path / "run", **slurm_engine(provider={"worker_init": init})) as engine:
        prefix, _ = value_of(engine.submit(source_task("where", WHERE)).result(FIRST_RESULT))
        futures = [engine.submit(double(str(number))) for number in range(50)]
        assert [value_of(future.result(FIRST_RESULT)) for future in futures] == [str(n) * 2 for n in range(50)]

    assert prefix == str(place)


def test_where_nothing_can_run_the_pool_who_waits_reads_what_is_missing(slurm, elsewhere, tmp_path):
    place = environment(tmp_path / "other", another_python()[1])
    init = f". {place}/bin/activate"

    with running_engine(tmp_path / "run", **slurm_engine(provider={"worker_init": init})) as engine:
        failure = engine.submit(double("x")).exception(FIRST_RESULT)

    assert isinstance(failure, EndpointError)
    said = f"{failure} {failure.failure.detail}"
    assert f"{place}/bin/python3, which worker_init has chosen, has no parsl" in said
