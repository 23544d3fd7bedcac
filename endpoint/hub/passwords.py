"""People's passwords: what is kept of one, and which ones are taken.

Unlike our own random secrets, a password can be guessed by somebody who has its hash; so the hash is slow (scrypt, RFC
7914, with a salt for each person). Its cost is kept with it, so that a later version can ask for more.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import unicodedata

from endpoint.errors import Stage, UsageError

MIN_LENGTH = 10  # characters
MAX_LENGTH = 256
# 32 MiB of memory and about a third of a second for each guess.
LOG2_N, R, P = 15, 8, 3
SALT_BYTES = 16
NOBODY = f"scrypt${LOG2_N}${R}${P}${'A' * 22}==${'A' * 43}="  # no password has it; as slow to compare as any


def hash_password(password: str) -> str:
    """What is kept of it: `scrypt$LOG2_N$R$P$SALT$HASH`, the last two in base64."""
    salt = secrets.token_bytes(SALT_BYTES)
    derived = _derive(password, salt, LOG2_N, R, P)
    return "$".join(("scrypt", str(LOG2_N), str(R), str(P), _text(salt), _text(derived)))


def is_password(password: str, kept: str) -> bool:
    """Whether `kept` is the hash of `password`; takes as long for a wrong one. ValueError when `kept` is no hash."""
    kind, log2_n, r, p, salt, derived = kept.split("$")
    if kind != "scrypt":
        raise ValueError(f"{kind!r} is not a hash that this version knows")
    found = _derive(password, base64.b64decode(salt), int(log2_n), int(r), int(p))
    return hmac.compare_digest(found, base64.b64decode(derived))


def check_new_password(password: str, name: str) -> None:
    """Raise UsageError for a password that `name` should not have."""
    problem = ""
    if not MIN_LENGTH <= len(password) <= MAX_LENGTH:
        problem = f"A password has {MIN_LENGTH} to {MAX_LENGTH} characters"
    elif not password.isprintable():
        problem = "A password has no control characters"
    elif len(password.lower().replace(name.lower(), "")) <= MIN_LENGTH // 2:
        problem = "The password is little more than the person's name"
    elif len(set(password)) < MIN_LENGTH // 2:
        problem = f"A password has at least {MIN_LENGTH // 2} different characters"
    if problem:
        raise UsageError(problem, hint="Several unrelated words do well", stage=Stage.HUB, code="BAD_PASSWORD")


def _derive(password: str, salt: bytes, log2_n: int, r: int, p: int) -> bytes:
    n = 1 << log2_n
    memory = 128 * r * (n + p + 2)
    # One letter can be typed as different characters, which differ from keyboard to keyboard.
    raw = unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")
    return hashlib.scrypt(raw, salt=salt, n=n, r=r, p=p, maxmem=memory + (1 << 20), dklen=32)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
