"""Which events an account hears (``iot``'s event configurations). We publish those of jobs."""

from __future__ import annotations

from overair.basics.errors import Unsupported
from overair.basics.work import Work
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.jobs.event_publisher import JobEvents
from overair.server.jobs.model import EventKind


class EventConfigurationOperations:
    """The operator's door to event configurations. ``work`` is the audited one."""

    def __init__(self, *, work: Work, events: JobEvents) -> None:
        self._work = work
        self._events = events

    @operation("iot", "DescribeEventConfigurations")
    async def describe_event_configurations(self, caller: Caller, request: Request) -> Members:
        configured = await self._work.read(lambda tx: self._events.configured(tx, caller.account))
        shown = {kind.value: {"Enabled": kind in configured and configured[kind].enabled} for kind in EventKind}
        return {
            "eventConfigurations": shown,
            "creationDate": min((each.created_at for each in configured.values()), default=None),
            "lastModifiedDate": max((each.last_updated_at for each in configured.values()), default=None),
        }

    @operation("iot", "UpdateEventConfigurations")
    async def update_event_configurations(self, caller: Caller, request: Request) -> Members:
        wanted: dict[EventKind, bool] = {}
        for name, configuration in (request.get("eventConfigurations") or {}).items():
            enabled = bool(configuration.get("Enabled", False))
            if name in EventKind.__members__:
                wanted[EventKind(name)] = enabled
            elif enabled:
                raise Unsupported(
                    f"Events of kind {name} are not published by this version of Overair: only JOB and JOB_EXECUTION are.",
                    subject="event-type",
                )
        await self._work.run(lambda tx: self._events.configure(tx, caller.account, wanted))
        return {}
