"""A site from nothing on one machine: booted, set up by Ansible, used by two people, and gone again.

    make site-demo            run it, then stop and remove everything
    make site-demo KEEP=1     leave the machine running until Ctrl-C, and say how to use it

The machine is a container of this one (systemd-nspawn) with a Debian of its own, without a way out to any network. It
takes root. The site is ansible/inventory/example, with the machine's address and fresh secrets.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.support.site_documents import HOST, LOCAL_USERS, document_of, site_for  # noqa: E402
from tests.support.site_hosts import Hosts, booted  # noqa: E402
from tests.support.site_people import Answer, People, endpoint_id, local_service  # noqa: E402
from tests.support.site_plays import ANSIBLE, Site  # noqa: E402
from tests.support.site_roots import is_kept  # noqa: E402

SUITE = "bookworm"
WHO = ("alice", "bob")
ENDPOINT = "cluster"
PROGRESS_S = 3.0  # how often it is told what Ansible does
STARTED = time.monotonic()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the machine running until Ctrl-C")
    keep = parser.parse_args().keep
    if os.geteuid() != 0:
        print("A machine is booted by root only: say `sudo make site-demo`.", file=sys.stderr)
        return 77
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run(keep)
    except KeyboardInterrupt:
        print(f"\n{since()}  Stopped, and the machine removed.")
        return 130
    print(f"Done in {time.monotonic() - STARTED:.0f} s. The machine is stopped and removed.")
    return 0


def run(keep: bool) -> None:
    step("Booting a machine" + ("" if is_kept(SUITE) else "; its Debian is made first, which takes half a minute"))
    with booted(**{HOST: SUITE}) as hosts:
        for name in LOCAL_USERS:
            hosts[HOST].machine.run("useradd", "--create-home", "--shell", "/bin/bash", name)
        site = site_for(hosts)
        step(f"ansible-playbook site.yml -i {site.document}")
        play(site)
        step(f"{' and '.join(WHO)} submit functions with the official SDK, to the endpoint {ENDPOINT}")
        people = People(site, Path(sys.executable), hosts[HOST], local_service())
        show(site, people.ask(endpoint_id(hosts[HOST], ENDPOINT), *WHO))
        if keep:
            explain_how_to_go_on(site, hosts)
            signal.pause()
        step("Stopping and removing the machine")


def play(site: Site) -> None:
    """Run the playbook, and tell now and then where it is; ends the demo with all its output where it fails."""
    process = subprocess.Popen(
        site.command(),
        cwd=ANSIBLE,
        env=site.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said: list[str] = []
    reader = threading.Thread(target=said.extend, args=(process.stdout,), daemon=True)
    reader.start()
    told = ""
    while reader.is_alive():
        reader.join(PROGRESS_S)
        task = next((line[6:].partition("]")[0] for line in reversed(said) if line.startswith("TASK [")), "")
        if task != told and reader.is_alive():
            told = task
            print(f"{since()}    {task}", flush=True)
    if process.wait():
        sys.exit("".join(said) + f"ansible-playbook ended with status {process.returncode}; all that it said is above.")
    print(f"{since()}    {said_last(said)}", flush=True)


def said_last(lines: list[str]) -> str:
    """The line of figures that Ansible ends with."""
    return " ".join(next(line for line in reversed(lines) if line.startswith(f"{HOST} ")).split())


def show(site: Site, answers: dict[str, Answer]) -> None:
    clients = document_of(site)["service"]["hub"]["clients"]
    rows = [("who asked", "local user", "uid", "host", "seconds", "result")]
    for who, answer in answers.items():
        row = (clients[who]["username"], answer.user, answer.uid, answer.host, answer.seconds, answer.result)
        rows.append(tuple(map(str, row)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rows.insert(1, tuple("-" * width for width in widths))
    for row in rows:
        print("  " + "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())
    assert [answer.user for answer in answers.values()] == list(answers), "a function ran as somebody else"


def explain_how_to_go_on(site: Site, hosts: Hosts) -> None:
    settings = " ".join(f"{name}={shlex.quote(value)}" for name, value in hosts.env.items())
    print(
        f"""
The machine runs until Ctrl-C. To look around in it:
    ssh -F {hosts.access.config} {HOST}
To play again, after a change of {site.document}:
    cd {ANSIBLE} && env {settings} {shlex.join(site.command())}
""",
        flush=True,
    )


def step(text: str) -> None:
    print(f"{since()}  {text} ...", flush=True)


def since() -> str:
    return f"{time.monotonic() - STARTED:4.0f} s"


if __name__ == "__main__":
    sys.exit(main())
