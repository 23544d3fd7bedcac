"""The link against a real RabbitMQ, through a proxy that can fail."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

import pika
import pytest

from endpoint.amqp.consumer import Delivery
from endpoint.amqp.link import Link, publish_once
from endpoint.amqp.publisher import PublishRefused
from endpoint.errors import AccessRefused, NetworkFailure
from endpoint.wire.queues import PublishTarget, QueueInfo
from tests.support.proxy import Proxy


@pytest.fixture
def queue(broker) -> Iterator[str]:
    """A queue of this test's own, bound to the default exchange by its name."""
    name = f"test-{uuid.uuid4()}"
    with pika.BlockingConnection(pika.URLParameters(broker.amqp_url)) as connection:
        channel = connection.channel()
        channel.queue_declare(name)
        yield name
        channel.queue_delete(name)


@pytest.fixture
def proxy(broker) -> Iterator[Proxy]:
    with Proxy(urlsplit(broker.amqp_url).port) as running:
        yield running


def through(proxy: Proxy, url: str) -> str:
    parts = urlsplit(url)
    login = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{login}@127.0.0.1:{proxy.port}"))


class Inbox:
    """Collects deliveries, and lets a test wait for a number of them."""

    def __init__(self) -> None:
        self.deliveries: asyncio.Queue[Delivery] = asyncio.Queue()

    async def next(self) -> Delivery:
        return await asyncio.wait_for(self.deliveries.get(), 20)


def test_a_message_travels_from_publisher_to_consumer_and_is_settled(broker, queue):
    async def story() -> None:
        inbox = Inbox()
        link = Link("test", broker.amqp_url)
        link.consume(queue, inbox.deliveries.put_nowait, prefetch=1)
        publisher = link.publisher()
        await link.open()
        await publisher.publish(b"hello", exchange="", routing_key=queue, properties={"headers": {"task_uuid": "x"}})
        delivery = await inbox.next()
        assert (delivery.body, delivery.headers["task_uuid"], delivery.redelivered) == (b"hello", "x", False)
        delivery.ack()
        await link.close()

    asyncio.run(story())

    assert messages_in(broker, queue) == 0


def test_prefetch_bounds_what_is_held_without_settling(broker, queue):
    async def story() -> None:
        inbox = Inbox()
        link = Link("test", broker.amqp_url)
        link.consume(queue, inbox.deliveries.put_nowait, prefetch=2)
        publisher = link.publisher()
        await link.open()
        await asyncio.gather(*(publisher.publish(b"%d" % i, exchange="", routing_key=queue) for i in range(5)))
        first, second = await inbox.next(), await inbox.next()
        assert inbox.deliveries.empty()
        first.ack()
        assert (await inbox.next()).body == b"2"
        second.reject(requeue=True)
        assert (await inbox.next()).redelivered
        await link.close()

    asyncio.run(story())


def test_a_cut_connection_comes_back_with_its_consumer_and_its_unconfirmed_messages(broker, queue, proxy):
    async def story() -> None:
        inbox, states = Inbox(), []
        link = Link("test", through(proxy, broker.amqp_url), on_state=lambda up, _reason: states.append(up))
        link.consume(queue, inbox.deliveries.put_nowait, prefetch=1000)
        publisher = link.publisher()
        await link.open()
        confirmed = []
        for number in range(300):
            confirmed.append(publisher.publish(b"%d" % number, exchange="", routing_key=queue))
            if number in (100, 200):
                proxy.cut()
                await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*confirmed), 30)
        seen = set()
        while len(seen) < 300:
            delivery = await inbox.next()
            seen.add(int(delivery.body))
            delivery.ack()
        assert seen == set(range(300))
        assert states[0] is True
        assert False in states
        await link.close()

    asyncio.run(story())


def test_a_delivery_of_a_lost_connection_is_delivered_again_and_its_old_settlement_does_nothing(broker, queue, proxy):
    async def story() -> None:
        inbox = Inbox()
        link = Link("test", through(proxy, broker.amqp_url))
        link.consume(queue, inbox.deliveries.put_nowait, prefetch=1)
        publisher = link.publisher()
        await link.open()
        await publisher.publish(b"once", exchange="", routing_key=queue)
        old = await inbox.next()
        proxy.cut()
        again = await inbox.next()
        old.ack()
        assert (again.body, again.redelivered) == (b"once", True)
        again.ack()
        await link.close()

    asyncio.run(story())

    assert messages_in(broker, queue) == 0


