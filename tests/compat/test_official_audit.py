"""The pipe for audit records: the official user endpoint and ours write the same into it, and our keeper reads both."""

from __future__ import annotations

import os
import select
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from endpoint.privileged.audit_tasks import open_task_pipe, task_record
from endpoint.wire.codec import encode
from endpoint.wire.messages import Task
from tests.support.user_endpoint import BIN, THREADS, Queues, UserEndpointProcess, headers, packed

ALLOWED = "0b8a4e6e-5b0f-4f7e-9d2e-6c4e3f1a2b3c"
REFUSED = "5d1c7f0e-8c7b-4f43-9a77-1f2a3b4c5d6e"


def add(a, b):
    return a + b


@pytest.fixture
def queues(broker) -> Iterator[Queues]:
    with Queues(broker.amqp_url) as made:
        yield made


def packets_of(command: Path, queues: Queues, directory: Path) -> list[bytes]:
    """What a user endpoint writes of a task that runs, and then of one that it refuses."""
    reader, writer = open_task_pipe(required=False)
    packets: list[bytes] = []
    try:
        with UserEndpointProcess(
            queues,
            directory,
            command=[str(command)],
            config=f"high_assurance: true\n{THREADS}",
            allowed_functions=[ALLOWED],
            audit_fd=writer,
        ):
            for function_id in (ALLOWED, REFUSED):
                task_id = str(uuid.uuid4())
                body = encode(Task(task_id, packed(add, (1, 2), {})))
                queues.publish(body, headers(task_id, function_uuid=function_id))
                queues.result_of(task_id)
                deadline = time.monotonic() + 10
                while not (packets and packets[-1].endswith(b"EXEC_END")):
                    assert select.select([reader], [], [], max(0, deadline - time.monotonic()))[0], packets
                    packets.append(os.read(reader, 65536).replace(task_id.encode(), b"TASK"))
                packets.append(b"")
    finally:
        os.close(reader)
        os.close(writer)
    return [packet for packet in packets if packet]


@pytest.fixture(params=["ours", "official"])
def packets(request, queues, peer_endpoint_python, tmp_path) -> list[bytes]:
    folder = BIN if request.param == "ours" else Path(peer_endpoint_python).parent
    return packets_of(folder / "globus-compute-endpoint", queues, tmp_path)


def test_both_write_packets_of_the_same_form(packets):
    allowed, refused = (f"fid={function} tid=TASK bid= ".encode() for function in (ALLOWED, REFUSED))

    assert packets[0] == allowed + b"RECEIVED"
    assert allowed + b"EXEC_END" in packets
    assert [packet for packet in packets if packet.startswith(refused)][0::2] == [
        refused + b"RECEIVED",
        refused + b"EXEC_END",
    ]
    assert [packet for packet in packets if packet.startswith(refused + b"FAILED - Function ")]


def test_our_keeper_reads_what_both_write(packets):
    records = [task_record(packet, {"uid": 1001}) for packet in packets]

    assert None not in records
    assert {record["event"] for record in records if record} >= {"RECEIVED", "FAILED", "EXEC_END"}
