"""The audit log says which block, batch job and node a task had."""

from __future__ import annotations

import os
import select

from endpoint.privileged.audit_tasks import open_task_pipe, task_record
from tests.support.slurm_blocks import FIRST_RESULT, place, settle, slurm_config
from tests.support.user_endpoint import Queues, UserEndpointProcess
from tests.support.waiting import wait_for


def records_of(reader: int, task_id: str) -> list[dict[str, object]]:
    """What was told of a task, to its end."""
    found: list[dict[str, object]] = []
    while not found or found[-1]["event"] != "EXEC_END":
        assert select.select([reader], [], [], 10)[0], found
        record = task_record(os.read(reader, 65536), {}) or {}
        found += [record] if record.get("task") == task_id else []
    return found


def test_a_task_is_told_of_with_its_block_and_job_and_again_where_it_runs_again(slurm, broker, tmp_path):
    reader, writer = open_task_pipe(required=False)
    config = slurm_config(max_retries_on_system_failure=1)
    with (
        Queues(broker.amqp_url) as queues,
        UserEndpointProcess(queues, tmp_path, config=config, audit_fd=writer) as endpoint,
    ):
        short = queues.submit(place)
        _, job, *_ = queues.value_of(short, FIRST_RESULT)
        told = records_of(reader, short)
        assert [record["event"] for record in told] == ["RECEIVED", "EXEC_START", "RUNNING", "EXEC_END"]
        assert [(record["block"], record["job"]) for record in told[2:]] == [("0", job)] * 2
        assert str(told[2]["message"]).startswith("on ")

        note = tmp_path / "note"
        again = queues.submit(settle, str(note))
        assert wait_for(note.exists, FIRST_RESULT)
        slurm.cancel(job)
        assert wait_for(lambda: len(note.read_text().splitlines()) == 2, FIRST_RESULT), endpoint.log
        (tmp_path / "note.go").touch()
        queues.value_of(again, FIRST_RESULT)
        told = records_of(reader, again)
        [second] = [found.id for found in slurm.running()]
        assert [record["event"] for record in told] == ["RECEIVED", "EXEC_START", "RUNNING", "RUNNING", "EXEC_END"]
        assert [(record["block"], record["job"]) for record in told[2:]] == [("0", job), *[("1", second)] * 2]
    os.close(reader)
    os.close(writer)
