"""The hub's tables. Times are seconds since the epoch, ids are lower-case uuid strings."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, ForeignKey, Index, LargeBinary, String, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

ID = String(36)


class Base(DeclarativeBase):
    """Columns of dicts and lists are JSON."""

    type_annotation_map = {dict[str, Any]: JSON, list[str]: JSON}


class Identity(Base):
    """Somebody who can be authenticated: a client or a person; stays when that is deleted, because it owns things."""

    __tablename__ = "identities"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    username: Mapped[str] = mapped_column(String(256), unique=True)
    name: Mapped[str] = mapped_column(String(256))
    email: Mapped[str | None] = mapped_column(String(256))
    organization: Mapped[str | None] = mapped_column(String(256))


class Client(Base):
    """A client identity's credentials; the secret itself is not kept, only its hash."""

    __tablename__ = "clients"

    id: Mapped[str] = mapped_column(ForeignKey(Identity.id), primary_key=True)
    name: Mapped[str] = mapped_column(String(256))
    secret_hash: Mapped[str] = mapped_column(String(64))
    created: Mapped[float]


class Person(Base):
    """A person's account; `password` is a hash (passwords.py)."""

    __tablename__ = "people"

    id: Mapped[str] = mapped_column(ForeignKey(Identity.id), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), unique=True)
    password: Mapped[str] = mapped_column(String(256))
    created: Mapped[float]


class Code(Base):
    """What a person who signed in brings to the program that asked, under its hash; redeemed once for tokens."""

    __tablename__ = "codes"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    identity_id: Mapped[str] = mapped_column(ForeignKey(Identity.id), index=True)
    client_id: Mapped[str] = mapped_column(ID)
    redirect_uri: Mapped[str] = mapped_column(Text)
    scope: Mapped[str] = mapped_column(Text)
    challenge: Mapped[str] = mapped_column(String(64))
    nonce: Mapped[str | None] = mapped_column(Text)
    offline: Mapped[bool]
    issued: Mapped[float]
    expires: Mapped[float] = mapped_column(index=True)


class RefreshToken(Base):
    """What gets the next access token for one server, under its hash.

    family: all that follow from one login. access_hash: the access token that was given together with it.
    """

    __tablename__ = "refresh_tokens"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    family: Mapped[str] = mapped_column(ID, index=True)
    identity_id: Mapped[str] = mapped_column(ForeignKey(Identity.id), index=True)
    client_id: Mapped[str] = mapped_column(ID)
    resource_server: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(Text)
    access_hash: Mapped[str] = mapped_column(String(64))
    issued: Mapped[float]
    expires: Mapped[float] = mapped_column(index=True)


class Token(Base):
    """An access token that was given out, under its hash."""

    __tablename__ = "tokens"

    hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    identity_id: Mapped[str] = mapped_column(ForeignKey(Identity.id), index=True)
    client_id: Mapped[str] = mapped_column(ID)
    resource_server: Mapped[str] = mapped_column(String(64))
    scope: Mapped[str] = mapped_column(Text)
    issued: Mapped[float]
    expires: Mapped[float] = mapped_column(index=True)


class Endpoint(Base):
    """An endpoint: one that registered, or (with `parent_id`) a user endpoint that a manager starts.

    templated: tasks go to user endpoints that are started by command; else to the endpoint's own task queue.
    """

    __tablename__ = "endpoints"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    parent_id: Mapped[str | None] = mapped_column(ForeignKey("endpoints.id"), index=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey(Identity.id), index=True)
    name: Mapped[str] = mapped_column(String(256))
    display_name: Mapped[str | None] = mapped_column(String(256))
    templated: Mapped[bool] = mapped_column(default=True)
    multi_user: Mapped[bool] = mapped_column(default=False)
    public: Mapped[bool] = mapped_column(default=False)
    high_assurance: Mapped[bool] = mapped_column(default=False)
    details: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    allowed_functions: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    admins: Mapped[list[str]] = mapped_column(default=list)
    subscription: Mapped[str | None] = mapped_column(ID)
    locked_until: Mapped[float] = mapped_column(default=0.0)
    created: Mapped[float]
    last_seen: Mapped[float] = mapped_column(default=0.0)
    report: Mapped[dict[str, Any]] = mapped_column(default=dict)

    @property
    def administrators(self) -> set[str]:
        """The identities that may change it."""
        return {self.owner_id, *self.admins}


class Function(Base):
    """A registered function; `code` is packed, ready to be put in front of the arguments."""

    __tablename__ = "functions"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey(Identity.id), index=True)
    name: Mapped[str] = mapped_column(String(256))
    code: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)
    details: Mapped[dict[str, Any]] = mapped_column("metadata", default=dict)
    public: Mapped[bool] = mapped_column(default=False)
    group_id: Mapped[str | None] = mapped_column(ID)
    ha_endpoint_id: Mapped[str | None] = mapped_column(ID)
    deleted: Mapped[bool] = mapped_column(default=False)
    created: Mapped[float]


class TaskGroup(Base):
    """Tasks that belong together; `queue` says that their results are forwarded to the group's queue."""

    __tablename__ = "task_groups"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    owner_id: Mapped[str] = mapped_column(ForeignKey(Identity.id), index=True)
    queue: Mapped[bool] = mapped_column(default=False)
    created: Mapped[float]


class Task(Base):
    """A task and, once it is there, its result (`data`: the serialized value, or the error's text)."""

    __tablename__ = "tasks"

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    group_id: Mapped[str] = mapped_column(ForeignKey(TaskGroup.id), index=True)
    endpoint_id: Mapped[str] = mapped_column(ID)
    function_id: Mapped[str] = mapped_column(ID)
    owner_id: Mapped[str] = mapped_column(ID)
    high_assurance: Mapped[bool] = mapped_column(default=False)
    created: Mapped[float]
    completed: Mapped[float | None]
    failed: Mapped[bool] = mapped_column(default=False)
    error_code: Mapped[str | None] = mapped_column(String(128))
    data: Mapped[str | None] = mapped_column(Text, deferred=True)
    details: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))

    __table_args__ = (Index("tasks_unfinished", "endpoint_id", "completed"),)


class Cancellation(Base):
    """A task's endpoint was told that somebody (an identity) does not want its result any more."""

    __tablename__ = "cancellations"

    task_id: Mapped[str] = mapped_column(ID, primary_key=True)
    identity_id: Mapped[str] = mapped_column(ID)
    asked: Mapped[float] = mapped_column(index=True)


class Outgoing(Base):
    """A stored task whose publication the broker has not confirmed yet."""

    __tablename__ = "outgoing"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    task_id: Mapped[str] = mapped_column(ForeignKey(Task.id), unique=True)
    endpoint_id: Mapped[str] = mapped_column(ID)
    headers: Mapped[dict[str, Any]]
    body: Mapped[bytes] = mapped_column(LargeBinary)
