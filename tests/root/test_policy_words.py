"""Who is refused, in the words that docs/privileges.md has for the user and for the administrator."""

from __future__ import annotations

import json
import os
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.accounts import Accounts, TestUser
from tests.support.hubs import RunningHub
from tests.support.installed import Installed
from tests.support.multi_user import MultiUserEndpoint, SdkUser

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "privileges.md"
HEADING = "## Refusals, in words"
NOLOGIN = Path("/etc/nologin")
PAM = """\
account required pam_nologin.so
account required pam_unix.so
session [success=1 default=ignore] pam_succeed_if.so quiet user != {denied}
session requisite pam_deny.so
session required pam_permit.so
"""


@dataclass(frozen=True)
class Site:
    endpoint: MultiUserEndpoint
    accounts: dict[str, TestUser]
    sdk: dict[str, SdkUser]
    group: str

    def refusal(self, who: str) -> str:
        answer = self.sdk[who].play("refused", self.endpoint)
        assert answer["status"] == 422, answer
        return str(json.loads(answer["text"])["reason"])

    def check(self, who: str, code: str) -> None:
        """Both sides read what the document says, and the user nothing more."""
        to_user, to_admin = (text.replace("her@example.org", self.identity(who)) for text in words(code))
        said = self.refusal(who)
        assert f"{to_user} [{code}]" in said
        for secret in (str(self.endpoint.base), "Step ", "pam_", "/usr/sbin/nologin"):
            assert secret not in said
        admin = to_admin.replace("ghost", "gct-is-not-there")
        if account := self.accounts.get(who):
            admin = admin.replace("alice", account.name).replace("1001", str(account.uid))
        admin = admin.replace("visitors", self.group).replace("lab-pam", self.service)
        assert admin in self.endpoint.said + self.endpoint.log, self.endpoint.logs

    def identity(self, who: str) -> str:
        return f"{self.sdk[who].client_id}@clients.auth.globus.org"

    @property
    def service(self) -> str:
        return str(json.loads(self.endpoint.policy_file.read_text())["pam"]["service_name"])


def words(code: str) -> tuple[str, str]:
    """What the document says for a code."""
    for line in DOCUMENT.read_text().partition(HEADING)[2].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] == f"`{code}`":
            return cells[1], cells[2].removesuffix(" ...").strip("`")
    raise AssertionError(f"{DOCUMENT} has no words for {code}")


@pytest.fixture(scope="module")
def site(hub: RunningHub, peer_sdk_python: Path, program: Installed, machine: Accounts) -> Iterator[Site]:
    group = machine.group()
    accounts = {
        "nologin": machine.user(shell="/usr/sbin/nologin"),
        "small": machine.user(system=True),
        "forbidden": machine.user(),
        "visitor": machine.user(groups=[group]),
        "expired": machine.user(expires="2001-01-01"),
        "denied": machine.user(),
        "guest": machine.user(),
        "often": machine.user(),
    }
    others = {"root": "root", "ghost": "gct-is-not-there"}
    clients = {who: hub.client(f"words-{who}") for who in (*accounts, *others, "stranger")}
    users = {clients[who].client_id: account.name for who, account in accounts.items()}
    with tempfile.TemporaryDirectory(prefix="gct-words-") as folder:
        Path(folder).chmod(0o755)
        endpoint = MultiUserEndpoint(
            Path(folder) / "site",
            programs=program.root / "bin",
            service_user=machine.user(system=True, shell="/usr/sbin/nologin").name,
            hub_env=hub.env,
            owner=hub.client("words-owner"),
            users=users | {clients[who].client_id: name for who, name in others.items()},
            policy={
                "pam": {
                    "enable": True,
                    "service_name": machine.pam_service(PAM.format(denied=accounts["denied"].name)),
                },
                "forbidden_users": [accounts["forbidden"].name],
                "forbidden_groups": [group],
                "starts_per_minute_per_user": 1,
            },
        )
        with endpoint:
            sdk = {who: SdkUser(peer_sdk_python, hub.env, client) for who, client in clients.items()}
            yield Site(endpoint, accounts, sdk, group)


@pytest.mark.parametrize(
    ("who", "code"),
    [
        ("stranger", "map-identity: IDENTITY_NOT_MAPPED"),
        ("ghost", "map-identity: NO_SUCH_USER"),
        ("root", "map-identity: ROOT_REFUSED"),
        ("small", "policy: UID_TOO_SMALL"),
        ("forbidden", "policy: FORBIDDEN_USER"),
        ("visitor", "policy: FORBIDDEN_GROUP"),
        ("nologin", "policy: SHELL_NOT_ALLOWED"),
        ("expired", "pam: CANNOT_START_PAM_ACCOUNT"),
        ("denied", "pam: CANNOT_START_PAM_SESSION"),
    ],
)
def test_a_refusal_is_told_in_the_words_of_the_document(site, who, code):
    site.check(who, code)


def test_a_machine_that_is_closed_for_logins_says_so_to_the_user_in_the_administrator_s_words(site):
    assert not NOLOGIN.exists()
    NOLOGIN.write_text("Maintenance until noon\n")
    try:
        said = site.refusal("guest")
    finally:
        NOLOGIN.unlink()

    assert "Your local account may not be used on this machine now: Maintenance until noon." in said
    assert "[pam: CANNOT_START_PAM_ACCOUNT]" in said
    assert "PAM: Maintenance until noon" in site.endpoint.said


def test_who_starts_too_often_is_told_what_to_do_and_nobody_else_is_to_be_asked(site):
    pid = site.sdk["often"].play("facts", site.endpoint)["pid"]
    os.kill(pid, signal.SIGTERM)
    site.endpoint.wait_for(lambda: f"The user endpoint has ended (PID {pid})" in site.endpoint.log)

    site.check("often", "policy: TOO_OFTEN")
    assert "administrator" not in words("policy: TOO_OFTEN")[0]
