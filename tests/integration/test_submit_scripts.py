"""What batch systems are given for a block: the submit command, and the script with its directives.

Programs of their names stand in for the batch systems, note what they are given, and say what those would say. (Slurm's
own programs run in test_slurm_*.py.)
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.engines.build import build_engine
from tests.support.engine_blocks import engine_block
from tests.support.waiting import wait_for

PATIENCE_S = 20
STAND_IN = """#!{python}
import json, os, sys
name, words = os.path.basename(sys.argv[0]), sys.argv[1:]
if {reads_input!r} == name:
    text = sys.stdin.read()
else:
    text = "".join(open(word).read() for word in words if word.startswith("/"))
with open({notes!r}, "a") as notes:
    notes.write(json.dumps([name, words, text]) + "\\n")
print({replies!r}.get(name, ""))
"""


class BatchSystem:
    """Its programs, first on PATH, and what they were given: (program, its words, the files that these name)."""

    def __init__(self, folder: Path, replies: dict[str, str], reads_input: str = "") -> None:
        self._notes = folder / "notes"
        self._folder = folder / "bin"
        self._folder.mkdir()
        text = STAND_IN.format(python=sys.executable, notes=str(self._notes), replies=replies, reads_input=reads_input)
        for name in replies:
            (self._folder / name).write_text(text)
            (self._folder / name).chmod(0o755)

    @property
    def path(self) -> str:
        return f"{self._folder}:{os.environ['PATH']}"

    def given(self, name: str) -> tuple[list[str], str]:
        """What the program got first, waiting for that."""
        assert wait_for(lambda: self._of(name), PATIENCE_S), f"nobody ran {name}"
        return self._of(name)[0]

    def _of(self, name: str) -> list[tuple[list[str], str]]:
        lines = self._notes.read_text().splitlines() if self._notes.exists() else []
        return [(words, text) for program, words, text in map(json.loads, lines) if program == name]


@pytest.fixture
def submit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., BatchSystem]]:
    """Start an engine with one block of a provider, and end it when the block was asked for."""

    def run(replies: dict[str, str], provider: dict[str, Any], reads_input: str = "", asked: str = "") -> BatchSystem:
        system = BatchSystem(tmp_path, replies, reads_input)
        monkeypatch.setenv("PATH", system.path)
        block = engine_block(address="127.0.0.1", provider={"init_blocks": 1, **provider})
        engine = build_engine(block)
        engine.start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path / "run", on_failure=print)
        try:
            system.given(asked or next(iter(replies)))
        finally:
            engine.shutdown()
        return system

    yield run


def directives(text: str, mark: str) -> list[str]:
    return [line.removeprefix(mark).strip() for line in text.splitlines() if line.startswith(mark)]


COMMON = {"walltime": "01:30:00", "nodes_per_block": 2, "worker_init": "module load python"}
POOL = "endpoint.engines.worker_pool"


def assert_runs_the_pool(text: str, launcher: str) -> None:
    """The block's commands: worker_init, and the pool by its launcher, told where we are and which block it is."""
    before, _, after = text.partition("module load python")
    assert POOL not in before
    assert POOL in after
    assert "-a 127.0.0.1" in after
    assert "--block_id=0" in after
    assert launcher in after


def test_pbs_pro_gets_select_walltime_queue_and_account(submit):
    provider = {
        "type": "PBSProProvider",
        **COMMON,
        "queue": "workq",
        "account": "project",
        "cpus_per_node": 32,
        "select_options": "ngpus=4",
        "scheduler_options": "#PBS -l filesystems=home:eagle",
        "launcher": {"type": "MpiExecLauncher", "bind_cmd": "--cpu-bind", "overrides": "--ppn 1"},
    }
    system = submit({"qsub": "17.server", "qstat": '{"Jobs": {"17.server": {"job_state": "R"}}}', "qdel": ""}, provider)

    words, script = system.given("qsub")
    assert words[:-1] == ["-q", "workq", "-A", "project"]
    found = directives(script, "#PBS")
    assert {"-l walltime=01:30:00", "-l select=2:ncpus=32:ngpus=4", "-l filesystems=home:eagle"} <= set(found)
    assert_runs_the_pool(script, "mpiexec --cpu-bind none --ppn 1 -n $WORKERCOUNT")
    assert system.given("qdel")[0] == ["17.server"]


