"""Send every message of one queue back through another: the least that anything between two queues does.

Reads a JSON list from standard input: broker URL, queue to consume, exchange and routing key to publish to.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import pika

PREFETCH = 200  # messages on their way at once, so that the next one is there when one is done


def main() -> None:
    url, source, exchange, target = json.load(sys.stdin)
    channel = pika.BlockingConnection(pika.URLParameters(url)).channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    persistent = pika.BasicProperties(delivery_mode=2)

    def send_back(_channel: Any, method: Any, _properties: Any, body: bytes) -> None:
        channel.basic_publish(exchange, target, body, persistent)
        channel.basic_ack(method.delivery_tag)

    channel.basic_consume(source, send_back)
    channel.start_consuming()


if __name__ == "__main__":
    main()
