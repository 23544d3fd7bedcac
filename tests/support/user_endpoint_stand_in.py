"""A program to be found on PATH as `globus-compute-endpoint`: it reads a start document and says what it sees.

It speaks through heartbeats on its own queue, like a user endpoint. How it behaves is the `display_name` of its
configuration: `run`, `stubborn` (ignores SIGTERM), `parent` (of a process that outlives it) or `exit N`.
SIGUSR1: end normally; SIGUSR2: say the credentials.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from typing import Any

import pika
from cryptography.fernet import Fernet

from endpoint.wire.codec import encode
from endpoint.wire.messages import StatusReport

SIGNALS = {signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2}


def say(creds: dict[str, Any], **state: Any) -> None:
    queue = creds["heartbeat_queue_info"]
    body = encode(StatusReport(creds["endpoint_id"], state, {}))
    with pika.BlockingConnection(pika.URLParameters(queue["connection_url"])) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", queue["queue_publish_kwargs"]["routing_key"], body, mandatory=True)


def renewed(document: dict[str, Any]) -> dict[str, Any]:
    content = os.pread(document["mem_fd"], 1 << 20, 0)
    creds: dict[str, Any] = json.loads(Fernet(document["enckey"]).decrypt(content))["amqp_creds"]
    return creds


def writable(descriptor: int) -> bool:
    try:
        os.write(descriptor, b"")
    except OSError:
        return False
    return True


def unblock_signals() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def main() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    document = json.loads(sys.stdin.read())
    creds = document["amqp_creds"]
    found = re.search(r'display_name: "?([a-z0-9 ]+)', document["config"])
    mode = found.group(1) if found else "run"
    if mode.startswith("exit"):
        print("the reason, with amqp://user:hunter2@broker/", file=sys.stderr)
        return int(mode.split()[1])
    child = subprocess.Popen(["sleep", "600"], preexec_fn=unblock_signals).pid if mode == "parent" else None
    descriptors = sorted(int(name) for name in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{name}"))
    say(
        creds,
        event="started",
        child=child,
        argv=sys.argv[1:],
        pid=os.getpid(),
        sid=os.getsid(0),
        cwd=os.getcwd(),
        umask=os.umask(0o077),
        descriptors=descriptors,
        mem_fd_writable=writable(document["mem_fd"]),
        environment=dict(os.environ),
        document={key: value for key, value in document.items() if key not in ("amqp_creds", "enckey")},
        credentials=renewed(document),
    )
    while True:
        number = signal.sigwait(SIGNALS)
        if number == signal.SIGUSR2:
            say(creds, event="credentials", credentials=renewed(document))
        elif number == signal.SIGUSR1:
            return 0
        else:
            say(creds, event="terminated")
            if mode != "stubborn":
                return 0


if __name__ == "__main__":
    sys.exit(main())