def test_torque_gets_nodes_walltime_queue_and_account(submit):
    provider = {
        "type": "TorqueProvider",
        **COMMON,
        "queue": "batch",
        "account": "project",
        "scheduler_options": "#PBS -l gres=scratch",
        "launcher": {"type": "AprunLauncher", "overrides": "-cc depth"},
    }
    system = submit({"qsub": "18.server", "qstat": "18.server name user 0 R batch", "qdel": ""}, provider)

    words, script = system.given("qsub")
    assert words[:-1] == ["-q", "batch", "-A", "project"]
    assert {"-l walltime=01:30:00", "-l nodes=2:ppn=1", "-l gres=scratch"} <= set(directives(script, "#PBS"))
    assert_runs_the_pool(script, "aprun -n 2 -N 1 -cc depth")
    assert system.given("qdel")[0] == ["18.server"]


@pytest.mark.parametrize("redirected", [True, False])
def test_lsf_gets_nodes_walltime_queue_and_project(submit, redirected):
    provider = {
        "type": "LSFProvider",
        **COMMON,
        "queue": "normal",
        "project": "project",
        "scheduler_options": "#BSUB -alloc_flags smt1",
        "bsub_redirection": redirected,
        "launcher": {"type": "JsrunLauncher", "overrides": "-g 6"},
    }
    replies = {"bsub": "Job <19> is submitted to queue <normal>.", "bjobs": "19 RUN", "bkill": ""}
    system = submit(replies, provider, reads_input="bsub" if redirected else "")

    words, script = system.given("bsub")
    assert bool(words) is not redirected
    assert set(directives(script, "#BSUB")) >= {"-W 90", "-q normal", "-P project", "-nnodes 2", "-alloc_flags smt1"}
    assert_runs_the_pool(script, "jsrun -n 2 -r 1 -g 6")
    assert system.given("bkill")[0] == ["19"]


def test_lsf_gets_cores_where_nodes_are_not_asked_for(submit):
    provider = {
        "type": "LSFProvider",
        "request_by_nodes": False,
        "cores_per_block": 64,
        "cores_per_node": 32,
    }
    system = submit({"bsub": "Job <19> is submitted to queue <normal>.", "bjobs": "19 RUN", "bkill": ""}, provider)

    assert {"-n 64", '-R "span[ptile=32]"'} <= set(directives(system.given("bsub")[1], "#BSUB"))


def test_htcondor_gets_a_description_and_a_script(submit, tmp_path):
    provider = {
        "type": "CondorProvider",
        **{name: value for name, value in COMMON.items() if name != "walltime"},
        "project": "project",
        "cores_per_slot": 8,
        "mem_per_slot": 16,
        "requirements": "HAS_SINGULARITY == True",
        "environment": {"A": "it's"},
        "scheduler_options": "accounting_group = ag",
        "transfer_input_files": ["/etc/hostname"],
    }
    reply = "Submitting job(s).\n1 job(s) submitted to cluster 20."
    system = submit({"condor_submit": reply, "condor_q": "20.0 2", "condor_rm": ""}, provider)

    lines = [line.split("=", 1) for line in system.given("condor_submit")[1].splitlines() if "=" in line]
    said = {key.strip(): value.strip() for key, value in lines}
    assert said["machine_count"] == "2"
    assert said["+projectname"] == "project"
    assert said["requirements"] == "HAS_SINGULARITY == True"
    assert said["RequestCpus"] == "8"
    assert said["RequestMemory"] == "16384"
    assert said["accounting_group"] == "ag"
    assert said["transfer_input_files"].endswith(",/etc/hostname")
    assert said["environment"].startswith('"A=\'it""s\'')
    script = Path(said["transfer_input_files"].partition(",")[0]).read_text()
    assert_runs_the_pool(script, "CMD $COUNT &")
    assert "20.0" in system.given("condor_rm")[0]


def test_grid_engine_gets_walltime_queue_and_options(submit):
    provider = {
        "type": "GridEngineProvider",
        **COMMON,
        "queue": "all.q",
        "scheduler_options": "#$ -pe mpi 32",
    }
    system = submit({"qsub": "21", "qstat": "21 0.5 name user r", "qdel": ""}, provider)

    words, script = system.given("qsub")
    assert words[:-1] == ["-q", "all.q", "-terse"]
    assert {"-l h_rt=01:30:00", "-pe mpi 32", "-cwd"} <= set(directives(script, "#$"))
    assert_runs_the_pool(script, "CMD $COUNT &")
    assert system.given("qdel")[0] == ["21"]
