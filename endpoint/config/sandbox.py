"""Jinja for configurations: no Python internals, no files outside the template's folder, no endless work.

`Sandbox` follows the texts of users (see `tracking`), for templates that are text. Both kinds of template share the
bounds of `Bounded`.
"""

from __future__ import annotations

import functools
import json
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment
from jinja2.visitor import NodeTransformer

from endpoint.config import limits
from endpoint.config.tracking import captured, follow, marked, output
from endpoint.config.user_values import Tracked, UserText, quoted


class Bounded(SandboxedEnvironment):
    """The environment in which templates run; `renew` comes before each rendering, as it counts."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self, folder: Path, **options: Any) -> None:
        super().__init__(undefined=jinja2.StrictUndefined, loader=jinja2.FileSystemLoader(folder), **options)
        self._of_thread = threading.local()  # a rendering runs in one thread, another one beside it in another
        self.globals["range"] = range  # its steps count where they are taken
        self.globals.pop("lipsum")
        for name, function in list(self.filters.items()):
            self.filters[name] = self._bounded_filter(name, function)

    def renew(self) -> None:
        """Begin a rendering in this thread."""
        self._of_thread.budget = limits.Budget()

    @property
    def budget(self) -> limits.Budget:
        """What is left for this thread's rendering."""
        if not hasattr(self._of_thread, "budget"):
            self.renew()
        budget: limits.Budget = self._of_thread.budget
        return budget

    def counted(self, items: Any) -> Iterable[Any]:
        """What a loop goes through."""
        try:
            self.budget.spend(len(items))
        except TypeError:
            return self._counted_one_by_one(items)
        return items  # type: ignore[no-any-return]

    def joined(self, parts: list[Any]) -> str:
        """What `~` makes of its operands."""
        limits.check_size(*parts)
        return "".join(map(str, parts))

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        # named as in Jinja, so that no keyword argument of a template's can get in the way
        __self.budget.spend()
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(owner, str):
            limits.check_work(__obj.__name__, (owner, *args), kwargs)
        return super().call(__context, __obj, *args, **kwargs)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Refuse the operations that make something huge out of little."""
        limits.check_operation(operator, left, right)
        return super().call_binop(context, operator, left, right)

    def get_template(self, *args: Any, **kwargs: Any) -> jinja2.Template:
        """For `include`, `extends` and `import`."""
        self.budget.spend()
        return super().get_template(*args, **kwargs)

    def _bounded_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        passed = 1 if hasattr(function, "jinja_pass_arg") else 0

        @functools.wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            before, values = args[:passed], tuple(map(self._taken, args[passed:]))
            self.budget.spend()
            limits.check_work(name, values, kwargs)
            return self._filtered(function, before, values, kwargs)

        return bounded

    def _filtered(
        self, function: Callable[..., Any], before: tuple[Any, ...], values: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        return function(*before, *values, **kwargs)

    def _taken(self, value: Any) -> Any:
        return list(self.counted(value)) if isinstance(value, Iterator) else value

    def _counted_one_by_one(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.budget.spend()
            yield item

    def _generate(self, source: nodes.Template, name: Any, filename: Any, defer_init: bool = False) -> str:
        counted = _Counted().visit(source)
        counted.set_environment(self)
        return super()._generate(counted, name, filename, defer_init)


class Sandbox(Bounded):
    """For templates that are text: what comes from users is marked in the output (see `tracking`)."""

    concat = staticmethod(captured)  # of blocks that are used again

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, finalize=self._output)
        self.filters["shell_escape"] = shell_escape

    def counted(self, items: Any) -> Iterable[Any]:
        """As in `Bounded`; the characters of a user's text are the user's too."""
        return super().counted([Tracked(character) for character in items] if isinstance(items, Tracked) else items)

    def joined(self, parts: list[Any]) -> str:
        """As in `Bounded`."""
        text: str = follow(super().joined(parts), parts, lambda: "".join(map(str, marked(parts))))
        return text

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        result = super().call(__context, __obj, *args, **kwargs)
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if not isinstance(owner, str):
            return result
        # By the sandbox's own look-up: `format` is not the ordinary one.
        again = __self.getattr(marked(owner), __obj.__name__)
        return follow(result, [owner, args, kwargs], lambda: again(*marked(args), **marked(kwargs)))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """As in `Bounded`."""
        result = super().call_binop(context, operator, left, right)
        operate = self.binop_table[operator]
        return follow(result, [left, right], lambda: operate(marked(left), marked(right)))

    def _filtered(
        self, function: Callable[..., Any], before: tuple[Any, ...], values: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        result = function(*before, *values, **kwargs)
        return follow(result, [values, kwargs], lambda: function(*before, *marked(values), **marked(kwargs)))

    def _output(self, value: Any) -> Any:
        if not isinstance(value, str):  # the whole output has a bound of its own
            limits.check_size(value)
        return output(value)


class _Counted(NodeTransformer):
    """Sends what loops go through, and what `~` joins, through the environment."""

    def visit_For(self, node: nodes.For) -> nodes.For:  # Jinja's name
        self.generic_visit(node)
        node.iter = _through("counted", node.iter)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Expr:  # Jinja's name
        self.generic_visit(node)
        return _through("joined", nodes.List(node.nodes, lineno=node.lineno))


def _through(method: str, value: nodes.Node) -> nodes.Call:
    called = nodes.EnvironmentAttribute(method, lineno=value.lineno)
    return nodes.Call(called, [value], [], None, None, lineno=value.lineno)


def shell_escape(value: Any) -> Any:
    """A user's text as one word of a shell command, quoted for YAML; what is no text as it is."""
    if isinstance(value, UserText):
        return UserText(shlex.quote(value._raw))
    if not isinstance(value, str):
        return value
    try:
        text = json.loads(value)
    except ValueError:
        text = None
    if not isinstance(text, str):
        raise SecurityError("shell_escape takes a user's option as it came, before it is cut or joined")
    escaped = quoted(shlex.quote(text))
    return Tracked(escaped) if isinstance(value, Tracked) else escaped
