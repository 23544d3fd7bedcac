"""The whole way on one machine: a hub, an endpoint, and functions submitted with the official SDK.

    make demo            run it, then stop and remove everything
    make demo KEEP=1     leave hub and endpoint up, and say how to use and stop them

Everything lives in `.demo/`; everything is started from here and ended by its PID.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DEMO = Path(os.environ.get("COMPUTE_DEMO_DIRECTORY") or ROOT / ".demo")
BIN = Path(sys.executable).parent
URL = "http://localhost:5000"
NAME = "demo"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave hub and endpoint running")
    keep = parser.parse_args().keep
    started = time.monotonic()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with contextlib.ExitStack() as stack:
        try:
            run(stack, keep)
        except KeyboardInterrupt:
            print("\nStopping ...")
            return 130
        except subprocess.CalledProcessError as error:
            print(f"This did not work (exit status {error.returncode}): {shlex.join(map(str, error.cmd))}")
            print(error.stderr or "")
            return 1
    print(f"Done in {time.monotonic() - started:.0f} s." + ("" if keep else " Everything is stopped and removed."))
    return 0


def run(stack: contextlib.ExitStack, keep: bool) -> None:
    if DEMO.exists():
        sys.exit(f"{DEMO} is there already: an earlier demo was kept. Stop it with: {stop_command()}")
    DEMO.mkdir(mode=0o700)
    cleanup = stack.enter_context(contextlib.ExitStack())
    cleanup.callback(shutil.rmtree, DEMO, ignore_errors=True)

    step("Starting the hub (RabbitMQ and the web service)")
    hub = start_hub(cleanup)
    environment = client_environment()

    step("Configuring and starting an endpoint")
    program("globus-compute-endpoint", "configure", NAME, env=environment)
    started = program("globus-compute-endpoint", "start", NAME, "--detach", env=environment)
    cleanup.callback(program, "globus-compute-endpoint", "stop", NAME, env=environment)
    endpoint_id = json.loads((DEMO / "endpoints" / NAME / "endpoint.json").read_text())["endpoint_id"]
    assert endpoint_id in started.stdout, "start did not print the endpoint's id"
    print(f"  endpoint id         {endpoint_id}")

    step("Submitting functions with the official SDK")
    command = [sys.executable, str(ROOT / "examples/demo/tasks.py"), endpoint_id]
    subprocess.run(command, env=environment, check=True, text=True)

    if keep:
        cleanup.pop_all()
        explain_how_to_go_on(environment, endpoint_id, hub)
    else:
        step("Stopping the endpoint and the hub")


def start_hub(cleanup: contextlib.ExitStack) -> subprocess.Popen[str]:
    """A hub with its own RabbitMQ, ready."""
    command = [str(BIN / "compute-hub"), "serve", "--embedded", str(DEMO / "hub")]
    hub = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=(DEMO / "hub.stderr").open("w"),
        text=True,
        start_new_session=True,
    )
    cleanup.callback(stop_hub, hub)
    assert hub.stdout is not None
    said = []
    for line in hub.stdout:
        said.append(line)
        if line.startswith("Ready"):
            return hub
    raise subprocess.CalledProcessError(hub.wait(), command, stderr="".join(said) + (DEMO / "hub.stderr").read_text())


def stop_hub(hub: subprocess.Popen[str]) -> None:
    hub.terminate()
    hub.wait(60)


def client_environment() -> dict[str, str]:
    """The environment for programs that use the hub, with fresh client credentials; also written to `.demo/env`."""
    created = program("compute-hub", "client", "create", NAME, "--directory", str(DEMO / "hub"), "--json")
    client = json.loads(created.stdout)
    settings = {
        "GLOBUS_COMPUTE_USER_DIR": str(DEMO / "endpoints"),
        "GLOBUS_COMPUTE_CLIENT_ID": client["client_id"],
        "GLOBUS_COMPUTE_CLIENT_SECRET": client["client_secret"],
        "GLOBUS_SDK_ENVIRONMENT": "local",
        "GLOBUS_SDK_SERVICE_URL_AUTH": URL + "/",
        "GLOBUS_SDK_SERVICE_URL_COMPUTE": URL + "/",
    }
    env_file = DEMO / "env"
    env_file.touch(mode=0o600)
    env_file.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in settings.items()))
    return {**os.environ, **settings}


def program(name: str, *arguments: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run one of our programs to its end; CalledProcessError with what it said where it fails."""
    return subprocess.run(
        [str(BIN / name), *arguments], env=env, check=True, text=True, capture_output=True, stdin=subprocess.DEVNULL
    )


def step(text: str) -> None:
    print(f"{text} ...", flush=True)


def explain_how_to_go_on(environment: dict[str, str], endpoint_id: str, hub: subprocess.Popen[str]) -> None:
    (DEMO / "hub.pid").write_text(str(hub.pid))
    endpoint = relative(BIN / "globus-compute-endpoint")
    print(
        f"""
Hub ({URL}) and endpoint are up. To use them:
    . .demo/env
    {relative(BIN / "python")} examples/demo/tasks.py {endpoint_id}
    {endpoint} list
To stop and remove them:
    {stop_command()}"""
    )


def stop_command() -> str:
    endpoint = relative(BIN / "globus-compute-endpoint")
    return f". .demo/env; {endpoint} stop {NAME}; kill $(cat .demo/hub.pid); rm -r .demo"


def relative(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


if __name__ == "__main__":
    sys.exit(main())
