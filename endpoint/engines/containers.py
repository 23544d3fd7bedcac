"""The shell command that runs a worker pool in a container.

Texts of the configuration are the shell's own (`$HOME`, `$(id -u)` and quotes mean on the node what they mean in a
shell); all that this program adds is quoted, once. A command passes Parsl on its way, which fills in fields in braces
twice, and a launcher, which may put it into a here-document.
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from endpoint.errors import ConfigError

DOCKER_LIKE = ("docker", "podman", "podman-hpc")
RUN_DIR, LAUNCH_CMD = "{EXECUTOR_RUNDIR}", "{EXECUTOR_LAUNCH_CMD}"
BLOCK_ID = "{{block_id}}"  # Parsl's field, as it looks before Parsl's first round

# What tells a process its accelerators: a batch system's words reach Docker-like containers only when they are named.
ACCELERATORS = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "ROCR_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ZE_AFFINITY_MASK",
    "ONEAPI_DEVICE_SELECTOR",
)

# A container under a daemon (or conmon) doesn't end with the program that started it, when that is killed. So it has a
# name of its own, and is removed after the program ended in any way. Arguments: the name's beginning, the program, and
# its own. The traps keep the shell here until the program, which hands signals on to the container, has ended.
REMOVE_AFTERWARDS = (
    'name="$0-$(uname -n)-$$"; program="$1"; shift; trap : HUP INT TERM; '
    '"$program" run --rm --name "$name" "$@"; status=$?; '
    '"$program" rm --force "$name" >/dev/null 2>&1; exit $status'
)

_QUOTED = r"""'[^']*'|"(?:\\.|[^"\\])*"|\\."""
_SUBSTITUTED = r"\$\((?:[^()]|\([^()]*\))*\)|`[^`]*`"
_WORD = re.compile(rf"(?:{_QUOTED}|{_SUBSTITUTED}|[^\s'\"\\])+", re.DOTALL)
_OPERATOR = re.compile(r"[;&|<>()]")
_VARIABLE = re.compile(r"\$(?:[A-Za-z_]\w*|\{[A-Za-z_]\w*\})")


@dataclass(frozen=True)
class Container:
    """The three options of an engine that concern containers, checked.

    options: words of a shell command line, with their quotes.
    """

    kind: str
    uri: str
    options: tuple[str, ...]

    @classmethod
    def parse(cls, kind: str | None, uri: str | None, options: str | None) -> Container | None:
        """None where there is no container. Raises ConfigError."""
        if kind is None:
            return None
        if kind == "custom" and not options:
            raise ConfigError("The engine's container_type is custom, which needs container_cmd_options.")
        if kind == "custom" and LAUNCH_CMD not in (options or ""):
            raise ConfigError(
                f"The engine's container_cmd_options have no {LAUNCH_CMD}, where a custom container runs the workers.",
                hint=f"Write {LAUNCH_CMD} where the container's program takes a command",
            )
        if kind != "custom" and not uri:
            raise ConfigError(f"The engine's container_type is {kind}, which needs container_uri.")
        words = shell_words(options or "")
        for word in words if kind != "custom" else ():
            if _OPERATOR.search(re.sub(f"{_QUOTED}|{_SUBSTITUTED}", "", word, flags=re.DOTALL)):
                raise ConfigError(
                    f"The engine's container_cmd_options have {word!r}, which ends a command.",
                    hint="Put it in quotes where it belongs to an option",
                )
        return cls(kind, uri or "", tuple(words))

    def check_here(self, worker_init: str) -> None:
        """For blocks on this machine. Raises ConfigError where the container's program isn't on PATH."""
        program = self.options[0] if self.kind == "custom" else self.kind
        if worker_init.strip() or not re.fullmatch(r"[\w./+-]+", program):
            return  # only the block's own shell can know
        known = subprocess.run(["bash", "-c", 'command -v -- "$0"', program], stdout=subprocess.DEVNULL, check=False)
        if known.returncode:
            raise ConfigError(
                f"The engine's container_type is {self.kind}, and there is no {program} on this machine's PATH.",
                hint=f"Install {program}, or put it on PATH in the provider's worker_init",
            )

    def command(self, pool: str, *, run_dir: str, worker_dir: str, name: str) -> str:
        """The command line, for Parsl to fill in its fields.

        pool: the command that starts the pool inside, ready for a shell, with Parsl's fields.
        run_dir: is there inside, at the same path; so is worker_dir, the part of it that holds the workers' code.
        name: how containers under a daemon are called, with the block, the node and a process id behind it.
        """
        if self.kind == "custom":
            return " ".join(self._custom(word, pool, run_dir) for word in self.options)
        options = [escape_fields(word) for word in self.options]
        uri = escape_fields(quote_but_variables(self.uri))
        if ":" in run_dir or "," in run_dir:
            raise ConfigError(f"The directory {run_dir} can't be mounted: its name has a colon or a comma in it.")
        if self.kind not in DOCKER_LIKE:
            return " ".join([self.kind, "run", "--bind", quoted(run_dir), *options, uri, pool])
        mounts = ["-v", quoted(f"{run_dir}:{run_dir}"), "-v", quoted(f"{worker_dir}:{worker_dir}:ro")]
        variables = [word for variable in ACCELERATORS for word in ("-e", variable)]
        keeper = ["sh", "-c", quoted(REMOVE_AFTERWARDS), f"{quoted(name)}-{BLOCK_ID}", self.kind]
        return " ".join([*keeper, *mounts, *variables, *options, uri, pool])

    @staticmethod
    def _custom(word: str, pool: str, run_dir: str) -> str:
        """One of the administrator's words with the placeholders filled in, inside of its quotes as outside."""

        def fill(match: re.Match[str]) -> str:
            part = match.group()
            if part[0] == "'":
                return _fill(part, pool, run_dir, lambda text: text.replace("'", "'\\''"))
            if part[0] == '"':
                return _fill(part, pool, run_dir, lambda text: re.sub(r'[\\"$`]', r"\\\g<0>", text))
            return _fill(part, pool, shlex.quote(run_dir), str)

        return re.sub(rf"{_QUOTED}|[^'\"\\]+", fill, word, flags=re.DOTALL)


