"""How a worker notes that a task begins, for whoever reads it."""

from endpoint.worker.starts import GATE, LINE_BYTES, PAGE_LINES, Page, start_line

PAGE_BYTES = PAGE_LINES * LINE_BYTES

__all__ = ["GATE", "PAGE_BYTES", "PAGE_LINES", "Page", "start_line"]
