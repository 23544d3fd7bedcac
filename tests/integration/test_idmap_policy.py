"""Who is admitted by a mapping file, as whom, and what a change of the file does."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import pwd
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from endpoint.errors import ExitStatus, MappingError
from endpoint.manager import identity as identity_module
from endpoint.manager.commands import Requester
from endpoint.manager.identity import Mapped
from endpoint.manager.local_user import user_named
from endpoint.manager.mapping_refusals import AccountRefused, NotMapped

pytestmark = pytest.mark.usefixtures("no_process_left")

ENDPOINT = "11111111-1111-4111-8111-111111111111"
STAFF = {"source": "{username}", "match": r"(.*)@example\.org", "output": "{0}"}


@pytest.fixture(scope="module")
def account() -> Iterator[str]:
    """A local user with a group beside its own."""
    name, group = "gce-idmap-a", "gce-idmap-g"
    subprocess.run(["groupadd", group], check=True)
    try:
        subprocess.run(["useradd", "--no-create-home", "--groups", group, name], check=True)
        yield name
    finally:
        subprocess.run(["userdel", name], check=False)
        subprocess.run(["groupdel", group], check=False)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "mapping.json"
    write(found, STAFF)
    return found


def write(path: Path, *rules: dict[str, Any]) -> None:
    path.write_text(json.dumps([{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": list(rules)}]))


def requester(name: str, **more: Any) -> Requester:
    identity = {"id": "9cf5a1d2-41c4-4925-b0bb-f5e0a16c98ab", "username": f"{name}@example.org", "status": "used"}
    return Requester(f"{name}@example.org", "x", (identity | more,))


def with_policy(path: Path, work: Callable[[Mapped], Awaitable[None]], **more: Any) -> None:
    async def play() -> None:
        policy = Mapped(path, ENDPOINT, **more)
        await policy.start()
        try:
            await work(policy)
        finally:
            await policy.close()

    asyncio.run(play())


def refusal(path: Path, who: Requester, **more: Any) -> Any:
    caught: list[Any] = []

    async def work(policy: Mapped) -> None:
        with pytest.raises((NotMapped, AccountRefused)) as found:
            await policy.admit(who)
        caught.append(found.value.failure)

    with_policy(path, work, **more)
    return caught[0]


def test_who_is_mapped_is_the_local_user_with_all_groups(path, account):
    async def work(policy: Mapped) -> None:
        user = await policy.admit(requester(account))
        entry = pwd.getpwnam(account)
        assert (user.name, user.uid, user.gid, str(user.home)) == (account, entry.pw_uid, entry.pw_gid, entry.pw_dir)
        assert len(user.groups) == 2
        assert set(user.groups) == set(os.getgrouplist(account, entry.pw_gid))
        assert user.matched_identity == "9cf5a1d2-41c4-4925-b0bb-f5e0a16c98ab"
        assert user.mapped_by == "document 1, rule 1"
        assert user.for_template()["globus"] == {"id": user.matched_identity}

    with_policy(path, work)


def test_who_is_not_mapped_is_told_in_one_sentence_and_the_admin_what_was_tried(path):
    failure = refusal(
        path, Requester("eve@evil.com", "x", ({"id": "1", "username": "eve@evil.com", "status": "used"},))
    )

    assert failure.code == "IDENTITY_NOT_MAPPED"
    assert failure.for_user() == (
        "This endpoint has no local account for eve@evil.com. "
        "Contact the endpoint's administrator. [map-identity: IDENTITY_NOT_MAPPED]"
    )
    assert "1 identities were tried with 1 rule" in failure.detail


@pytest.mark.parametrize("name", ["no-such-user", "../etc", "-x", "a:b", "x" * 200, "", "a b", "\u00e4"])
def test_an_account_that_is_not_there_is_refused(path, name):
    failure = refusal(path, requester(name))

    assert failure.code == "NO_SUCH_USER"
    assert name not in failure.for_user().partition("@")[2] or not name


def test_root_is_refused_whatever_is_allowed(path):
    assert refusal(path, requester("root"), allow_same_user=True).code == "ROOT_REFUSED"


def test_the_managers_own_user_is_refused_unless_that_is_allowed(path, account):
    script = """if True:
        import asyncio, os, sys
        from pathlib import Path
        from endpoint.manager.commands import Refusal, Requester
        from endpoint.manager.identity import Mapped
        async def play(allowed):
            policy = Mapped(Path(sys.argv[1]), "e", allow_same_user=allowed)
            await policy.start()
            os.setresuid(int(sys.argv[2]), 0, 0)
            name = sys.argv[3] + "@example.org"
            identity = {"id": "1", "username": name, "status": "used"}
            try:
                print((await policy.admit(Requester(name, "x", (identity,)))).name)
            except Refusal as refusal:
                print(refusal.failure.code)
            os.setresuid(0, 0, 0)
            await policy.close()
        asyncio.run(play(False)); asyncio.run(play(True))
    """
    uid = str(user_named(account).uid)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), uid, account], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.stdout.split() == ["SAME_USER", account], done.stderr


def test_too_many_identities_are_refused_before_anything_looks_at_them(path):
    identities = tuple({"id": str(number), "username": "x@example.org"} for number in range(1000))

    assert "more than the 50" in refusal(path, Requester("x", "x", identities)).detail
    assert "bytes are more" in refusal(path, requester("x", email="x" * 300_000)).detail


async def eventually(condition: Callable[[], bool]) -> None:
    for _ in range(500):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it did not happen in 10 s")


def test_a_changed_file_counts_and_both_are_told(path, account, caplog, monkeypatch):
    monkeypatch.setattr(identity_module, "LOOK_EVERY_S", 0.05)
    caplog.set_level(logging.INFO)

    async def work(policy: Mapped) -> None:
        watching = asyncio.create_task(policy.watch())
        write(path, STAFF | {"match": r"(.*)@new\.org"}, STAFF | {"output": "games"})
        await eventually(lambda: "was read again" in caplog.text)
        assert (await policy.admit(requester(account))).name == "games"
        path.unlink()
        await eventually(lambda: "stays as it was" in caplog.text)
        assert (await policy.admit(requester(account))).name == "games"
        write(path, STAFF)
        await eventually(lambda: caplog.text.count("was read again") == 2)
        assert (await policy.admit(requester(account))).name == account
        watching.cancel()

    with_policy(path, work)
    assert "The identity mapping was read again; it had 1 rule, and now has 2 rules" in caplog.text


@pytest.mark.parametrize(
    "content", ["", "[", "[{}]", '[{"DATA_TYPE": "expression_identity_mapping#1.0.0", "mappings": 3}]']
)
def test_an_invalid_file_leaves_the_old_one_in_force_and_is_told(path, account, caplog, content):
    async def work(policy: Mapped) -> None:
        path.write_text(content)
        await policy.reload()
        assert (await policy.admit(requester(account))).name == account

    with_policy(path, work)
    assert "The identity mapping stays as it was, with 1 rule" in caplog.text
    assert "MAPPING_UNREADABLE" in caplog.text


def test_who_is_asked_about_while_the_file_changes_is_answered(path, account):
    async def work(policy: Mapped) -> None:
        asking = [asyncio.create_task(policy.admit(requester(account))) for _ in range(10)]
        await asyncio.sleep(0)
        await policy.reload()
        assert {user.name for user in await asyncio.gather(*asking)} == {account}

    with_policy(path, work)


@pytest.mark.parametrize("content", [None, b"", b"[", b"{}", b'[{"DATA_TYPE": "other#1.0.0"}]', b"\xff"])
def test_a_file_that_can_not_be_used_has_the_official_exit_status(tmp_path, content):
    path = tmp_path / "mapping.json"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(MappingError) as caught:
        Mapped(path, ENDPOINT)

    assert caught.value.exit_status == ExitStatus.MAPPING_UNREADABLE == 77
    assert str(path) in caught.value.failure.for_admin()


def test_a_file_that_everybody_can_write_is_refused_and_one_of_a_group_is_told(path, caplog):
    path.chmod(0o664)
    with_policy(path, lambda _policy: asyncio.sleep(0))
    assert "its group can write it" in caplog.text

    path.chmod(0o666)
    with pytest.raises(MappingError, match="Everybody can write"):
        Mapped(path, ENDPOINT)


def test_warnings_about_rules_are_logged(path, caplog):
    write(path, STAFF | {"match": r"(.+)@example\.org"})
    with_policy(path, lambda _policy: asyncio.sleep(0))

    assert "+ has no meaning here but itself" in caplog.text
