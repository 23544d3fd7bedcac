"""Failure notices: how the user hears that a user endpoint could not be started.

A notice is a heartbeat in the user endpoint's name, published with the user endpoint's own credentials, whose
`global_state` has the text for the user under `error`.
"""

from __future__ import annotations

import logging

from endpoint.amqp.link import publish_once
from endpoint.errors import EndpointError, Failure
from endpoint.manager.commands import Recipient
from endpoint.wire.codec import encode
from endpoint.wire.messages import StatusReport

log = logging.getLogger(__name__)

HEARTBEAT_PERIOD_S = 3  # soon over: the service need not expect anything more
TIMEOUT_S = 20.0


def notice(endpoint_id: str, failure: Failure) -> bytes:
    """The notice's message body."""
    state = {"error": failure.for_user(), "heartbeat_period": HEARTBEAT_PERIOD_S}
    return encode(StatusReport(endpoint_id=endpoint_id, global_state=state, task_statuses={}))


async def send_notice(recipient: Recipient, failure: Failure) -> bool:
    """Publish a notice; whether the broker has confirmed it. A notice that can't be sent is an admin's log line."""
    fields = {"user_endpoint": recipient.endpoint_id, **failure.fields}
    try:
        body = notice(recipient.endpoint_id, failure)
        await publish_once(recipient.heartbeat, body, timeout=TIMEOUT_S)
    except EndpointError as error:
        log.error("A failure notice could not be sent: %s", error.failure.for_admin(), extra=fields)
        return False
    log.info("Sent a failure notice: %s", failure.for_user(), extra=fields)
    return True
