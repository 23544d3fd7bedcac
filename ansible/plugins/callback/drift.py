"""Tells, at the end of a preview (`--check`), in words what differs from the site document on each host."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: drift
type: aggregate
short_description: Tells in words what a preview found
description:
  - After C(ansible-playbook --check), one line for each thing that is not as the site document says, by host.
  - In a run without C(--check) it says nothing.
requirements:
  - enable it in ansible.cfg, with C(callbacks_enabled)
"""

# What a module changes, by the argument that names it.
NAMED_BY = ("dest", "path", "name", "argv")
RUNNING = ("active", "reloading", "activating")
LONGEST = 120  # characters of a line of a difference


class CallbackModule(CallbackBase):  # type: ignore[misc]  # Ansible has no types
    """Collects what would change."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "drift"
    CALLBACK_NEEDS_ENABLED = True

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._found: dict[str, list[str]] = {}
        self._hosts: set[str] = set()
        self._check = False

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._check = bool(play.check_mode)

    def v2_runner_on_ok(self, result: Any) -> None:
        self._hosts.add(result.host.get_name())
        data = result.result
        if not (self._check and data.get("changed")) or "results" in data:
            return
        self._add(result, data)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if self._check and result.result.get("changed"):
            self._add(result, result.result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        if not self._check:
            return
        broken = [host for host in stats.processed if stats.summarize(host)["failures"] or host in stats.dark]
        self._display.banner("DRIFT")
        for host in sorted(self._hosts | set(broken)):
            lines = self._found.get(host, [])
            verdict = f"{len(lines)} {'thing differs' if len(lines) == 1 else 'things differ'} from the site document"
            ended = " (the preview ended early there)" if host in broken else ""
            self._display.display(f"{host}: {verdict if lines or ended else 'as the site document says'}{ended}")
            for line in lines:
                self._display.display(f"  - {line}")

    def _add(self, result: Any, data: dict[str, Any]) -> None:
        task = result.task.get_name().rpartition(" : ")[2]
        what = _named(data)
        told = f"{task}: {what}" if what else task
        lines = "".join([told, *_differences(data), *_service(data)])
        found = self._found.setdefault(result.host.get_name(), [])
        if lines not in found:  # what two roles share is told once
            found.append(lines)


def _named(data: dict[str, Any]) -> str:
    """What a module's result is about: a path, a service, a command."""
    arguments = data.get("invocation", {}).get("module_args", {}) or {}
    for source in (data, arguments):
        for key in NAMED_BY:
            if value := source.get(key):
                return " ".join(map(str, value)) if isinstance(value, list) else str(value)
    return ""


def _differences(data: dict[str, Any]) -> list[str]:
    """The lines that differ, where the module tells them: `is` what is there, `should be` what the site says."""
    found = data.get("diff") or []
    lines: list[str] = []
    for one in found if isinstance(found, list) else [found]:
        if not isinstance(one, dict):
            continue
        before, after = _lines(one.get("before")), _lines(one.get("after"))
        if "state: absent" in before:
            lines.append("\n      is not there")
            continue
        if not before and after:
            lines.append(f"\n      is not there; should have {len(after)} {'line' if len(after) == 1 else 'lines'}")
            continue
        lines += [f"\n      is:        {_cut(line)}" for line in before if line not in after]
        lines += [f"\n      should be: {_cut(line)}" for line in after if line not in before]
    return lines


def _service(data: dict[str, Any]) -> list[str]:
    """What a service is and should be, by the result of the module `systemd_service`."""
    status = data.get("status")
    if not isinstance(status, dict) or "ActiveState" not in status:
        return []
    boot = {True: "enabled", False: "disabled"}
    running = "running" if status["ActiveState"] in RUNNING else "stopped"
    is_now = [running, status.get("UnitFileState", "")]
    wanted = ["stopped" if data.get("state") == "stopped" else "running", boot.get(data.get("enabled"), "")]
    if is_now == wanted:
        return ["\n      would be restarted, since something of it differs"]
    return [f"\n      is:        {', '.join(is_now)}", f"\n      should be: {', '.join(wanted)}"]


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [f"{key}: {value[key]}" for key in sorted(value) if key != "path"]
    return [line for line in str(value or "").splitlines() if line.strip()]


def _cut(line: str) -> str:
    line = line.strip()
    return line if len(line) <= LONGEST else line[: LONGEST - 3] + "..."
