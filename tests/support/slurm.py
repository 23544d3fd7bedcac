"""A private Slurm with three nodes, all on this machine, and two users of it; gone after the test.

Everything runs in the foreground as this process's children: a munged with a key of its own, a slurmctld, and a slurmd
for each node. Several clusters can run beside each other.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.support.accounts import Accounts, TestUser, accounts

NODES = ("n1", "n2", "n3")
READY_S = 40
GONE_S = 30
ENDED = {"COMPLETED", "CANCELLED", "FAILED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE"}
FIELDS = ("JobID", "UserName", "State", "Partition", "Account", "Name", "NodeList", "Comment", "Reason")

# `closed` is for one group; `short` ends a job after a minute, the least that Slurm knows.
# Comments, accounts and the like are kept by the controller; there is no accounting database.
CONFIGURATION = """
ClusterName=t
SlurmctldHost={host}(127.0.0.1)
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket
SlurmctldPort={controller}
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/slurmd.%n.pid
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool/%n
MailProg=/bin/true
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
AccountingStoreFlags=job_comment
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
SchedulerParameters=batch_sched_delay=0,bf_interval=1
MpiDefault=none
ReturnToService=2
KillWait=1
MinJobAge={memory}
SlurmdTimeout={patience}
MessageTimeout=30
JobRequeue=0
{nodes}
PartitionName=debug Nodes={names} Default=YES MaxTime=60 State=UP
PartitionName=short Nodes={names} MaxTime=1 State=UP
PartitionName=closed Nodes={names} MaxTime=60 AllowGroups={group} State=UP
"""


@dataclass(frozen=True)
class Job:
    """A job as the controller tells of it, also for a while after its end. nodes: n1 and so on, where it has begun."""

    id: str
    user: str
    state: str
    partition: str
    account: str
    name: str
    nodes: list[str]
    comment: str
    reason: str

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass
class Slurm:
    """A running cluster.

    users: two local users; only the first may use the partition `closed`.
    environment: what a process needs for `sbatch`, `squeue`, `scancel` and Slurm's other programs to find this cluster.
    node_patience: seconds until a node that doesn't answer is down. memory: seconds for which ended jobs are known.
    """

    directory: Path
    accounts: Accounts
    node_patience: int = 15
    memory: int = 300
    users: list[TestUser] = field(default_factory=list)
    _daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def configuration(self) -> Path:
        return self.directory / "slurm.conf"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "SLURM_CONF": str(self.configuration)}

    def start(self) -> None:
        """Begin; returns when all nodes are idle."""
        for program in ("munged", "slurmctld", "slurmd", "sbatch"):
            assert shutil.which(program), f"{program} is missing: run `tests/support/system-packages scheduler`"
        group = self.accounts.group()
        self.users = [self.accounts.user(groups=[group]), self.accounts.user()]
        self.directory.chmod(0o755)
        self._write_configuration(group)
        self._start_munge()
        state = self.directory / "state"
        state.mkdir()
        shutil.chown(state, "slurm")
        (self.directory / "spool").mkdir()
        self._daemon("slurmctld", "slurmctld", "-D", "-c", "-f", str(self.configuration))
        for node in NODES:
            self.start_node(node)
        self.wait_until_idle()

    def stop(self) -> None:
        """End all jobs, then the daemons, then whatever the jobs have left."""
        with contextlib.suppress(subprocess.SubprocessError):
            self.cancel(*[job.id for job in self.jobs() if not job.ended])
            self._wait(lambda: all(job.ended for job in self.jobs()), GONE_S)
        for name in [*NODES, "slurmctld", "munged"]:
            self._end(name, signal.SIGTERM)
        for process in self.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    def run(self, *command: str, user: TestUser | None = None, check: bool = True) -> str:
        """What a command wrote, run in this cluster's environment; as `user`, else as this process's."""
        who = ["setpriv", f"--reuid={user.uid}", f"--regid={user.gid}", "--init-groups"] if user else []
        done = subprocess.run(
            [*who, *command],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
            cwd="/",
        )
        if check and done.returncode:
            raise subprocess.SubprocessError(f"{' '.join(command)} failed ({done.returncode}): {done.stdout}")
        return done.stdout

    def jobs(self, user: TestUser | None = None) -> list[Job]:
        """All jobs, the ended ones too, in the order of their numbers."""
        form = ",".join(f"{name}:|" for name in FIELDS)
        lines = self.run("squeue", "--noheader", "--states=all", "--sort=i", f"--Format={form}").splitlines()
        found = []
        for line in lines:
            values = [value.strip() for value in line.split("|")][: len(FIELDS)]
            values = ["" if value in ("(null)", "n/a", "None") else value for value in values]
            number, owner, state, partition, account, name, nodes, comment, reason = values
            found.append(Job(number, owner, state, partition, account, name, self._node_names(nodes), comment, reason))
        return [job for job in found if user is None or job.user == user.name]

    def job(self, number: str) -> Job:
        """One job, by its number."""
        [found] = [job for job in self.jobs() if job.id == number]
        return found

    def running(self) -> list[Job]:
        """The jobs that run."""
        return [job for job in self.jobs() if job.state == "RUNNING"]

    def cancel(self, *jobs: str) -> None:
        """`scancel` of jobs, by their numbers."""
        if jobs:
            self.run("scancel", *jobs)

    def clear(self) -> list[Job]:
        """End all jobs and wait until the nodes are free; the jobs that were there, but for those about to end."""
        self.start_all_nodes()
        left = [job for job in self.jobs() if not job.ended and job.state != "COMPLETING"]
        self.cancel(*[job.id for job in left])
        self.wait_until_idle()
        return left

    def end_walltime(self, job: str) -> None:
        """Let a running job's time be over. Slurm looks at that twice a minute, and then calls it TIMEOUT."""
        soon = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(time.time() + 5))  # it can't be in the past
        self.run("scontrol", "update", f"JobId={job}", f"EndTime={soon}")

    def nodes(self) -> dict[str, str]:
        """The state of each node, such as "idle", "allocated", "mixed", "down"; with "*" where it doesn't answer."""
        lines = self.run("sinfo", "--noheader", "--Node", "--partition=debug", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def start_node(self, node: str) -> None:
        """Start a node's slurmd."""
        self._daemon(node, "slurmd", "-D", "-N", node, "-f", str(self.configuration))

    def start_all_nodes(self) -> None:
        """Start whichever node has been stopped."""
        for node in NODES:
            if node not in self._daemons:
                self.start_node(node)

    def stop_node(self, node: str, *, with_jobs: bool = True) -> None:
        """Kill a node's slurmd; with_jobs: and all that runs there, as a power cut does."""
        self._end(node, signal.SIGKILL)
        if with_jobs:
            for process in self.processes(node):
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()

    def wait_until_idle(self) -> None:
        """Wait until all nodes are free and answer."""
        self._wait(lambda: set(self.nodes().values()) == {"idle"}, READY_S)

    def processes(self, node: str | None = None) -> list[psutil.Process]:
        """What the jobs have running, after the daemons of Slurm's own that look after it; on one node, or on all."""
        daemons = {daemon.pid for daemon in self._daemons.values()}
        found, keepers = [], set()
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                settings = process.environ() if process.pid not in daemons else {}
                here = (
                    settings.get("SLURMD_NODENAME") if settings.get("SLURM_CONF") == str(self.configuration) else None
                )
                if here and node in (None, here):
                    found.append(process)
                    keepers |= {one for one in process.parents() if one.name().startswith("slurmstepd")}
        return [*keepers, *found]

    def _node_names(self, nodes: str) -> list[str]:
        return (
            self.run("scontrol", "show", "hostnames", nodes).split()
            if "[" in nodes
            else nodes.split(",")
            if nodes
            else []
        )

    def _write_configuration(self, group: str) -> None:
        controller, *ports = free_ports(1 + len(NODES))
        host = socket.gethostname().split(".")[0]
        lines = [
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs=4 RealMemory=8000 State=UNKNOWN"
            for node, port in zip(NODES, ports, strict=True)
        ]
        text = CONFIGURATION.format(
            host=host,
            directory=self.directory,
            controller=controller,
            patience=self.node_patience,
            memory=self.memory,
            nodes="\n".join(lines),
            names=",".join(NODES),
            group=group,
        )
        self.configuration.write_text(text)

    def _start_munge(self) -> None:
        folder = self.directory / "munge"
        folder.mkdir()
        folder.chmod(0o755)
        key = folder / "key"
        key.write_bytes(secrets.token_bytes(64))
        key.chmod(0o400)
        files = [f"--{kind}-file={folder / kind}" for kind in ("key", "pid", "log", "seed")]
        self._daemon("munged", "munged", "--foreground", f"--socket={folder / 'socket'}", *files)
        self._wait((folder / "socket").exists, READY_S)

    def _daemon(self, name: str, *command: str) -> None:
        with (self.directory / f"{name}.log").open("ab") as log:
            self._daemons[name] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, cwd="/"
            )

    def _end(self, name: str, number: signal.Signals) -> None:
        daemon = self._daemons.pop(name, None)
        if daemon is None:
            return
        daemon.send_signal(number)
        try:
            daemon.wait(GONE_S)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def _wait(self, condition: object, timeout: float) -> None:
        assert callable(condition)
        deadline = time.monotonic() + timeout
        while True:
            with contextlib.suppress(subprocess.SubprocessError):  # a controller that is not there yet
                if condition():
                    return
            assert time.monotonic() < deadline, self.logs()
            time.sleep(0.1)

    def logs(self) -> str:
        """The last lines of all daemons."""
        texts = {path.name: path.read_text(errors="replace")[-1500:] for path in sorted(self.directory.glob("*.log"))}
        return "\n".join(f"== {name}\n{text}" for name, text in texts.items())


@contextlib.contextmanager
def slurm_cluster(**options: int) -> Iterator[Slurm]:
    """A Slurm for a while; its directory can be read by the users."""
    pwd.getpwnam("slurm")
    with accounts() as made, tempfile.TemporaryDirectory(prefix="slurm-", dir="/tmp") as directory:
        cluster = Slurm(Path(directory), made, **options)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def free_ports(count: int) -> list[int]:
    """Ports that nobody has now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [taken.getsockname()[1] for taken in sockets]
