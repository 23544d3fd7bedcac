"""Parsl's provider for Slurm, for clusters without an accounting database."""

from __future__ import annotations

from typing import Any

from parsl.providers.slurm import slurm


class SlurmProvider(slurm.SlurmProvider):  # type: ignore[misc]
    """Where `sacct` has nothing to say, Parsl asks `squeue`, which fails for a job that the controller has forgotten.

    It forgets an ended job after some minutes (MinJobAge). Parsl takes the failure for one of Slurm, so that a block
    that has ended while nobody looked would count as running for ever.
    """

    def execute_wait(self, cmd: str, timeout: float | None = None) -> tuple[int | None, str, str]:
        """The exit status, and what the command wrote."""
        answer: tuple[Any, str, str] = super().execute_wait(cmd, timeout)
        status, out, errors = answer
        forgotten = status == 1 and cmd.startswith("squeue ") and "Invalid job id specified" in errors
        return (0, out, errors) if forgotten else answer
