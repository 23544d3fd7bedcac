from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from endpoint.errors import UnexpectedAnswer
from endpoint.wire.queues import PublishTarget, QueueInfo, Registration, redacted_url

ENDPOINT = "9f4fdd32-66ce-4e0b-b2a2-0f4c7a63f3b0"
URL = "amqps://ep:s%40cret@broker.example.org:5671/a%2Fb?heartbeat=60"
TASK_QUEUE = {"connection_url": URL, "exchange": "tasks", "queue": "ep.tasks"}
PUBLISH = {"exchange": "results", "routing_key": "ep.results", "mandatory": True, "properties": {"delivery_mode": 2}}
RESULT_QUEUE = {"connection_url": URL, "exchange": "results", "queue": "results", "queue_publish_kwargs": PUBLISH}
ANSWER: dict[str, Any] = {
    "endpoint_id": ENDPOINT,
    "task_queue_info": TASK_QUEUE,
    "result_queue_info": RESULT_QUEUE,
    "heartbeat_queue_info": RESULT_QUEUE,
    "command_queue_info": {"connection_url": URL, "queue": "ep.commands"},
}


def test_a_registration_is_read() -> None:
    registration = Registration.parse(ANSWER)
    assert registration.endpoint_id == ENDPOINT
    assert registration.task == QueueInfo(URL, "ep.tasks", "tasks")
    assert registration.result.publish == PublishTarget("results", "ep.results", True, {"delivery_mode": 2})
    assert registration.heartbeat == registration.result
    assert registration.command == QueueInfo(URL, "ep.commands")


def test_a_queue_that_the_service_left_out_is_missed_only_by_who_needs_it() -> None:
    registration = Registration.parse({"endpoint_id": ENDPOINT, "heartbeat_queue_info": RESULT_QUEUE})
    assert registration.command is None
    with pytest.raises(UnexpectedAnswer, match="lacks task_queue_info"):
        _ = registration.task
    with pytest.raises(UnexpectedAnswer, match="lacks result_queue_info"):
        _ = registration.result


def test_the_configured_port_replaces_that_of_every_url() -> None:
    registration = Registration.parse(ANSWER, amqp_port=443)
    for info in registration.queues.values():
        assert info.connection_url == "amqps://ep:s%40cret@broker.example.org:443/a%2Fb?heartbeat=60"


@pytest.mark.parametrize(
    ("url", "changed"),
    [
        ("amqp://h/v", "amqp://h:443/v"),
        ("amqp://u:5672@h:5672/v", "amqp://u:5672@h:443/v"),
        ("amqps://u:p@[::1]/", "amqps://u:p@[::1]:443/"),
    ],
)
def test_a_port_is_put_where_the_port_belongs(url: str, changed: str) -> None:
    assert QueueInfo.parse({"connection_url": url, "queue": "q"}, 443).connection_url == changed


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["endpoint_id"], None, "endpoint_id is not a uuid"),
        (["heartbeat_queue_info"], None, "lacks heartbeat_queue_info"),
        (["task_queue_info"], "x", "task_queue_info .* not an object"),
        (["task_queue_info", "queue"], "", "task_queue_info .* lacks queue"),
        (["task_queue_info", "exchange"], 5, "task_queue_info.exchange .* not a string"),
        (["task_queue_info", "connection_url"], None, "lacks connection_url"),
        (["task_queue_info", "connection_url"], "https://x:secret@y/", "not an amqp or amqps URL"),
        (["task_queue_info", "connection_url"], "amqp://x:secret@y:port/", "not a URL"),
        (["result_queue_info", "queue_publish_kwargs"], None, "result_queue_info .* lacks queue_publish_kwargs"),
        (["result_queue_info", "queue_publish_kwargs"], 3, "queue_publish_kwargs .* not an object"),
        (["result_queue_info", "queue_publish_kwargs", "routing_key"], None, "lacks routing_key"),
        (["result_queue_info", "queue_publish_kwargs", "mandatory"], "yes", "another type"),
    ],
)
def test_a_wrong_answer_is_refused_without_telling_secrets(path: list[str], value: Any, said: str) -> None:
    answer = copy.deepcopy(ANSWER)
    place = answer
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(UnexpectedAnswer, match=said) as refusal:
        Registration.parse(answer)
    assert "secret" not in refusal.value.failure.for_admin()
    assert "s%40cret" not in refusal.value.failure.for_admin()


@pytest.mark.parametrize("answer", [None, [], "x", {}])
def test_an_answer_of_another_kind_is_refused(answer: Any) -> None:
    with pytest.raises(UnexpectedAnswer):
        Registration.parse(answer)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (URL, "amqps://ep:***@broker.example.org:5671/a%2Fb"),
        ("amqp://h", "amqp://h"),
        ("amqp://u:p@[::1]:5672/", "amqp://u:***@[::1]:5672/"),
        ("amqp://u:p@h:port/", "<unreadable URL>"),
        ("secret", "<unreadable URL>"),
    ],
)
def test_a_url_for_the_log_has_no_password(url: str, shown: str) -> None:
    assert redacted_url(url) == shown


def test_a_queue_shows_no_password_when_printed() -> None:
    info = Registration.parse(ANSWER)
    assert "cret" not in repr(info)
    assert pickle.loads(pickle.dumps(info)) == info
