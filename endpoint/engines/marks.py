"""How a worker notes that a task begins, for whoever reads it."""

from endpoint.worker.starts import GATE, start_line

__all__ = ["GATE", "start_line"]
