"""``overair devices``: which devices came in, when, and by what."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.listing import for_people, moment, print_rows
from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json

LISTED_MAX_DEFAULT = 1_000


def devices(
    origin: Annotated[
        str | None,
        typer.Option(help="Only what came by this, such as credential/ID, template/NAME, registration-task/ID or operator."),
    ] = None,
    template: Annotated[str | None, typer.Option(help="Only what this provisioning template made.")] = None,
    ca: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what a fleet authority or a CA certificate let in.")
    ] = None,
    credential: Annotated[
        str | None, typer.Option(metavar="ID", help="Only what came by a shared credential, or over a claim certificate.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, by name.")] = LISTED_MAX_DEFAULT,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Which devices came in, and by what: a credential, a template, a CA certificate, an operator."""
    given = {"origin": origin, "templateName": template, "authorityId": ca, "credentialId": credential}
    asked = {member: value for member, value in given.items() if value is not None}
    if len(asked) > 1:
        raise CommandEnded(ExitCode.USAGE, "Give one of --origin, --template, --ca and --credential.")
    with told_plainly():
        found = _pages(operator_of(data).client("overair"), asked, limit)
    document = [_shown(each) for each in found]
    if json:
        print_json({"devices": document})
        return
    if not document:
        console.print("No device came in by that.", soft_wrap=True)
        return
    rows = [
        (each["thing"], for_people(each["since"]), each["from"] or "", "blocked" if each["blocked"] else "", each["origin"])
        for each in document
    ]
    print_rows(("thing", "since (UTC)", "from", "", "came by"), rows)


def _pages(overair: Any, asked: Mapping[str, str], limit: int) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    more: dict[str, str] = {}
    while len(found) < limit:
        page = overair.list_provisioned_devices(**asked, **more, maxResults=min(250, limit - len(found)))
        found += page["devices"]
        if not page.get("nextToken"):
            break
        more = {"nextToken": page["nextToken"]}
    return found


def _shown(device: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "thing": device["thingName"],
        "origin": device["origin"],
        "template": device.get("template"),
        "claim": device.get("claim"),
        "certificate_id": device["certificateId"],
        "since": moment(device["createdAt"]),
        "registered_at": moment(device.get("registeredAt")),
        "from": device.get("sourceIp"),
        "blocked": device["blocked"],
    }
