"""Programs that map identities, and rules that take for ever: real processes, with all that can go wrong."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from endpoint.manager.local_user import user_named
from endpoint.manager.mapping import IdentityMapping, MappingFile, read_mapping
from endpoint.manager.mapping_process import RuleProcess, Unanswered
from endpoint.manager.mapping_program import (
    MOST_AT_ONCE,
    POSIX_CONNECTOR,
    ProgramAnswer,
    Programs,
    environment_for_programs,
)
from endpoint.manager.mapping_refusals import LookupFailed
from endpoint.manager.mapping_types import Program, Rule

pytestmark = pytest.mark.usefixtures("no_process_left")

T = TypeVar("T")

ENDPOINT = "11111111-1111-4111-8111-111111111111"
ALICE = {"id": "9cf5a1d2-41c4-4925-b0bb-f5e0a16c98ab", "username": "alice@example.org", "status": "used"}
BOB = {"id": "67c31064-1e5f-4d78-b687-5fbea3d3e05a", "username": "bob@example.org", "status": "used"}
EVIL = {"id": "4787931e-b999-412e-97f9-a7a24c79ad71", "name": "a" * 60, "status": "used"}
EVIL_RULE = Rule(1, 1, "{name}", "(a*)*b", "x")
ANSWER = {"DATA_TYPE": "identity_mapping_output#1.0.0", "result": [{"id": ALICE["id"], "output": "alice"}]}


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., Program]:
    """Makes programs: `program("exit 1")`."""

    def make(script: str, name: str = "ask", interpreter: str = "/bin/sh") -> Program:
        path = tmp_path / name
        path.write_text(f"#!{interpreter}\n{script}\n")
        path.chmod(0o755)
        return Program(1, (str(path), "--fast"))

    return make


def ask(program: Program, *identities: dict[str, str], limit_s: float = 5.0) -> ProgramAnswer:
    async def once() -> ProgramAnswer:
        return await Programs(ENDPOINT, limit_s=limit_s).ask(program, identities or (ALICE,))

    return asyncio.run(once())


def printing(answer: object) -> str:
    return f"cat > /dev/null; cat <<'END'\n{json.dumps(answer)}\nEND"


def test_a_program_gets_the_protocol_of_the_official_endpoint(program, tmp_path):
    asked = program(f'echo "$@" > {tmp_path}/words; cat > {tmp_path}/question')

    assert ask(asked, ALICE, BOB) == ProgramAnswer()

    assert (tmp_path / "words").read_text().split() == ["--fast", "-c", POSIX_CONNECTOR, "-s", ENDPOINT, "-a"]
    question = json.loads((tmp_path / "question").read_text())
    assert question == {"DATA_TYPE": "identity_mapping_input#1.0.0", "identities": [ALICE, BOB]}


def test_what_a_program_prints_first_counts(program):
    results = [{"id": BOB["id"], "output": "bob"}, *ANSWER["result"]]
    answer = ask(program(printing(ANSWER | {"result": results})), ALICE, BOB)

    assert answer.outputs == ((BOB["id"], "bob"), (ALICE["id"], "alice"))
    hit = answer.hit(Program(3, ("x",)))
    assert hit is not None
    assert (hit.identity, hit.output, str(hit)) == (BOB["id"], "bob", "document 3, program")


def test_a_program_that_does_not_read_its_question_is_heard(program):
    identities = [ALICE] + [BOB | {"name": "x" * 1000} for _ in range(200)]  # more than a pipe holds

    assert ask(program(f"echo '{json.dumps(ANSWER)}'"), *identities).outputs == ((ALICE["id"], "alice"),)


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo out of order >&2; exit 3", "ended with status 3, and said: out of order"),
        ("kill -SEGV $$", "ended with status -11"),
        ("echo hello", "what it printed is no answer"),
        ("printf '\\377\\376'", "what it printed is no answer"),
        ("echo '[]'", "what it printed is no answer"),
        ('echo \'{"DATA_TYPE": "identity_mapping_output#2.0.0"}\'', "what it printed is no answer"),
        (printing(ANSWER | {"result": [{"id": "alice", "output": "alice"}]}), "what it printed is no answer"),
        (printing(ANSWER | {"result": [{"id": BOB["id"], "output": "bob"}]}), "that it was not asked for"),
        ("yes", "it printed more than"),
        ("yes [ | tr -d '\\n' | head -c 60000", "what it printed is no answer"),
    ],
)
def test_a_program_that_fails_or_talks_nonsense_is_a_problem_in_words(program, script, words):
    answer = ask(program(script))

    assert words in answer.problem
    assert str(program(script).command[0]) in answer.problem
    assert answer.outputs == ()


def test_a_program_that_is_not_there_is_a_problem_too(tmp_path):
    assert "can't be started" in ask(Program(1, (str(tmp_path / "nothing"),))).problem


def test_a_complaint_is_told_short_and_without_secrets(program):
    answer = ask(program("yes 'x password=hunter2' | head -c 200000 >&2; printf '\\033[2J' >&2; exit 1"))

    assert len(answer.problem) < 1000
    assert "hunter2" not in answer.problem
    assert "\033" not in answer.problem


def test_a_program_that_hangs_is_killed_with_its_children_though_they_ignore_sigterm(program, tmp_path):
    hanging = program(f"trap '' TERM; (trap '' TERM; echo $$ > {tmp_path}/pid; sleep 60) & sleep 60")

    began = time.monotonic()
    answer = ask(hanging, limit_s=0.5)

    assert answer.problem.endswith("no answer in 0.5 s")
    assert time.monotonic() - began < 3
    assert [process for process in psutil.process_iter(["cmdline"]) if str(tmp_path) in str(process.info)] == []


def test_a_child_that_keeps_the_pipe_open_does_not_hold_us_up(program, tmp_path):
    leaving = program(f"setsid sh -c 'echo $$ > {tmp_path}/pid; exec sleep 60' & {printing(ANSWER)}")

    began = time.monotonic()
    answer = ask(leaving, limit_s=0.5)

    psutil.Process(int((tmp_path / "pid").read_text())).kill()
    assert "no answer" in answer.problem
    assert time.monotonic() - began < 3


def test_a_program_gets_no_secrets(program, tmp_path, monkeypatch):
    monkeypatch.setenv("GLOBUS_COMPUTE_CLIENT_SECRET", "hunter2")
    monkeypatch.setenv("LDAPCONF", "/etc/ldap.conf")
    ask(program(f"env > {tmp_path}/env; ls -l /proc/self/fd > {tmp_path}/descriptors"))

    seen = (tmp_path / "env").read_text()
    assert "LDAPCONF=/etc/ldap.conf" in seen
    assert "hunter2" not in seen
    assert "socket:" not in (tmp_path / "descriptors").read_text()
    assert environment_for_programs({"A_TOKEN_FILE": "x", "NOTIFY_SOCKET": "y", "HOME": "z"}) == {"HOME": "z"}


def test_root_runs_a_program_as_somebody_else():
    assert os.geteuid() == 0, "this needs root"
    nobody = user_named("nobody")
    program = Program(1, ("/bin/sh", "-c", "id -u >&2; id -G >&2; exit 1"))

    async def once() -> ProgramAnswer:
        return await Programs(ENDPOINT, run_as=nobody).ask(program, [ALICE])

    assert f"said: {nobody.uid} {nobody.gid}" in asyncio.run(once()).problem


def with_mapping(file: MappingFile, work: Callable[[IdentityMapping], Awaitable[T]], limit_s: float = 5.0) -> T:
    async def play() -> T:
        mapping = IdentityMapping(file, Programs(ENDPOINT, limit_s=limit_s))
        try:
            return await work(mapping)
        finally:
            await mapping.close()

    return asyncio.run(play())


def counting(program: Callable[..., Program], tmp_path: Path, script: str) -> Program:
    return program(f"echo x >> {tmp_path}/asked; {script}")


def times_asked(tmp_path: Path) -> int:
    return (tmp_path / "asked").read_text().count("x")


def test_an_answer_is_kept_and_asked_for_once_by_all_who_wait(program, tmp_path):
    file = MappingFile((counting(program, tmp_path, f"sleep 0.2; {printing(ANSWER)}"),))

    async def work(mapping: IdentityMapping) -> None:
        hits = await asyncio.gather(*(mapping.find([ALICE]) for _ in range(20)))
        hits.append(await mapping.find([ALICE]))
        assert {hit.output for hit in hits if hit} == {"alice"}
        assert times_asked(tmp_path) == 1
        with pytest.raises(LookupFailed):  # it answers for another than was asked
            await mapping.find([BOB])
        assert times_asked(tmp_path) == 2

    with_mapping(file, work)


def test_a_problem_ends_the_search_and_is_kept_for_a_moment(program, tmp_path):
    later = Program(2, program(printing(ANSWER), "later").command)
    file = MappingFile((counting(program, tmp_path, "exit 1"), later))

    async def work(mapping: IdentityMapping) -> None:
        for _ in range(3):
            with pytest.raises(LookupFailed) as caught:
                await mapping.find([ALICE])
        failure = caught.value.failure
        assert "status 1" in failure.detail
        assert str(tmp_path) not in failure.for_user()
        assert failure.retry
        assert times_asked(tmp_path) == 1

    with_mapping(file, work)


def test_a_program_that_knows_nobody_leaves_the_word_to_the_next(program):
    later = Program(2, program(printing(ANSWER), "later").command)
    hit = with_mapping(MappingFile((program("cat > /dev/null"), later)), lambda mapping: mapping.find([ALICE]))

    assert hit is not None
    assert (hit.document, hit.output) == (2, "alice")


def test_a_slow_lookup_delays_nobody_else(program):
    slow = program('grep -q bob && sleep 5; echo "$ANSWER"')
    quick = Program(2, program(printing(ANSWER), "quick").command)

    async def work(mapping: IdentityMapping) -> float:
        waiting = asyncio.create_task(mapping.find([BOB]))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        hit = await mapping.find([ALICE])
        took = time.monotonic() - began
        assert hit is not None
        assert not waiting.done()
        waiting.cancel()
        return took

    assert with_mapping(MappingFile((slow, quick)), work) < 1


def test_only_so_many_programs_run_at_once(program, tmp_path):
    counted = program(
        f"touch {tmp_path}/run.$$; ls {tmp_path}/run.* | wc -l >> {tmp_path}/most; sleep 0.2; rm {tmp_path}/run.$$"
    )

    async def work(mapping: IdentityMapping) -> None:
        await asyncio.gather(*(mapping.find([ALICE | {"n": str(number)}]) for number in range(3 * MOST_AT_ONCE)))

    with_mapping(MappingFile((counted,)), work)

    assert 1 < max(map(int, (tmp_path / "most").read_text().split())) <= MOST_AT_ONCE


def test_what_is_asked_when_a_mapping_closes_ends_with_it(program):
    async def work(mapping: IdentityMapping) -> None:
        waiting = asyncio.create_task(mapping.find([ALICE]))
        await asyncio.sleep(0.2)
        await mapping.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    began = time.monotonic()
    with_mapping(MappingFile((program("sleep 60"),)), work)
    assert time.monotonic() - began < 3


def test_a_pattern_that_takes_for_ever_ends_its_process_and_the_next_question_finds_another():
    rules = [EVIL_RULE, Rule(2, 1, "{username}", r"(.*)@example\.org", "{0}")]

    async def play() -> None:
        process = RuleProcess(rules)
        began = time.monotonic()
        with pytest.raises(Unanswered, match="took too long"):
            await process.first_hit(1, [EVIL])
        assert time.monotonic() - began < 5
        hit = await process.first_hit(2, [ALICE])
        assert hit is not None
        assert hit.output == "alice"
        await process.close()

    asyncio.run(play())


def test_the_loop_goes_on_while_a_pattern_takes_for_ever_and_it_is_tried_once(tmp_path):
    path = tmp_path / "mapping.json"
    rules = [
        {"source": "{name}", "match": "(a*)*b", "output": "x"},
        {"source": "{username}", "match": "(.*)@example.org", "output": "{0}"},
    ]
    path.write_text(json.dumps([{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": rules}]))

    async def work(mapping: IdentityMapping) -> None:
        waiting = asyncio.create_task(mapping.find([EVIL]))
        longest, last = 0.0, time.monotonic()
        while not waiting.done():
            await asyncio.sleep(0.01)
            longest, last = max(longest, time.monotonic() - last), time.monotonic()
        assert longest < 0.5
        began = time.monotonic()
        for _ in range(10):
            with pytest.raises(LookupFailed, match="at the moment"):
                await mapping.find([EVIL])
        assert time.monotonic() - began < 0.2
        hit = await mapping.find([ALICE])
        assert hit is not None

    with_mapping(read_mapping(path), work)


def test_one_who_gives_up_does_not_leave_an_answer_for_the_next():
    async def play() -> None:
        process = RuleProcess([Rule(1, 1, "{username}", r"(.*)@example\.org", "{0}")])
        await process.start()
        for _ in range(20):
            asking = asyncio.create_task(process.first_hit(1, [BOB]))
            await asyncio.sleep(0)
            asking.cancel()
            hit = await process.first_hit(1, [ALICE])
            assert hit is not None
            assert hit.output == "alice"
        await process.close()

    asyncio.run(play())


def test_a_process_for_rules_that_is_killed_is_replaced():
    async def play() -> None:
        process = RuleProcess([Rule(1, 1, "{username}", r"(.*)@example\.org", "{0}")])
        before = set(psutil.Process().children())
        await process.start()
        (child,) = set(psutil.Process().children()) - before
        child.kill()
        with pytest.raises(Unanswered):
            await process.first_hit(1, [ALICE])
        assert await process.first_hit(1, [ALICE]) is not None
        await process.close()

    asyncio.run(play())
