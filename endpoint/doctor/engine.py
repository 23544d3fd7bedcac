"""The engine: can be imported, and is built from its block. Nothing is started."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib import metadata

import psutil

from endpoint.doctor.findings import Finding, failure, ok
from endpoint.doctor.situation import NotTried, Situation, Trial
from endpoint.engines.build import build_engine
from endpoint.errors import EndpointError, EngineFailure


def check(situation: Situation) -> Iterator[Finding]:
    """Leaves `buildable`: the trials whose engine can be built, each engine once."""
    if not situation.trials:
        raise NotTried("no set of options gives a valid configuration")
    distinct: list[Trial] = []
    for trial in sorted(situation.trials, key=lambda one: not one.for_job):
        if trial.engine not in [other.engine for other in distinct]:
            distinct.append(trial)
    for trial in distinct:
        yield _build(situation, trial)


def _build(situation: Situation, trial: Trial) -> Finding:
    begin = time.monotonic()
    try:
        build_engine(trial.engine)
    except EndpointError as error:
        found = failure(error, engine=trial.summary)
        return replace(found, next_step=_interfaces(trial) or found.next_step)
    except ImportError as error:
        missing = EngineFailure(
            f"{trial.label} can't be imported: {error}",
            hint="Install this program again with its locked packages, or the extra that the provider needs",
            code="NOT_IMPORTABLE",
        )
        return failure(missing, engine=trial.summary)
    situation.buildable.append(trial)
    seconds = round(time.monotonic() - begin, 3)
    parsl = metadata.version("parsl") if trial.provider else None
    with_parsl = f" with Parsl {parsl}" if parsl else ""
    return ok(
        f"{trial.label} is imported and built in {seconds:.1f} s{with_parsl}",
        engine=trial.summary,
        seconds=seconds,
        parsl=parsl,
    )


def _interfaces(trial: Trial) -> str:
    """What to write where the template names an interface that this machine doesn't have; else empty."""
    block = trial.engine.get("address")
    wanted = block.get("ifname") if isinstance(block, Mapping) else None
    here = psutil.net_if_addrs()
    if wanted is None or wanted in here:
        return ""
    addresses = {name: [one.address for one in found if one.family == socket.AF_INET] for name, found in here.items()}
    told = ", ".join(f"{name} ({', '.join(found)})" for name, found in sorted(addresses.items()) if found)
    return f"There is no interface {wanted}; this machine has {told}"
