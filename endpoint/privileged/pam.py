"""PAM, as far as a session needs it: account, credentials, session, environment; one handle from beginning to end.

The handle belongs to the process that opened the session and lives as long as the session: its modules keep what they
need to close it in there. Nothing here asks for a password; whatever PAM says meanwhile is kept for the messages.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from endpoint.privileged.steps import TOLD, Step, StepFailed

LIBRARY = "libpam.so.0"
MOST_MESSAGES = 32
LONGEST_MESSAGE = 512  # characters
MOST_VARIABLES = 1000

SUCCESS = 0
NEW_AUTHTOK_REQD = 12
ACCT_EXPIRED = 13
CONV_ERR = 19
BUF_ERR = 5

_RUSER = 8
_TTY = 3
_ESTABLISH_CRED = 0x0002
_DELETE_CRED = 0x0004
_SILENT = 0x8000
_ERROR_MSG = 3
_TEXT_INFO = 4

# What the user reads for an answer of PAM about the account; all others get the step's own words.
_ACCOUNT_TOLD: Final = {
    ACCT_EXPIRED: "Your local account on this machine has expired",
    NEW_AUTHTOK_REQD: "The password of your local account has expired: log in to the machine once and change it",
}


class _Message(ctypes.Structure):
    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


class _Response(ctypes.Structure):
    _fields_ = [("text", ctypes.c_void_p), ("code", ctypes.c_int)]


_CONVERSATION = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.c_void_p),
    ctypes.c_void_p,
)


class _Conversation(ctypes.Structure):
    _fields_ = [("function", _CONVERSATION), ("data", ctypes.c_void_p)]


@dataclass(frozen=True)
class Library:
    """The shared libraries, with the types of what we call."""

    pam: Any
    libc: Any

    @classmethod
    def load(cls) -> Library:
        """Raises StepFailed where this machine has no PAM."""
        try:
            pam = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise StepFailed(Step.PAM_START, f"{LIBRARY} can't be loaded: {error}") from error
        handle = ctypes.c_void_p
        for name, arguments in {
            "pam_start": [ctypes.c_char_p, ctypes.c_char_p, ctypes.POINTER(_Conversation), ctypes.POINTER(handle)],
            "pam_end": [handle, ctypes.c_int],
            "pam_set_item": [handle, ctypes.c_int, ctypes.c_char_p],
            "pam_acct_mgmt": [handle, ctypes.c_int],
            "pam_setcred": [handle, ctypes.c_int],
            "pam_open_session": [handle, ctypes.c_int],
            "pam_close_session": [handle, ctypes.c_int],
            "pam_getenvlist": [handle],
            "pam_strerror": [handle, ctypes.c_int],
        }.items():
            function = getattr(pam, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
        pam.pam_getenvlist.restype = ctypes.POINTER(ctypes.c_void_p)
        pam.pam_strerror.restype = ctypes.c_char_p
        libc = ctypes.CDLL(None)
        libc.calloc.argtypes, libc.calloc.restype = [ctypes.c_size_t, ctypes.c_size_t], ctypes.c_void_p
        libc.free.argtypes, libc.free.restype = [ctypes.c_void_p], None
        return cls(pam, libc)


class PamSession:
    """One user's account check and session; call the steps in the order in which they stand here."""

    def __init__(self, library: Library, service: str, user: str) -> None:
        """Raises StepFailed (`pam-start`)."""
        self.messages: list[str] = []
        self._library = library
        self._who = f"user {user}, service {service}"
        self._handle = ctypes.c_void_p()
        self._has_credentials = False
        self._has_session = False
        self._last = SUCCESS
        # PAM keeps the function's address for the handle's life, so this object keeps the function.
        self._conversation = _Conversation(_CONVERSATION(self._converse), None)
        status = library.pam.pam_start(
            service.encode(), user.encode(), ctypes.byref(self._conversation), ctypes.byref(self._handle)
        )
        if status != SUCCESS:
            raise StepFailed(Step.PAM_START, f"pam_start ({self._who}): {self._told(status)}")
        for item, value in ((_TTY, b"globus-compute"), (_RUSER, b"root")):
            self._call(Step.PAM_START, "pam_set_item", partial(library.pam.pam_set_item, self._handle, item, value))

    def check_account(self) -> None:
        """Whether the account may be used here and now; raises StepFailed (`pam-account`)."""
        self._call(Step.PAM_ACCOUNT, "pam_acct_mgmt", partial(self._pam.pam_acct_mgmt, self._handle, 0))

    def establish_credentials(self) -> None:
        """Tickets, groups and the like; raises StepFailed (`pam-credentials`)."""
        self._call(
            Step.PAM_CREDENTIALS, "pam_setcred", partial(self._pam.pam_setcred, self._handle, _ESTABLISH_CRED | _SILENT)
        )
        self._has_credentials = True

    def open(self) -> None:
        """Open the session; its limits fall on this very process. Raises StepFailed (`pam-session`)."""
        self._call(Step.PAM_SESSION, "pam_open_session", partial(self._pam.pam_open_session, self._handle, 0))
        self._has_session = True

    def environment(self) -> dict[str, str]:
        """The variables that the modules want the session to have."""
        listed = self._pam.pam_getenvlist(self._handle)
        if not listed:
            return {}
        found: dict[str, str] = {}
        index = 0
        while listed[index]:
            name, _, value = ctypes.string_at(listed[index]).decode(errors="surrogateescape").partition("=")
            if name and len(found) < MOST_VARIABLES:
                found[name] = value
            self._library.libc.free(listed[index])
            index += 1
        self._library.libc.free(listed)
        return found

    def close(self) -> list[str]:
        """Close session, credentials and handle, each only if it was opened; returns what went wrong, in words."""
        if not self._handle:
            return []
        wrong = []
        if self._has_session:
            self._has_session = False
            wrong += self._undo("pam_close_session", partial(self._pam.pam_close_session, self._handle, _SILENT))
        if self._has_credentials:
            self._has_credentials = False
            wrong += self._undo("pam_setcred", partial(self._pam.pam_setcred, self._handle, _DELETE_CRED | _SILENT))
        self._pam.pam_end(self._handle, self._last)
        self._handle = ctypes.c_void_p()
        return wrong

    @property
    def _pam(self) -> Any:
        return self._library.pam

    def _call(self, step: Step, name: str, function: Callable[[], int]) -> None:
        self._last = function()
        if self._last == SUCCESS:
            return
        told = _ACCOUNT_TOLD.get(self._last, "") if step is Step.PAM_ACCOUNT else ""
        # What modules say while an account is checked is for the user: the text of /etc/nologin, for one.
        said = " ".join(self.messages) if step is Step.PAM_ACCOUNT and not told else ""
        raise StepFailed(
            step,
            f"{name} ({self._who}): {self._told(self._last)}" + "".join(f"\nPAM: {text}" for text in self.messages),
            reason=f"{TOLD[step]}: {said}" if said else told,
        )

    def _undo(self, name: str, function: Callable[[], int]) -> list[str]:
        self._last = function()
        return [] if self._last == SUCCESS else [f"{name} ({self._who}): {self._told(self._last)}"]

    def _told(self, status: int) -> str:
        text = self._pam.pam_strerror(self._handle, status) or b"?"
        return f"{status}, {text.decode(errors='replace')}"

    def _converse(self, count: int, messages: Any, responses: Any, _: Any) -> int:
        """PAM's callback: keep what it tells, refuse what it asks. It frees the array that we make."""
        try:
            if not 0 < count <= MOST_MESSAGES:
                return CONV_ERR
            for index in range(count):
                message = messages[index].contents
                if message.style not in (_ERROR_MSG, _TEXT_INFO):
                    return CONV_ERR
                self._keep(message.text or b"")
            array = self._library.libc.calloc(count, ctypes.sizeof(_Response))
            if not array:
                return BUF_ERR
            responses[0] = array
            return SUCCESS
        except Exception:  # noqa: BLE001  # nothing may pass through PAM's own code
            return CONV_ERR

    def _keep(self, raw: bytes) -> None:
        text = " ".join(raw.decode(errors="replace").split())
        text = "".join(letter for letter in text if letter.isprintable())[:LONGEST_MESSAGE]
        if text and len(self.messages) < MOST_MESSAGES:
            self.messages.append(text)
