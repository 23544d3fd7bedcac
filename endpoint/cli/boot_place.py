"""Where `enable-on-boot` puts a unit, and how it talks with systemd: the machine's, or a user's own."""

from __future__ import annotations

import os
import pwd
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from endpoint.errors import ConfigError, EndpointError, Mender, Stage
from endpoint.privileged.notify import is_systemd_here

MARK = "# Written by `globus-compute-endpoint enable-on-boot`, and removed by disable-on-boot."
LINGER_MARK = f"{MARK} It turned linger on."
SYSTEM_UNITS = Path("/etc/systemd/system")
LINGERING = Path("/var/lib/systemd/linger")
ANSWER_S = 60.0
START_S = 240.0  # TimeoutStartSec of the unit, and more
USER_MANAGER_S = 15.0
POLL_S = 0.05


class BootFailure(EndpointError):
    """systemd did not do what it was asked for."""

    mender = Mender.ADMIN
    stage = Stage.CONFIGURE
    code = "SYSTEMD"


@dataclass(frozen=True)
class Place:
    """A service manager. user: whose own it is; None for the machine's."""

    directory: Path
    user: str | None = None

    @classmethod
    def here(cls) -> Place:
        """root has the machine's, everybody else their own."""
        if os.geteuid() == 0:
            return cls(SYSTEM_UNITS)
        configured = os.environ.get("XDG_CONFIG_HOME", "")
        base = Path(configured) if configured.startswith("/") else Path.home() / ".config"
        return cls(base / "systemd" / "user", pwd.getpwuid(os.geteuid()).pw_name)

    @property
    def scope(self) -> str:
        """As the unit's template has it."""
        return "system" if self.user is None else "user"

    @property
    def command(self) -> str:
        """How a person says it."""
        return "systemctl" if self.user is None else "systemctl --user"

    def systemctl(self, *words: str, patience_s: float = ANSWER_S) -> str:
        """Run it; what it printed. Raises BootFailure."""
        flags = [] if self.user is None else ["--user"]
        if self.user is not None:
            self.runtime()
        return _run(["systemctl", *flags, *words], patience_s)

    def is_active(self, unit: str) -> bool:
        """Whether the unit runs, or is about to."""
        try:
            said = self.systemctl("show", "--property=ActiveState", "--value", unit)
        except BootFailure:
            return False
        return said.strip() in ("active", "activating", "reloading", "deactivating")

    @property
    def lingers(self) -> bool:
        """Whether the user's manager runs from boot on, without a login."""
        return self.user is not None and (LINGERING / self.user).exists()

    def linger(self) -> bool:
        """Have logind run the user's manager from boot on; whether that was changed. Raises BootFailure."""
        changed = not self.lingers
        if changed:
            try:
                _run(["loginctl", "enable-linger"])
            except BootFailure as error:
                raise BootFailure(
                    "Without linger, your services start when you log in, and end when you log out; logind refuses "
                    "to turn it on",
                    hint=f"Ask an administrator to run: loginctl enable-linger {self.user}. Then do this again",
                    detail=error.failure.detail or error.failure.reason,
                    code="NO_LINGER",
                ) from error
        self.reach()
        return changed

    def unlinger(self) -> bool:
        """Take linger back; whether that worked: it does no harm."""
        try:
            _run(["loginctl", "disable-linger"])
        except BootFailure:
            return False
        return True

    def runtime(self) -> Path:
        """The user's runtime directory; without a session nobody has told where, nor would systemctl know."""
        return Path(os.environ.setdefault("XDG_RUNTIME_DIR", f"/run/user/{os.geteuid()}"))

    def reach(self) -> None:
        """Wait until the user's manager is there."""
        runtime = self.runtime()
        deadline = time.monotonic() + USER_MANAGER_S
        while not (runtime / "systemd" / "private").exists():
            if time.monotonic() > deadline:
                raise BootFailure(
                    f"Your own service manager does not come up: there is no {runtime / 'systemd' / 'private'}",
                    hint=f"Look at: systemctl status user@{os.geteuid()}.service",
                )
            time.sleep(POLL_S)


def require_systemd() -> None:
    """Raise ConfigError where systemd does not manage the machine."""
    if not is_systemd_here():
        raise ConfigError(
            "This machine is not managed by systemd, which would start the endpoint when it boots",
            hint="Have its init system run: globus-compute-endpoint start NAME. With --print you see what systemd "
            "would be told",
            stage=Stage.CONFIGURE,
            code="NO_SYSTEMD",
        )


def written_by_us(path: Path) -> bool | None:
    """Whether `enable-on-boot` wrote the unit; None where there is none."""
    try:
        with path.open(encoding="utf-8", errors="replace") as stream:
            return stream.readline().startswith(MARK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from error


def write_unit(path: Path, text: str) -> None:
    """Put the unit there, whole or not at all. Raises ConfigError."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, encoding="utf-8")
        fresh.chmod(0o644)
        fresh.replace(path)
    except OSError as error:
        raise _unusable(path, error) from error


def remove_unit(path: Path) -> None:
    """Raises ConfigError."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise _unusable(path, error) from error


def _run(command: list[str], patience_s: float = ANSWER_S) -> str:
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=patience_s
        )
    except FileNotFoundError as error:
        raise BootFailure(f"The program {command[0]} is not installed", hint="Install systemd's programs") from error
    except subprocess.TimeoutExpired as error:
        raise BootFailure(f"`{' '.join(command)}` does not end within {patience_s:.0f} s") from error
    if done.returncode:
        raise BootFailure(
            f"`{' '.join(command)}` failed with status {done.returncode}", detail=(done.stderr or done.stdout).strip()
        )
    return done.stdout


def _unusable(path: Path, error: OSError) -> ConfigError:
    return ConfigError(f"The unit {path} can't be used: {error.strerror}", stage=Stage.CONFIGURE, code="UNIT_FILE")
