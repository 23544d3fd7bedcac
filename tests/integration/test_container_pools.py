"""Worker pools in real containers: bubblewrap's, which needs no rights, and Podman's, which Docker-like ones resemble.

Both see this machine's /usr, a Python, and Parsl with what it needs, but none of our package.
"""

from __future__ import annotations

import json
import os
import site
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from endpoint.engines.base import Engine
from endpoint.engines.build import build_engine
from endpoint.errors import ConfigError
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import linger, source_task, value_of
from tests.support.waiting import wait_for

FIRST_RESULT = 60  # seconds, on a machine that has other things to do
MARK = "/only-in-the-container"
REPOSITORY = Path(__file__).parents[2]

LOOK = f"""
def look(repository):
    import importlib.util, os, pathlib
    status = dict(line.split(":\\t", 1) for line in pathlib.Path("/proc/self/status").read_text().splitlines())
    return {{
        "uid": os.getuid(),
        "capabilities": int(status["CapEff"], 16),
        "mounts": os.readlink("/proc/self/ns/mnt"),
        "first": pathlib.Path("/proc/1/cmdline").read_text(),
        "mark": pathlib.Path("{MARK}").read_text(),
        "repository": os.path.exists(repository),
        "cuda": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "sandbox": [os.getcwd(), os.environ["GC_TASK_SANDBOX_DIR"]],
        "endpoint": importlib.util.find_spec("endpoint").origin,
        "variable": os.environ.get("GIVEN"),
    }}
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    started: list[Engine] = []

    def make(**block: Any) -> Engine:
        block = {"max_workers_per_node": 1, "heartbeat_period": 1, "address": "127.0.0.1", **block}
        started.append(build_engine(engine_block(**block)))
        started[-1].start(endpoint_id=str(uuid.uuid4()), run_dir=tmp_path, on_failure=print)
        return started[-1]

    yield make
    for engine in started:
        engine.shutdown()


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    path = tmp_path / "mark"
    path.write_text(str(uuid.uuid4()))
    return path


def shown() -> list[Path]:
    """What of this machine the containers see."""
    system = [Path(path) for path in ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache") if Path(path).exists()]
    return [*system, Path(sys.base_prefix)] if not Path(sys.base_prefix).is_relative_to("/usr") else system


def variables() -> dict[str, str]:
    """Parsl is found by PYTHONPATH, where the `.pth` file that leads to our package is not read."""
    return {"PATH": f"{sys.base_prefix}/bin:/usr/bin:/bin", "PYTHONPATH": "/site", "GIVEN": "it's $HOME {here}"}


def bubblewrap(mark: Path) -> str:
    """`container_cmd_options` for a container with users, processes and mounts of its own."""
    words = ["bwrap", "--unshare-user", "--uid", "4321", "--gid", "4321", "--unshare-pid", "--unshare-ipc"]
    words += [word for path in shown() for word in ("--ro-bind", str(path), str(path))]
    words += ["--ro-bind", site.getsitepackages()[0], "/site", "--ro-bind", str(mark), MARK]
    words += ["--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--clearenv"]
    words += [word for item in variables().items() for word in ("--setenv", *item)]
    quoted = " ".join(f'"{word}"'.replace("$HOME", "\\$HOME") for word in words)
    return f"{quoted} --bind {{EXECUTOR_RUNDIR}} {{EXECUTOR_RUNDIR}} {{EXECUTOR_LAUNCH_CMD}}"


def processes(run_dir: Path) -> list[psutil.Process]:
    """Those that have the run directory on their command lines, and their descendants."""
    found: set[psutil.Process] = set()
    for process in psutil.process_iter():
        try:
            if str(run_dir) in " ".join(process.cmdline()):
                found |= {process, *process.children(recursive=True)}
        except psutil.NoSuchProcess:
            continue
    return list(found)


def assert_inside(seen: dict[str, Any], mark: Path, run_dir: Path) -> None:
    assert seen["mark"] == mark.read_text()
    assert seen["mounts"] != os.readlink("/proc/self/ns/mnt")
    assert seen["repository"] is False
    assert seen["endpoint"].startswith(f"{run_dir}/worker/endpoint-")
    assert seen["sandbox"][0] == seen["sandbox"][1]
    assert seen["variable"] == variables()["GIVEN"]
    assert seen["cuda"] == "1"


def test_a_task_runs_in_a_container_without_our_package_as_a_user_without_rights_and_nothing_is_left(
    start, tmp_path, mark
):
    engine = start(
        container_type="custom",
        container_cmd_options=bubblewrap(mark),
        run_in_sandbox=True,
        available_accelerators=["1"],
    )

    seen = value_of(engine.submit(source_task("look", LOOK, str(REPOSITORY))).result(FIRST_RESULT))
    assert_inside(seen, mark, tmp_path)
    assert (seen["uid"], seen["capabilities"]) == (4321, 0)

    engine.submit(linger(str(tmp_path / "note")))
    assert wait_for((tmp_path / "note").exists, FIRST_RESULT)
    left = processes(tmp_path)
    assert any("bwrap" in process.name() for process in left)
    engine.shutdown()
    assert psutil.wait_procs(left, 30)[1] == []
    assert processes(tmp_path) == []


def test_a_launcher_that_writes_the_command_to_a_file_starts_the_same_container_on_a_node_of_slurm(
    start, slurm, tmp_path, mark
):
    engine = start(
        container_type="custom",
        container_cmd_options=bubblewrap(mark),
        run_in_sandbox=True,
        available_accelerators=["1"],
        provider={"type": "SlurmProvider", "partition": "debug", "launcher": {"type": "SrunLauncher"}},
    )

    seen = value_of(engine.submit(source_task("look", LOOK, str(REPOSITORY))).result(FIRST_RESULT))
    assert_inside(seen, mark, tmp_path)

    engine.shutdown()
    assert wait_for(lambda: all(job.ended for job in slurm.jobs()) and slurm.processes() == [])


def test_a_container_dies_with_an_endpoint_that_is_killed(tmp_path, mark):
    block = {"max_workers_per_node": 1, "container_type": "custom", "container_cmd_options": bubblewrap(mark)}
    left = killed_host(tmp_path, {**block, "address": "127.0.0.1"})

    assert any("bwrap" in process for process in left)
    assert wait_for(lambda: processes(tmp_path) == [])


def killed_host(run_dir: Path, block: dict[str, Any]) -> list[str]:
    """Kill an endpoint whose container runs a task; the names of the processes that were there."""
    arguments = json.dumps({"type": "GlobusComputeEngine", **block}), str(run_dir)
    started = subprocess.Popen(
        [sys.executable, "-c", HOST, *arguments, str(run_dir / "note")], stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert wait_for((run_dir / "note").exists, FIRST_RESULT)
    names = [process.name() for process in processes(run_dir) if process.is_running()]
    started.kill()
    started.wait()
    assert started.stdout is not None
    started.stdout.close()
    return names


HOST = """
import json, sys, threading, uuid
from pathlib import Path
from endpoint.engines.build import build_engine
from tests.support.engine_blocks import engine_block
from tests.support.engine_tasks import linger
engine = build_engine(engine_block(**json.loads(sys.argv[1])))
engine.start(endpoint_id=str(uuid.uuid4()), run_dir=Path(sys.argv[2]), on_failure=print)
engine.submit(linger(sys.argv[3]))
threading.Event().wait()
"""


def test_a_containers_program_that_is_not_there_ends_the_start_with_a_sentence(start):
    with pytest.raises(ConfigError, match="no singularity on this machine's PATH"):
        start(container_type="singularity", container_uri="image.sif")


class Podman:
    """A Podman with an image and a storage of its own, that works without systemd and cgroups version 2."""

    def __init__(self, folder: Path, mark: Path) -> None:
        storage = f'[storage]\ndriver = "vfs"\ngraphroot = "{folder}/images"\nrunroot = "{folder}/state"\n'
        (folder / "storage.conf").write_text(storage)
        engine = '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        limits = '[containers]\ndefault_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]\n'
        (folder / "containers.conf").write_text(engine + limits)
        self.environment = {
            "CONTAINERS_STORAGE_CONF": str(folder / "storage.conf"),
            "CONTAINERS_CONF": str(folder / "containers.conf"),
        }
        root = folder / "root"
        (root / "usr").mkdir(parents=True)
        (root / MARK.strip("/")).write_text(mark.read_text())
        subprocess.run(["tar", "-C", str(root), "-cf", str(folder / "root.tar"), "."], check=True)
        self.run("import", str(folder / "root.tar"), "localhost/an-image:1")

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            ["podman", *arguments], env={**os.environ, **self.environment}, capture_output=True, text=True, check=True
        )
        return done.stdout

    def names(self) -> list[str]:
        return self.run("ps", "--all", "--format", "{{.Names}}").split()


@pytest.fixture
def podman(tmp_path_factory: pytest.TempPathFactory, mark: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Podman]:
    made = Podman(tmp_path_factory.mktemp("podman"), mark)
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    yield made
    made.run("rm", "--all", "--force")
    made.run("rmi", "--all", "--force")


def podman_block() -> dict[str, Any]:
    mounts = [f'-v "{path}:{path}:ro"' for path in shown()] + [f"-v {site.getsitepackages()[0]}:/site:ro"]
    values = [f'-e "{name}={value}"'.replace("$HOME", "\\$HOME") for name, value in variables().items()]
    return {
        "container_type": "podman",
        "container_uri": "localhost/an-image:1",
        "container_cmd_options": " ".join(["--network host --user 0", *mounts, *values]),
        "address": "127.0.0.1",
        "max_workers_per_node": 1,
    }


def test_a_podman_container_runs_tasks_without_our_package_and_is_removed_when_its_block_ends(
    start, podman, tmp_path, mark
):
    engine = start(**podman_block(), run_in_sandbox=True, available_accelerators=["1"])

    seen = value_of(engine.submit(source_task("look", LOOK, str(REPOSITORY))).result(FIRST_RESULT))
    assert_inside(seen, mark, tmp_path)
    assert "endpoint.engines.python_exec" in seen["first"], "who hands signals on and reaps"
    [name] = podman.names()
    assert name.startswith(f"gce-{engine._endpoint_id}-0-{os.uname().nodename}-")

    engine.submit(linger(str(tmp_path / "note")))
    assert wait_for((tmp_path / "note").exists, FIRST_RESULT)
    left = processes(tmp_path)
    engine.shutdown()
    assert psutil.wait_procs(left, 30)[1] == []
    assert wait_for(lambda: podman.names() == [])


def test_a_podman_container_ends_with_an_endpoint_that_is_killed(podman, tmp_path):
    killed_host(tmp_path, podman_block())

    assert wait_for(lambda: podman.names() == [])
    assert wait_for(lambda: processes(tmp_path) == [])


def test_a_podman_container_is_removed_when_only_its_program_is_killed(start, podman, tmp_path):
    engine = start(**podman_block())
    engine.submit(linger(str(tmp_path / "note")))
    assert wait_for((tmp_path / "note").exists, FIRST_RESULT)
    [first] = podman.names()

    [program] = [process for process in processes(tmp_path) if process.cmdline()[:2] == ["podman", "run"]]
    program.kill()

    assert wait_for(lambda: first not in podman.names())
