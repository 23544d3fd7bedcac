"""One hub: its parts, and the order in which they start and stop."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from endpoint.amqp.consumer import Delivery
from endpoint.amqp.link import Link
from endpoint.errors import EndpointError, MalformedMessage
from endpoint.hub.broker_admin import HEARTBEAT_QUEUE, RESULT_QUEUE, BrokerAdmin
from endpoint.hub.cancels import Cancellations
from endpoint.hub.groups import GroupQueues
from endpoint.hub.housekeeping import Housekeeping
from endpoint.hub.intake import Intake
from endpoint.hub.openid import Signer
from endpoint.hub.outbox import Outbox
from endpoint.hub.people import SignIns
from endpoint.hub.presence import Presence
from endpoint.hub.results import Results
from endpoint.hub.revivals import Revivals
from endpoint.hub.settings import HubSettings
from endpoint.hub.starts import Starts
from endpoint.hub.store import Store
from endpoint.wire.codec import decode
from endpoint.wire.messages import StatusReport

log = logging.getLogger(__name__)


@dataclass
class Hub:
    """Everything that a request may need. `open` makes one; `run` keeps it going until it is cancelled."""

    settings: HubSettings
    store: Store
    broker: BrokerAdmin
    link: Link
    presence: Presence
    results: Results
    starts: Starts
    outbox: Outbox
    cancellations: Cancellations
    groups: GroupQueues
    housekeeping: Housekeeping
    revivals: Revivals
    sign_ins: SignIns
    signer: Signer
    _intakes: list[Intake] = field(default_factory=list)
    _work: list[asyncio.Task[None]] = field(default_factory=list)

    @classmethod
    async def open(cls, settings: HubSettings, broker: BrokerAdmin) -> Hub:
        """Open the database and the link, and begin to consume results and heartbeats."""
        await broker.prepare()
        store = await Store.open(settings.database)
        presence = Presence(store, missed=settings.missed_heartbeats, slack_s=settings.heartbeat_slack_s)
        link = Link("hub", broker.hub_connection_url, on_state=lambda up, _reason: presence.listens() if up else None)
        publisher = link.publisher()
        results = Results(store, broker, publisher)
        starts = Starts(settings, broker, presence, publisher)
        hub = cls(
            settings=settings,
            store=store,
            broker=broker,
            link=link,
            presence=presence,
            results=results,
            starts=starts,
            outbox=Outbox(store, broker, publisher, results, patience_s=settings.confirm_wait_s),
            cancellations=Cancellations(store, broker, publisher, patience_s=settings.confirm_wait_s),
            groups=GroupQueues(broker),
            housekeeping=Housekeeping(settings, store, broker, presence=presence, results=results, starts=starts),
            revivals=Revivals(settings, store, presence, starts),
            sign_ins=SignIns(store),
            signer=Signer(),
        )
        hub._consume()
        try:
            await presence.load()
            leftover = await hub.outbox.last_number()
            await link.open()
        except EndpointError:
            await hub.close()
            raise
        hub._work += [asyncio.create_task(intake.run()) for intake in hub._intakes]
        hub._work.append(asyncio.create_task(hub.outbox.replay(leftover), name="replay"))
        hub._work.append(asyncio.create_task(hub.housekeeping.run(), name="housekeeping"))
        hub._work.append(asyncio.create_task(hub.revivals.run(), name="revivals"))
        return hub

    async def lost(self) -> None:
        """Wait until the hub can't go on: raises what has ended its link, or any of its work, for good."""
        await asyncio.gather(self.link.closed(), *map(asyncio.shield, self._work))

    async def close(self) -> None:
        """Stop consuming first, so that nothing new comes; what is unsettled then comes again after the next start."""
        await self.link.close()
        await self.outbox.close()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self.presence.save()
        await self.store.close()

    def _consume(self) -> None:
        results = Intake("Results", self.results.handle)
        heartbeats = Intake("Heartbeats", self._keep_heartbeats)

        def on_heartbeat(delivery: Delivery) -> None:
            self._note_heartbeat(delivery)  # at once: a submission may wait for it
            heartbeats.put(delivery)

        self.link.consume(RESULT_QUEUE, results.put, prefetch=self.settings.prefetch)
        self.link.consume(HEARTBEAT_QUEUE, on_heartbeat, prefetch=self.settings.prefetch)
        self._intakes = [results, heartbeats]

    def _note_heartbeat(self, delivery: Delivery) -> None:
        try:
            report = decode(delivery.body)
        except MalformedMessage as error:
            log.warning("A heartbeat was dropped: %s; it begins with %r", error, error.raw[:64])
            return
        sender = self.broker.sender_of(delivery.routing_key)
        if not isinstance(report, StatusReport) or report.endpoint_id != sender:
            log.warning("A heartbeat of endpoint %s was dropped: it is not a report on that endpoint", sender)
            return
        beat = self.presence.note(report.endpoint_id, report.global_state)
        self.starts.note(report.endpoint_id, beat)
        self.revivals.note(report.endpoint_id)
        if beat.error is not None:
            text = " ".join(beat.error.split())[:2000]  # theirs: no line of it may look like one of ours
            log.warning("Endpoint %s failed: %s", sender, text, extra={"endpoint": sender})

    async def _keep_heartbeats(self, deliveries: list[Delivery]) -> None:
        await self.presence.save()
        for delivery in deliveries:
            delivery.ack()
