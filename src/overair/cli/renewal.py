"""``overair renewal``: which certificates follow which, and what waits for an authority of your own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json

ANSWER_SIZE_BYTES_MAX = 64 * 1024

app = typer.Typer(help="How devices renew their certificates.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def renewal() -> None:
    """How devices renew their certificates."""


@app.command("list")
def list_renewals(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Which certificates have followed others, and when those retire."""
    with told_plainly():
        found = [_renewal_shown(each) for each in _all(data, "list_renewals", "renewals")]
    if json:
        print_json({"renewals": found})
        return
    for each in found:
        things = ", ".join(each["things"]) or "no thing"
        console.print(
            f"{things}: {each['certificate_id'][:16]}… follows {each['replaces'][:16]}…  {each['state']}", soft_wrap=True
        )
        if each["state"] != "done":
            console.print(f"   the older one retires from {each['retires_at']} on, once the newer one was used", soft_wrap=True)


@app.command("rule")
def rule(
    overlap_days: Annotated[
        int | None, typer.Option(min=0, max=3650, help="How long a replaced certificate stays good beside the new one.")
    ] = None,
    relay: Annotated[
        bool | None,
        typer.Option("--relay/--no-relay", help="Have requests wait for your own authority where this server issues nothing."),
    ] = None,
    retry_after: Annotated[
        int | None, typer.Option(min=1, max=604800, help="Seconds after which a device whose request waits asks again.")
    ] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Show or change how devices renew; what isn't said stays."""
    said = {"overlapDays": overlap_days, "relay": relay, "retryAfterSeconds": retry_after}
    changes = {name: value for name, value in said.items() if value is not None}
    with told_plainly():
        overair = operator_of(data).client("overair")
        told = overair.update_renewal_rule(**changes) if changes else overair.describe_renewal_rule()
    shown = {"overlap_days": told["overlapDays"], "relay": told["relay"], "retry_after_s": told["retryAfterSeconds"]}
    if json:
        print_json(shown)
        return
    console.print(f"A replaced certificate stays good for {shown['overlap_days']} days beside the new one.")
    if shown["relay"]:
        console.print(f"Requests wait for your own authority; devices ask again after {shown['retry_after_s']} s.")
    else:
        console.print("What this server doesn't issue itself is refused: renew it where the certificate comes from.")


@app.command("requests")
def requests(
    export: Annotated[Path | None, typer.Option(help="Write each waiting request there, as THING.csr in PEM.")] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Devices' requests that an authority of your own answers."""
    with told_plainly():
        found = _all(data, "list_renewal_requests", "requests")
    files = []
    if export is not None:
        export.mkdir(parents=True, exist_ok=True)
        for each in found:
            if each["state"] == "waiting":
                file = export / f"{each['thingName'].replace(':', '_')}.csr"
                file.write_text(each["certificateSigningRequest"])
                files.append(str(file))
    if json:
        print_json({"requests": [_request_shown(each) for each in found], "files": files})
        return
    for each in found:
        console.print(f"{each['thingName']}  {each['state']} since {each['requestedAt'].isoformat()}", soft_wrap=True)
    if files:
        console.print(f"{len(files)} requests are written to {export}. Answer each with `overair renewal answer THING FILE`.")


@app.command("answer")
def answer(
    thing: Annotated[str, typer.Argument(help="The thing whose request it is.")],
    file: Annotated[Path, typer.Argument(help="The certificate as PEM, then those between it and your root.")],
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Give a device the certificate that your authority has issued; it fetches it when it asks next."""
    try:
        with file.open("rb") as opened:
            content = opened.read(ANSWER_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{file} can't be read: {error.strerror}.") from error
    if len(content) > ANSWER_SIZE_BYTES_MAX:
        raise CommandEnded(ExitCode.USAGE, f"{file} is longer than {ANSWER_SIZE_BYTES_MAX} bytes, the most that is read.")
    if b"PRIVATE" in content.upper():
        raise CommandEnded(ExitCode.USAGE, f"{file} holds a private key. Nothing was sent: keys stay where they are.")
    with told_plainly():
        overair = operator_of(data).client("overair")
        told = overair.answer_renewal_request(thingName=thing, certificatePem=content.decode("ascii", "replace"))
    if json:
        print_json({"thing": thing, "certificate_id": told["certificateId"]})
        return
    console.print(f"{thing} gets {told['certificateId']} when it asks next.", soft_wrap=True)


@app.command("refuse")
def refuse(
    thing: Annotated[str, typer.Argument(help="The thing whose request it is.")],
    reason: Annotated[str, typer.Option(help="Why; the device is told.")] = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Have a device hear that its certificate isn't renewed."""
    with told_plainly():
        operator_of(data).client("overair").refuse_renewal_request(thingName=thing, reason=reason)
    if json:
        print_json({"thing": thing, "refused": True})
        return
    console.print(f"{thing} is refused when it asks next.", soft_wrap=True)


def _all(data: Path, operation: str, member: str) -> list[Mapping[str, Any]]:
    client = operator_of(data).client("overair")
    token: dict[str, str] = {}
    found: list[Mapping[str, Any]] = []
    while True:
        page = getattr(client, operation)(**token)
        found += page[member]
        if not page.get("nextToken"):
            return found
        token = {"nextToken": page["nextToken"]}


def _renewal_shown(each: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "things": list(each["thingNames"]),
        "certificate_id": each["certificateId"],
        "replaces": each["replaces"],
        "state": each["state"],
        **{
            name: each[member].isoformat() if member in each else None
            for name, member in (
                ("renewed_at", "renewedAt"),
                ("first_used_at", "firstUsedAt"),
                ("retires_at", "retiresAt"),
                ("retired_at", "retiredAt"),
            )
        },
    }


def _request_shown(each: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "thing": each["thingName"],
        "certificate_id": each["certificateId"],
        "state": each["state"],
        "requested_at": each["requestedAt"].isoformat(),
        "reason": each["reason"],
    }