def _fill(part: str, pool: str, run_dir: str, within: Callable[[str], str]) -> str:
    """`part` with its placeholders filled in; the braces of the rest are no fields of Parsl's."""
    pieces = re.split(f"({re.escape(RUN_DIR)}|{re.escape(LAUNCH_CMD)})", part)
    known = {RUN_DIR: escape_fields(within(run_dir)), LAUNCH_CMD: within(pool)}
    return "".join(known.get(piece, escape_fields(piece)) for piece in pieces)


def shell_words(text: str) -> list[str]:
    """The words of a shell's command line, with their quotes and what the shell substitutes. Raises ConfigError."""
    words: list[str] = []
    rest = text.lstrip()
    while rest:
        match = _WORD.match(rest)
        if match is None or rest[match.end() : match.end() + 1] in ("'", '"', "\\"):
            raise ConfigError("The engine's container_cmd_options have a quote that nothing closes.")
        words.append(match.group())
        rest = rest[match.end() :].lstrip()
    return words


def quoted(word: str) -> str:
    """A word of our own: quoted for the shell, and safe from Parsl's filling in of fields."""
    return escape_fields(shlex.quote(word))


def quote_but_variables(word: str) -> str:
    """As `shlex.quote`, but that `$NAME` and `${NAME}` are left to the shell."""
    if not _VARIABLE.search(word):
        return shlex.quote(word)
    pieces = re.split(f"({_VARIABLE.pattern})", word)
    return '"' + "".join(p if _VARIABLE.fullmatch(p) else re.sub(r'[\\"$`]', r"\\\g<0>", p) for p in pieces) + '"'


def escape_fields(text: str) -> str:
    """`text` with braces that outlast the two times that Parsl fills in its fields."""
    return text.replace("{", "{" * 4).replace("}", "}" * 4)


def for_launcher(command: str, launcher: Any) -> str:
    """`command` so that the node's shell reads what stands here, where a launcher writes it through a here-document.

    launcher: one of Parsl's, or None where the provider has none.
    """
    if launcher is None or not re.search(r"<<\s*\w", launcher("", 1, 1, "")):
        return command
    return re.sub(r"[\\$`]", r"\\\g<0>", command)
