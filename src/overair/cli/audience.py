"""Whom a shipment is for: things, groups, or every thing there is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from overair.cli.operator import Operator

EVERY_THING_GROUP = "overair-all"
"""The static group that ``--to all`` fills and targets: AWS's target list has no word for "every thing"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audience:
    """Whom a shipment is for: targets as AWS names them, and the things that they mean now."""

    targets: list[str]
    things: list[str]
    uptane: list[str]
    """Those with ECUs: the Director brings it to them."""

    @property
    def others(self) -> list[str]:
        ours = set(self.uptane)
        return [thing for thing in self.things if thing not in ours]


def targets_of(operator: Operator, to: str, *, dry_run: bool) -> tuple[list[str], list[str]]:
    """(target ARNs, names of the things they mean now).

    Raises:
        CommandEnded: REFUSED when the thing or group isn't there or is empty.
    """
    iot = operator.client("iot")
    if to == "all":
        things = [thing["thingName"] for page in iot.get_paginator("list_things").paginate() for thing in page["things"]]
        group = f"arn:aws:iot:{operator.endpoints.region}:{operator.endpoints.account}:thinggroup/{EVERY_THING_GROUP}"
        if not dry_run:
            group = _fill_group_of_all(iot, things)
        return [group], things
    if to.startswith("group:"):
        name = to.removeprefix("group:")
        arn = iot.describe_thing_group(thingGroupName=name)["thingGroupArn"]
        pages = iot.get_paginator("list_things_in_thing_group").paginate(thingGroupName=name, recursive=True)
        return [arn], [thing for page in pages for thing in page["things"]]
    return [iot.describe_thing(thingName=to)["thingArn"]], [to]


def _fill_group_of_all(iot: Any, things: list[str]) -> str:
    try:
        arn = str(iot.describe_thing_group(thingGroupName=EVERY_THING_GROUP)["thingGroupArn"])
    except iot.exceptions.ResourceNotFoundException:
        arn = str(iot.create_thing_group(thingGroupName=EVERY_THING_GROUP)["thingGroupArn"])
    pages = iot.get_paginator("list_things_in_thing_group").paginate(thingGroupName=EVERY_THING_GROUP)
    present = {thing for page in pages for thing in page["things"]}
    for thing in things:
        if thing not in present:
            iot.add_thing_to_thing_group(thingGroupName=EVERY_THING_GROUP, thingName=thing)
    return arn
