"""What the hub answers when it says no: an error that knows its HTTP status."""

from __future__ import annotations

from endpoint.errors import EndpointError, Mender, Stage


class Refusal(EndpointError):
    """A request that is refused; `code` is one of the words that clients of the service know."""

    mender = Mender.USER
    stage = Stage.HUB

    def __init__(self, status: int, code: str, reason: str, *, hint: str = "", detail: str = "") -> None:
        super().__init__(reason, hint=hint, detail=detail, code=code)
        self.status = status

    @property
    def shown(self) -> str:
        """What the user reads."""
        return self.failure.for_user()


class StartRefused(Refusal):
    """A user endpoint did not start."""

    mender = Mender.ADMIN

    def __init__(self, reason: str, *, hint: str = "") -> None:
        super().__init__(422, "SEMANTICALLY_INVALID", reason, hint=hint)


class FailureNotice(StartRefused):
    """A user endpoint did not start, and said why: the endpoint's own words reach the user as they are."""

    @property
    def shown(self) -> str:
        return self.failure.reason


class Unavailable(Refusal):
    """The hub can't do it now (its broker is away)."""

    mender = Mender.SERVICE
    retry = True

    def __init__(self, reason: str) -> None:
        super().__init__(503, "SERVICE_UNAVAILABLE", reason)


def invalid(reason: str) -> Refusal:
    """A body whose content makes no sense."""
    return Refusal(422, "SEMANTICALLY_INVALID", reason)


def malformed(reason: str) -> Refusal:
    """A request that can't be read at all."""
    return Refusal(400, "REQUEST_MALFORMED", reason)


def unauthenticated(reason: str) -> Refusal:
    """No bearer token, or not a good one."""
    return Refusal(401, "USER_UNAUTHENTICATED", reason, hint="Log in again")


def endpoint_not_found(endpoint_id: str) -> Refusal:
    """No such endpoint, or one that the caller has nothing to do with."""
    return Refusal(404, "ENDPOINT_NOT_FOUND", f"Endpoint {endpoint_id} could not be found")


def endpoint_forbidden(endpoint_id: str) -> Refusal:
    """An endpoint that belongs to somebody else."""
    return Refusal(403, "ENDPOINT_ACCESS_FORBIDDEN", f"You have no permission to do this with endpoint {endpoint_id}")


def function_not_found(function_id: str) -> Refusal:
    """No such function, or one that the caller may not see."""
    return Refusal(404, "FUNCTION_NOT_FOUND", f"Function {function_id} could not be found")


def task_not_found(task_id: str) -> Refusal:
    """No such task, or somebody else's."""
    return Refusal(404, "TASK_NOT_FOUND", f"Task {task_id} could not be found")


def group_not_found(group_id: str) -> Refusal:
    """No such task group, or somebody else's."""
    return Refusal(404, "TASK_GROUP_NOT_FOUND", f"Task group {group_id} could not be found")


def too_large(what: str, limit: int) -> Refusal:
    """A payload over its limit (bytes)."""
    return Refusal(
        413,
        "TASK_PAYLOAD_TOO_LARGE",
        f"{what} is larger than the limit of {limit} bytes",
        hint="Pass large data by reference, e.g. as a path that the endpoint can read",
    )


class EndpointGone(EndpointError):
    """Why a task will never get a result from its endpoint."""

    mender = Mender.USER
    stage = Stage.HUB
    code = "ENDPOINT_GONE"