def test_a_message_that_no_queue_takes_is_refused_and_the_link_lives_on(broker, queue):
    async def story() -> None:
        link = Link("test", broker.amqp_url)
        publisher = link.publisher()
        await link.open()
        with pytest.raises(PublishRefused):
            await publisher.publish(b"x", exchange="", routing_key="no-such-queue")
        await publisher.publish(b"y", exchange="", routing_key=queue)
        assert publisher.pending == 0
        await link.close()

    asyncio.run(story())


def test_wrong_credentials_are_an_access_refusal_that_hides_the_password(broker):
    parts = urlsplit(broker.amqp_url)
    wrong = urlunsplit(parts._replace(netloc=f"nobody:s3cret@{parts.hostname}:{parts.port}"))

    with pytest.raises(AccessRefused) as caught:
        asyncio.run(Link("test", wrong, patience_s=1).open())

    assert "credentials" in caught.value.failure.reason
    assert "s3cret" not in caught.value.failure.for_admin()


def test_a_link_that_may_be_refused_once_gives_up_at_the_first_refusal(broker):
    parts = urlsplit(broker.amqp_url)
    wrong = urlunsplit(parts._replace(netloc=f"nobody:s3cret@{parts.hostname}:{parts.port}"))
    started = time.monotonic()

    with pytest.raises(AccessRefused):
        asyncio.run(Link("test", wrong, refusals=1).open())

    assert time.monotonic() - started < 2


def test_a_missing_queue_is_an_access_refusal(broker):
    async def story() -> None:
        link = Link("test", broker.amqp_url, patience_s=1)
        link.consume("no-such-queue", lambda delivery: None)
        await link.open()

    with pytest.raises(AccessRefused, match="no-such-queue"):
        asyncio.run(story())


def test_a_broker_that_is_away_is_a_network_failure_after_the_links_patience():
    with pytest.raises(NetworkFailure):
        asyncio.run(Link("test", "amqp://u:p@127.0.0.1:1/%2F", patience_s=0.5).open())


def test_a_broker_that_comes_late_is_found(broker, queue, proxy):
    async def story() -> None:
        proxy.refuse()
        link = Link("test", through(proxy, broker.amqp_url), patience_s=20)
        publisher = link.publisher()
        asyncio.get_running_loop().call_later(0.5, proxy.accept_again)
        await link.open()
        await publisher.publish(b"late", exchange="", routing_key=queue)
        await link.close()

    asyncio.run(story())

    assert messages_in(broker, queue) == 1


def test_closing_a_link_fails_what_was_not_confirmed(broker, proxy, queue):
    async def story() -> None:
        link = Link("test", through(proxy, broker.amqp_url))
        publisher = link.publisher()
        await link.open()
        proxy.refuse()
        waiting = publisher.publish(b"x", exchange="", routing_key=queue)
        await link.close()
        with pytest.raises(NetworkFailure):
            await waiting

    asyncio.run(story())


def test_one_message_can_be_published_without_a_lasting_link(broker, queue):
    info = QueueInfo(broker.amqp_url, queue, "", PublishTarget("", queue, True, {"delivery_mode": 2, "colour": "red"}))

    asyncio.run(publish_once(info, b"notice"))

    assert messages_in(broker, queue) == 1


def messages_in(broker, queue: str) -> int:
    with pika.BlockingConnection(pika.URLParameters(broker.amqp_url)) as connection:
        return connection.channel().queue_declare(queue, passive=True).method.message_count


def test_a_link_survives_a_cut_at_any_moment_of_its_set_up(broker, queue, proxy):
    async def story(delay_s: float) -> None:
        inbox = Inbox()
        link = Link("test", through(proxy, broker.amqp_url))
        link.consume(queue, inbox.deliveries.put_nowait, prefetch=10)
        publisher = link.publisher()
        before = proxy.accepted
        opening = asyncio.create_task(link.open())
        await asyncio.to_thread(proxy.wait_for_connection, before)
        await asyncio.sleep(delay_s)
        proxy.cut()
        await asyncio.wait_for(opening, 20)
        await asyncio.wait_for(publisher.publish(b"still here", exchange="", routing_key=queue), 20)
        (await inbox.next()).ack()
        await link.close()

    for number in range(40):  # from the greeting to the last role
        asyncio.run(story(number / 2500))
