"""Packages whose `__init__` is not run until somebody asks for what it defines.

`import parsl` loads all of Parsl, with monitoring, every executor, and what is installed of the SDK: most of the time
that the processes of a block need to start. They need a few of its modules, and each of these imports what it uses.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import threading
from types import ModuleType
from typing import Any

PARSL = ("parsl", "parsl.executors", "parsl.monitoring", "parsl.dataflow", "requests")
# What Parsl's own modules ask of a package, and the module that has it.
KNOWN = {("parsl.executors", "HighThroughputExecutor"): "parsl.executors.high_throughput.executor"}

_loading = threading.RLock()


def defer_parsl() -> None:
    """To be called before the first import of anything of Parsl's; later it does nothing."""
    for name in PARSL:
        if name not in sys.modules:
            _defer(name)


def _defer(name: str) -> None:
    parent, _, last = name.rpartition(".")
    if parent and not isinstance(sys.modules.get(parent), _Deferred):
        return  # it was loaded by itself, and its parts with it
    spec = importlib.util.find_spec(name)
    if spec is None:
        return
    module = _Deferred(name)
    module.__spec__, module.__loader__, module.__file__ = spec, spec.loader, spec.origin
    module.__path__, module.__package__ = list(spec.submodule_search_locations or ()), name
    sys.modules[name] = module
    if parent:
        setattr(sys.modules[parent], last, module)


class _Deferred(ModuleType):
    """A package whose submodules can be imported; anything else of it runs its `__init__` first."""

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        name = self.__name__
        if (name, attribute) in KNOWN:
            return getattr(importlib.import_module(KNOWN[name, attribute]), attribute)
        if importlib.util.find_spec(f"{name}.{attribute}") is not None:
            return importlib.import_module(f"{name}.{attribute}")
        with _loading:
            if type(self) is _Deferred:
                self.__class__ = ModuleType  # type: ignore[assignment]
                assert self.__spec__ is not None
                assert self.__spec__.loader is not None
                self.__spec__.loader.exec_module(self)
        return getattr(self, attribute)
