"""A multi-user endpoint: ours and the official one, run by root with real users, in one run over one private broker.

    make bench-multi-user                   everything; about fifteen minutes on two cores
    python -m bench.multi_user --quick      the form for CI: six user endpoints of three users, a minute

cases:
  start     from a start command on the command queue to the user endpoint's first heartbeat, with and without PAM; both
            managers are up meanwhile, and take turns
  burst     so many start commands in one go: time to the last first heartbeat; processor time until then; memory later.
            One after the other, smaller numbers first; where one takes too long, larger ones are not tried with it

The table goes to standard output. A full run writes multi-user.json and multi-user.md into bench/results, and puts the
table between its markers in docs/performance.md; a quick or partial one writes the two where --json-out says.

exit status: 0; 1 when something could not be measured, or when a start takes more than half of the official time.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from bench.facts import facts_of_run
from bench.figures import OFFICIAL, OURS, Failure, Results
from bench.multi_user_post import Post
from bench.multi_user_report import START_LIMIT, burst_setting, markdown, put_into_docs, start_ratio, start_setting
from bench.multi_user_sites import (
    KEEPERS,
    MANAGER,
    MONITOR,
    USER_ENDPOINTS,
    Ground,
    OfficialSite,
    OurSite,
    Site,
    cpu_seconds,
    ground,
    pss_mib,
)
from bench.run import RESULTS, private_broker
from bench.sides import OFFICIAL_BIN, OURS_BIN, REPOSITORY, both_sides, client_url, say

CASES = ("start", "burst")
SITES: dict[str, type[OurSite] | type[OfficialSite]] = {OURS: OurSite, OFFICIAL: OfficialSite}
NAME = "multi-user"
DOCS = REPOSITORY / "docs" / "performance.md"
UP_S = 60.0  # for a manager, and for a single user endpoint
BETWEEN_S = 0.5  # two starts: what the one before still does is over
SETTLE_S = 3.0  # before memory is looked at
ROLES = {MONITOR: "monitor", MANAGER: "manager", KEEPERS: "keeper", USER_ENDPOINTS: "user"}  # as in the report's names


@dataclass(frozen=True)
class Settings:
    """How much is measured. bursts: how many user endpoints at once; patience_s: for one burst."""

    cases: tuple[str, ...] = CASES
    sides: tuple[str, ...] = (OURS, OFFICIAL)
    starts: int = 10
    users: int = 20
    bursts: tuple[int, ...] = (20, 50, 100, 200)
    patience_s: float = 300.0


QUICK = Settings(starts=3, users=3, bursts=(6,), patience_s=60.0)


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    settings = settings_of(given)
    if os.geteuid() != 0:
        say("This makes users of the machine and becomes them: run it as root")
        return 1
    sides = both_sides(given.ours, given.official)
    for side in sides:
        if not side.program.exists():
            say(f"{side.program} is missing; `make bench-multi-user` sets up both endpoints")
            return 1
    signal.signal(signal.SIGTERM, _as_interrupt)
    results = Results(settings=asdict(settings))
    try:
        with private_broker() as url, ground(settings.users, given.ours, given.official) as base:
            results.facts = facts_of_run(url, sides[-1])
            with Post(url, client_url(url)) as post:
                run(results, post, base, settings)
    except KeyboardInterrupt:
        say("Interrupted; nothing is left running")
        return 130
    report = markdown(results)
    print(report)
    whole = settings == Settings()
    if folder := given.json_out or (RESULTS if whole else None):
        folder.mkdir(parents=True, exist_ok=True)
        results.save(folder / f"{NAME}.json")
        (folder / f"{NAME}.md").write_text(report)
    if whole and not given.json_out:
        put_into_docs(DOCS, report)
    found = problems(results)
    for sentence in found:
        say(f"FAILED: {sentence}")
    return 1 if found else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench.multi_user", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--quick", action="store_true", help="fewer starts, users and user endpoints")
    made.add_argument("--case", action="append", choices=CASES, help="more than once for more; default all")
    made.add_argument("--side", action="append", choices=list(SITES), help="more than once for more; default both")
    made.add_argument("--starts", type=int, help=f"of each side; default {Settings.starts}")
    made.add_argument("--burst", type=int, action="append", metavar="N", help="more than once for more")
    made.add_argument("--json-out", type=Path, metavar="DIR", help="where to write the results")
    made.add_argument("--ours", type=Path, default=OURS_BIN, metavar="DIR", help="our endpoint's programs")
    made.add_argument(
        "--official", type=Path, default=OFFICIAL_BIN, metavar="DIR", help="the official endpoint's programs"
    )
    return made


def settings_of(given: argparse.Namespace) -> Settings:
    """The settings of a full or a quick run, with what the command line says."""
    chosen = QUICK if given.quick else Settings()
    return replace(
        chosen,
        cases=tuple(case for case in CASES if case in (given.case or CASES)),
        sides=tuple(side for side in SITES if side in (given.side or SITES)),
        starts=given.starts or chosen.starts,
        bursts=tuple(sorted(given.burst or chosen.bursts)),
    )


def run(results: Results, post: Post, base: Ground, settings: Settings) -> None:
    """Measure everything; nothing runs afterwards."""
    if "start" in settings.cases:
        for pam in (True, False):
            with _attempt(results, "", start_setting(pam)):
                starts(results, post, base, settings, pam=pam)
    if "burst" in settings.cases:
        for side in settings.sides:
            for count in settings.bursts:
                before = len(results.failed)
                with _attempt(results, side, burst_setting(count)):
                    burst(results, post, base, side, count, settings.patience_s)
                if len(results.failed) > before:
                    break


def starts(results: Results, post: Post, base: Ground, settings: Settings, *, pam: bool) -> None:
    """Single starts, in turn; the first one of each side does not count."""
    identities = itertools.cycle(base.users)
    with contextlib.ExitStack() as stack:
        sites = [stack.enter_context(running(post, base, side, pam=pam)) for side in settings.sides]
        for number in range(settings.starts + 1):
            for site in sites if number % 2 else sites[::-1]:
                before = _whole_cpu(site)
                seconds = start_one(post, site, next(identities), UP_S)
                time.sleep(BETWEEN_S)
                if number:
                    values = {"start": seconds, "start_cpu": _whole_cpu(site) - before}
                    results.add(start_setting(pam), site.side, number, values)


def start_one(post: Post, site: Site, identity: str, patience_s: float) -> float:
    """Seconds from the command to the heartbeat."""
    creds = post.user_endpoint()
    began = post.send(
        site.registration["command_queue_info"]["queue"],
        [post.start_command(creds, site.registration["endpoint_id"], identity)],
    )
    return post.wait_for([creds["endpoint_id"]], patience_s) - began


def burst(results: Results, post: Post, base: Ground, side: str, count: int, patience_s: float) -> None:
    """So many at once, with PAM, on a manager that has started one before."""
    with running(post, base, side, pam=True) as site:
        identities = list(base.users)
        start_one(post, site, identities[0], UP_S)
        time.sleep(SETTLE_S)
        creds = [post.user_endpoint() for _ in range(count)]
        manager_id = site.registration["endpoint_id"]
        bodies = [
            post.start_command(one, manager_id, identity)
            for one, identity in zip(creds, itertools.cycle(identities), strict=False)
        ]
        before = _cpu(site)
        began = post.send(site.registration["command_queue_info"]["queue"], bodies)
        seconds = post.wait_for([one["endpoint_id"] for one in creds], patience_s) - began
        after = _cpu(site)
        time.sleep(SETTLE_S)
        spent = {role: after[role] - before.get(role, 0.0) for role in after}
        values = {"heartbeats": seconds, "start_cpu": sum(spent.values()) / count}
        values |= {f"{ROLES[role]}_cpu": spent[role] for role in (MONITOR, MANAGER) if role in spent}
        results.add(burst_setting(count), side, 1, values | _memory(site))
        began = time.monotonic()
    results.add(burst_setting(count), side, 1, {"stop": time.monotonic() - began})


@contextlib.contextmanager
def running(post: Post, base: Ground, side: str, *, pam: bool) -> Iterator[Site]:
    """An endpoint that is connected; its end is told with its log where something fails."""
    with SITES[side](base, post.manager(), pam=pam) as site:
        try:
            post.wait_for([site.registration["endpoint_id"]], UP_S)
            time.sleep(SETTLE_S)
            yield site
        except Exception:
            say(f"The end of the log of {side}:\n{site.logs[-3000:]}")
            raise


def _memory(site: Site) -> dict[str, float]:
    """MiB by role: of monitor and manager, and of a keeper and a user endpoint on average; and of all."""
    roles = site.roles()
    found = {role: pss_mib(pids) for role, pids in roles.items()}
    each = {"keeper_pss": KEEPERS, "user_pss": USER_ENDPOINTS}
    values = {name: found[role] / len(roles[role]) for name, role in each.items() if roles.get(role)}
    values |= {f"{ROLES[role]}_pss": found[role] for role in (MONITOR, MANAGER) if role in found}
    return values | {"all_pss": sum(found.values()), "each_pss": sum(found.values()) / len(roles[USER_ENDPOINTS])}


def _cpu(site: Site) -> dict[str, float]:
    return {role: cpu_seconds(pids) for role, pids in site.roles().items()}


def _whole_cpu(site: Site) -> float:
    return sum(_cpu(site).values())


@contextlib.contextmanager
def _attempt(results: Results, side: str, what: str) -> Iterator[None]:
    """Keep a failure as a result: the other measurements still count."""
    say(f"  {side} {what}".rstrip())
    try:
        yield
    except Exception as error:
        failed = Failure(side, what, f"{type(error).__name__}: {error}")
        results.failed.append(failed)
        say(str(failed))


def problems(results: Results) -> list[str]:
    """Why a run has failed. That the official endpoint can't start so many is a result, not a failure."""
    found = [str(failed) for failed in results.failed if failed.side != OFFICIAL]
    for pam in (True, False):
        ratio = start_ratio(results, pam)
        if ratio is not None and ratio > START_LIMIT:
            found.append(f"{start_setting(pam)} takes {ratio:.2f} of the official time, more than {START_LIMIT:g}")
    return found


def _as_interrupt(_number: int, _frame: object) -> None:
    """SIGTERM ends a run as Ctrl-C does: through every `finally`."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
