"""Provisioning: what an endpoint, a manager and a client may do on the broker, and what they may not."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import pika
import pytest
from pika.adapters.blocking_connection import BlockingChannel
from pika.exceptions import (
    ChannelClosedByBroker,
    ConnectionClosedByBroker,
    ProbableAuthenticationError,
    UnroutableError,
)

from endpoint.errors import AccessRefused, ConfigError, NetworkFailure
from endpoint.hub.broker_admin import HEARTBEAT_QUEUE, HEARTBEAT_TTL, RESULT_QUEUE, BrokerAdmin, EndpointQueues

T = TypeVar("T")


@pytest.fixture(scope="module")
def call(broker) -> Callable[[Callable[[BrokerAdmin], Awaitable[T]]], T]:
    """Run something with an administrator of the virtual host `admin-tests`."""

    def run(action: Callable[[BrokerAdmin], Awaitable[T]]) -> T:
        async def with_admin() -> T:
            admin = admin_of(broker)
            try:
                return await action(admin)
            finally:
                await admin.close()

        return asyncio.run(with_admin())

    run(lambda admin: admin.prepare())
    return run


def admin_of(broker, **changed: str) -> BrokerAdmin:
    arguments = {
        "url": broker.management_url,
        "user": broker.user,
        "password": broker.password,
        "amqp_url_base": broker.amqp_base,
        "vhost": "admin-tests",
    }
    return BrokerAdmin(**{**arguments, **changed})


@pytest.fixture
def endpoint_id() -> str:
    return str(uuid.uuid4())


@pytest.fixture
def queues(call, endpoint_id) -> Iterator[EndpointQueues]:
    yield call(lambda admin: admin.provision_endpoint(endpoint_id, with_commands=True))
    call(lambda admin: admin.remove_endpoint(endpoint_id))


@pytest.fixture
def hub_channel(broker, call) -> Iterator[BlockingChannel]:
    async def url(admin: BrokerAdmin) -> str:
        return admin.hub_connection_url()

    with channel_at(call(url)) as channel:
        yield channel


@contextmanager
def channel_at(url: str) -> Iterator[BlockingChannel]:
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        yield connection.channel()
    finally:
        if connection.is_open:
            connection.close()


def refusal(url: str, action: Callable[[BlockingChannel], Any]) -> int:
    """The AMQP status with which the broker refuses `action`."""
    with channel_at(url) as channel, pytest.raises(ChannelClosedByBroker) as refused:
        action(channel)
        channel.basic_qos()  # its answer comes behind a refusal of anything before it
    return refused.value.reply_code


def publish(channel: BlockingChannel, info: dict[str, Any], body: bytes, **changed: str) -> None:
    """As an endpoint publishes: confirmed, with the arguments of its registration answer."""
    arguments = {**info["queue_publish_kwargs"], **changed}
    arguments["properties"] = pika.BasicProperties(**arguments["properties"])
    channel.confirm_delivery()
    channel.basic_publish(body=body, **arguments)


def test_a_heartbeat_queue_of_an_older_version_is_replaced(call, hub_channel):
    hub_channel.queue_delete(HEARTBEAT_QUEUE)
    hub_channel.queue_declare(HEARTBEAT_QUEUE, durable=True, arguments={"x-message-ttl": HEARTBEAT_TTL + 1})

    call(lambda admin: admin.prepare())

    hub_channel.queue_declare(HEARTBEAT_QUEUE, durable=True, arguments={"x-message-ttl": HEARTBEAT_TTL})


def test_an_endpoint_reads_its_tasks_and_publishes_results_as_itself(queues, endpoint_id, hub_channel):
    hub_channel.basic_publish("", queues.task_queue_info["queue"], b"a task")
    tasks = queues.task_queue_info
    with channel_at(tasks["connection_url"]) as channel:
        channel.queue_declare(tasks["queue"], passive=True)
        _, _, body = next(channel.consume(tasks["queue"], exclusive=True, auto_ack=True))
        assert body == b"a task"

    results = queues.result_queue_info
    with channel_at(results["connection_url"]) as channel:
        channel.exchange_declare(results["exchange"], passive=True)
        channel.queue_declare(results["queue"], passive=True)
        publish(channel, results, b"a result")
    publish_heartbeat(queues)

    delivered, _, body = hub_channel.basic_get(RESULT_QUEUE, auto_ack=True)
    assert body == b"a result"
    assert BrokerAdmin.sender_of(None, delivered.routing_key) == endpoint_id
    delivered, properties, body = hub_channel.basic_get(HEARTBEAT_QUEUE, auto_ack=True)
    assert (body, properties.delivery_mode) == (b"alive", 2)
    assert BrokerAdmin.sender_of(None, delivered.routing_key) == endpoint_id


def publish_heartbeat(queues: EndpointQueues) -> None:
    with channel_at(queues.heartbeat_queue_info["connection_url"]) as channel:
        publish(channel, queues.heartbeat_queue_info, b"alive")


def test_a_manager_reads_its_commands(queues, hub_channel):
    info = queues.command_queue_info
    hub_channel.basic_publish("", info["queue"], b"start")
    with channel_at(info["connection_url"]) as channel:
        assert channel.basic_get(info["queue"], auto_ack=True)[2] == b"start"


def test_a_user_endpoint_gets_no_command_queue(call, endpoint_id):
    queues = call(lambda admin: admin.provision_endpoint(endpoint_id, with_commands=False))
    assert queues.command_queue_info is None
    assert refusal(queues.task_queue_info["connection_url"], lambda ch: ch.basic_get(f"commands.{endpoint_id}")) == 404
    call(lambda admin: admin.remove_endpoint(endpoint_id))


def test_an_endpoint_cannot_publish_as_another(queues):
    info = queues.result_queue_info
    other = f"{uuid.uuid4()}.results"
    assert refusal(info["connection_url"], lambda ch: publish(ch, info, b"forged", routing_key=other)) == 403
    assert refusal(info["connection_url"], lambda ch: publish(ch, info, b"forged", routing_key="x.results")) == 403


@pytest.mark.parametrize("exchange", ["", "tasks", "amq.topic", "amq.direct"])
def test_an_endpoint_publishes_to_no_other_exchange(queues, exchange):
    info = queues.result_queue_info
    assert refusal(info["connection_url"], lambda ch: publish(ch, info, b"x", exchange=exchange)) == 403


def test_an_endpoint_reads_no_other_queue(queues, call):
    other = str(uuid.uuid4())
    call(lambda admin: admin.provision_endpoint(other, with_commands=True))
    url = queues.task_queue_info["connection_url"]
    for queue in (f"tasks.{other}", f"commands.{other}", RESULT_QUEUE, HEARTBEAT_QUEUE):
        assert refusal(url, lambda ch, queue=queue: ch.basic_get(queue)) == 403
    call(lambda admin: admin.remove_endpoint(other))


def test_an_endpoint_makes_changes_and_deletes_nothing(queues):
    info = queues.task_queue_info
    url, queue = info["connection_url"], info["queue"]
    attempts: list[Callable[[BlockingChannel], Any]] = [
        lambda ch: ch.queue_declare("mine", durable=True),
        lambda ch: ch.queue_delete(queue),
        lambda ch: ch.queue_bind(queue, "endpoints", "#"),
        lambda ch: ch.exchange_declare("mine"),
        lambda ch: ch.exchange_delete("endpoints"),
    ]
    for attempt in attempts:
        assert refusal(url, attempt) == 403


def test_a_new_registration_changes_the_password_and_leaves_the_open_connection_alone(queues, endpoint_id, call):
    old = queues.task_queue_info
    with channel_at(old["connection_url"]) as channel:
        new = call(lambda admin: admin.provision_endpoint(endpoint_id, with_commands=True)).task_queue_info
        assert (new["queue"], new["exchange"]) == (old["queue"], old["exchange"])
        assert channel.basic_get(old["queue"]) == (None, None, None)
    with channel_at(new["connection_url"]):
        pass
    with pytest.raises(ProbableAuthenticationError):
        pika.BlockingConnection(pika.URLParameters(old["connection_url"]))


def test_a_new_registration_keeps_the_tasks_that_wait(queues, endpoint_id, call, hub_channel):
    hub_channel.basic_publish("", queues.task_queue_info["queue"], b"waits")
    again = call(lambda admin: admin.provision_endpoint(endpoint_id, with_commands=True))
    with channel_at(again.task_queue_info["connection_url"]) as channel:
        assert channel.basic_get(again.task_queue_info["queue"], auto_ack=True)[2] == b"waits"


def test_removing_an_endpoint_ends_its_connection_and_its_queues(queues, endpoint_id, call, hub_channel):
    with channel_at(queues.task_queue_info["connection_url"]) as channel:
        call(lambda admin: admin.remove_endpoint(endpoint_id))
        with pytest.raises(ConnectionClosedByBroker):
            channel.connection.process_data_events(time_limit=5)
    with pytest.raises(ProbableAuthenticationError):
        pika.BlockingConnection(pika.URLParameters(queues.task_queue_info["connection_url"]))
    hub_channel.confirm_delivery()
    with pytest.raises(UnroutableError):
        hub_channel.basic_publish("", f"tasks.{endpoint_id}", b"nobody's", mandatory=True)
    call(lambda admin: admin.remove_endpoint(endpoint_id))


def test_a_disconnected_endpoint_comes_back_with_its_next_registration(queues, endpoint_id, call):
    with channel_at(queues.task_queue_info["connection_url"]) as channel:
        call(lambda admin: admin.disconnect_endpoint(endpoint_id))
        with pytest.raises(ConnectionClosedByBroker):
            channel.connection.process_data_events(time_limit=5)
    again = call(lambda admin: admin.refresh_credentials(endpoint_id, with_commands=True))
    with channel_at(again.command_queue_info["connection_url"]) as channel:
        assert channel.basic_get(again.command_queue_info["queue"]) == (None, None, None)


def test_a_client_reads_the_groups_of_its_own_identity_only(call, hub_channel):
    mine, other, group = str(uuid.uuid4()), str(uuid.uuid4()), str(uuid.uuid4())

    async def provision(admin: BrokerAdmin) -> tuple[str, str, str]:
        url = await admin.provision_group_queue(group, mine)
        await admin.provision_group_queue(group, other)
        again, prefix = await admin.client_credentials(mine)
        return url, again, prefix

    url, again, prefix = call(provision)
    assert url == again, "two executors of one identity must not take each other's password away"
    hub_channel.basic_publish("", f"{prefix}{group}", b"for me")
    with channel_at(url) as channel:
        assert next(channel.consume(f"{prefix}{group}", auto_ack=True))[2] == b"for me"
    assert refusal(url, lambda ch: ch.basic_get(f"groups.{other}.{group}")) == 403
    assert refusal(url, lambda ch: ch.basic_get(RESULT_QUEUE)) == 403
    assert refusal(url, lambda ch: ch.basic_publish("", f"{prefix}{group}", b"to myself")) == 403
    assert refusal(url, lambda ch: ch.queue_declare(f"{prefix}more", durable=True)) == 403
    for identity in (mine, other):
        hub_channel.queue_delete(f"groups.{identity}.{group}")
        call(lambda admin, identity=identity: admin.remove_client(identity))


def test_preparing_again_changes_nothing(call, queues):
    call(lambda admin: admin.prepare())
    publish_heartbeat(queues)


def test_a_wrong_password_is_an_access_refusal(broker):
    with pytest.raises(AccessRefused, match="refuses the user"):
        asyncio.run(admin_of(broker, password="wrong").prepare())


def test_a_management_api_that_is_away_is_a_network_failure(broker):
    with pytest.raises(NetworkFailure, match="management API"):
        asyncio.run(admin_of(broker, url="http://127.0.0.1:1").prepare())


@pytest.mark.parametrize("changed", [{"url": "localhost:15672"}, {"amqp_url_base": "http://localhost"}])
def test_a_url_of_another_kind_is_a_configuration_error(broker, changed):
    with pytest.raises(ConfigError, match="is not a URL that begins with"):
        admin_of(broker, **changed)
