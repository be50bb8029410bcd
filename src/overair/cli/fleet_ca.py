"""``overair fleet-ca``: certificate authorities of your own, whose devices may come in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json

FILE_SIZE_BYTES_MAX = 128 * 1024
LIST_SIZE_BYTES_MAX = 2 * 1024 * 1024

app = typer.Typer(help="Certificate authorities of your own.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def fleet_ca() -> None:
    """Certificate authorities of your own."""


FirstContact = Annotated[str | None, typer.Option(help="allow or deny a device that nobody has seen.")]
Pattern = Annotated[str | None, typer.Option("--device-ids", help="Which ids may come in: a pattern with * and ?.")]
Group = Annotated[list[str] | None, typer.Option(help="A thing group for its devices; may be given several times.")]
ThingType = Annotated[str | None, typer.Option(help="The thing type of its devices.")]
Policy = Annotated[str | None, typer.Option(help="The device policy of its devices.")]
Renewal = Annotated[str | None, typer.Option(help="allow, approve or deny a new key near the end of a certificate.")]
Overlap = Annotated[
    int | None, typer.Option("--overlap-days", min=0, max=3650, help="How long before that end a new key is believed.")
]


@app.command("add")
def add(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="PEM certificates; never keys.")],
    name: Annotated[str, typer.Option(help="For people.")] = "",
    first_contact: FirstContact = None,
    device_ids: Pattern = None,
    group: Group = None,
    thing_type: ThingType = None,
    policy: Policy = None,
    renewal: Renewal = None,
    overlap_days: Overlap = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Trust authorities: their devices come in by the rule that the options say."""
    text = "\n".join(_read(file) for file in files)
    rule = _rule(first_contact, device_ids, group, thing_type, policy, renewal, overlap_days)
    with told_plainly():
        overair = operator_of(data).client("overair")
        made = overair.register_fleet_certificate_authority(certificatePem=text, name=name, rule=rule)["authorities"]
    if json:
        print_json({"authorities": [_shown(each) for each in made]})
        return
    for each in made:
        console.print(f"{each['authorityId']}  {each['subject']} is trusted until {each['notAfter'].date()}.", soft_wrap=True)


@app.command("list")
def list_authorities(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Which authorities are trusted, and by which rule."""
    with told_plainly():
        found = operator_of(data).client("overair").list_fleet_certificate_authorities()["authorities"]
    if json:
        print_json({"authorities": [_shown(each) for each in found]})
        return
    for each in found:
        rule = each["rule"]
        console.print(
            f"{each['authorityId']}  {each['subject']}  {each['devices']} devices; first contact: {rule['firstContact']} "
            f"{rule['deviceIdPattern']}; renewal: {rule['renewal']} within {rule['renewalOverlapDays']} days",
            soft_wrap=True,
        )


@app.command("change")
def change(
    authority: Annotated[str, typer.Argument(metavar="ID", help="The authority's id.")],
    name: Annotated[str | None, typer.Option(help="For people.")] = None,
    first_contact: FirstContact = None,
    device_ids: Pattern = None,
    group: Group = None,
    thing_type: ThingType = None,
    policy: Policy = None,
    renewal: Renewal = None,
    overlap_days: Overlap = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Change an authority's rule; what isn't said stays."""
    request: dict[str, Any] = {"rule": _rule(first_contact, device_ids, group, thing_type, policy, renewal, overlap_days)}
    if name is not None:
        request["name"] = name
    with told_plainly():
        overair = operator_of(data).client("overair")
        changed = overair.update_fleet_certificate_authority(authorityId=authority, **request)["authority"]
    if json:
        print_json(_shown(changed))
        return
    console.print(f"{authority} goes by its new rule.", soft_wrap=True)


@app.command("remove")
def remove(
    authority: Annotated[str, typer.Argument(metavar="ID", help="The authority's id.")],
    keep_devices: Annotated[
        bool, typer.Option("--keep-devices", help="Let the devices that are in go on; only new ones are refused.")
    ] = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Trust an authority no longer; its devices are kept out at once."""
    with told_plainly():
        overair = operator_of(data).client("overair")
        overair.withdraw_fleet_certificate_authority(authorityId=authority, keepDevices=keep_devices)
    if json:
        print_json({"removed": authority, "devices_kept": keep_devices})
        return
    console.print(f"{authority} is trusted no longer{'' if keep_devices else '; its devices are kept out'}.", soft_wrap=True)


@app.command("crl")
def crl(
    authority: Annotated[
        str, typer.Argument(metavar="ID", help="The authority's id, or the certificate id of a CA certificate.")
    ],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="FILE…",
            help="One revocation list as PEM; where an authority below this one signed it, that one's certificate too. "
            "Without a file: which lists are kept.",
        ),
    ] = None,
    refuse_when_stale: Annotated[
        bool, typer.Option("--refuse-when-stale", help="Let no new device in once the next list is overdue.")
    ] = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Hand in an authority's revocation list; registered certificates on it are revoked, and their sessions cut, at once."""
    with told_plainly():
        overair = operator_of(data).client("overair")
        authority = _authority(overair, authority)
        if not files:
            kept = overair.list_fleet_revocation_lists(authorityId=authority)["revocationLists"]
            revoked: list[str] = []
        else:
            text = "\n".join(_read(file, size_bytes_max=LIST_SIZE_BYTES_MAX) for file in files)
            answer = overair.put_fleet_revocation_list(
                authorityId=authority, revocationListPem=text, refuseWhenStale=refuse_when_stale
            )
            kept, revoked = [answer["revocationList"]], answer["revokedCertificateIds"]
    if json:
        print_json({"revocation_lists": [_list_shown(each) for each in kept], "revoked": revoked})
        return
    for each in kept:
        console.print(
            f"{each['issuerId']}  list {each['number']} names {each['entries']} certificates; "
            f"the next one {'was' if each['isStale'] else 'is'} due at {each['nextUpdate'].isoformat()}",
            soft_wrap=True,
        )
    for certificate in revoked:
        console.print(f"{certificate} is revoked.", soft_wrap=True)


@app.command("anomalies")
def anomalies(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Certificates that were refused although a trusted authority stands behind them, newest first."""
    with told_plainly():
        overair = operator_of(data).client("overair")
        found = overair.list_device_anomalies()["anomalies"]
    document = [
        {
            "certificate_id": each["certificateId"],
            "thing": each["thingName"],
            "kind": each["kind"],
            "first_seen_at": each["firstSeenAt"].isoformat(),
            "last_seen_at": each["lastSeenAt"].isoformat(),
            "source_ip": each["sourceIp"],
        }
        for each in found
    ]
    if json:
        print_json({"anomalies": document})
        return
    for each in document:
        console.print(f"{each['certificate_id']}  {each['thing']}: {each['kind']}, from {each['source_ip']}", soft_wrap=True)


@app.command("approve")
def approve(
    certificate: Annotated[str, typer.Argument(metavar="CERTIFICATE", help="The certificate's id, as anomalies shows it.")],
    deactivate_others: Annotated[
        bool, typer.Option("--deactivate-others", help="The device's other certificates open nothing any more.")
    ] = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Let such a certificate in as its device's own."""
    with told_plainly():
        overair = operator_of(data).client("overair")
        told = overair.approve_device_certificate(certificateId=certificate, deactivateOthers=deactivate_others)
    if json:
        print_json({"thing": told["thingName"], "certificate_id": certificate})
        return
    console.print(f"{told['thingName']} may come in with {certificate}.", soft_wrap=True)


def _authority(overair: Any, identity: str) -> str:
    """The authority's id, where its certificate's was given, as AWS's operations name it."""
    found = overair.list_fleet_certificate_authorities()["authorities"]
    return next((str(each["authorityId"]) for each in found if each["fingerprint"] == identity), identity)


@app.command("dismiss")
def dismiss(
    certificate: Annotated[str, typer.Argument(metavar="CERTIFICATE", help="The certificate's id, as anomalies shows it.")],
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Forget such a certificate; if it comes again it is noted again."""
    with told_plainly():
        operator_of(data).client("overair").dismiss_device_anomaly(certificateId=certificate)
    if json:
        print_json({"certificate_id": certificate, "dismissed": True})
        return
    console.print(f"{certificate} is forgotten.", soft_wrap=True)


def _read(file: Path, *, size_bytes_max: int = FILE_SIZE_BYTES_MAX) -> str:
    try:
        with file.open("rb") as opened:
            content = opened.read(size_bytes_max + 1)
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{file} can't be read: {error.strerror}.") from error
    if len(content) > size_bytes_max:
        raise CommandEnded(ExitCode.USAGE, f"{file} is longer than {size_bytes_max} bytes, the most that is read.")
    if b"PRIVATE" in content.upper():
        raise CommandEnded(
            ExitCode.USAGE, f"{file} holds a private key. Nothing was sent: an authority's key stays in your own PKI."
        )
    return content.decode("ascii", "replace")


def _rule(
    first_contact: str | None,
    device_ids: str | None,
    groups: list[str] | None,
    thing_type: str | None,
    policy: str | None,
    renewal: str | None,
    overlap_days: int | None,
) -> dict[str, Any]:
    said = {
        "firstContact": first_contact,
        "deviceIdPattern": device_ids,
        "thingGroupNames": groups or None,
        "thingTypeName": thing_type,
        "policyName": policy,
        "renewal": renewal,
        "renewalOverlapDays": overlap_days,
    }
    return {name: value for name, value in said.items() if value is not None}


def _list_shown(kept: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "issuer_id": kept["issuerId"],
        "number": kept["number"],
        "this_update": kept["thisUpdate"].isoformat(),
        "next_update": kept["nextUpdate"].isoformat(),
        "entries": kept["entries"],
        "is_stale": kept["isStale"],
        "refuse_when_stale": kept["refuseWhenStale"],
    }


def _shown(authority: Mapping[str, Any]) -> dict[str, Any]:
    rule = authority["rule"]
    return {
        "authority_id": authority["authorityId"],
        "name": authority["name"],
        "subject": authority["subject"],
        "not_after": authority["notAfter"].isoformat(),
        "devices": authority["devices"],
        "rule": {
            "first_contact": rule["firstContact"],
            "device_ids": rule["deviceIdPattern"],
            "groups": list(rule.get("thingGroupNames", [])),
            "thing_type": rule.get("thingTypeName"),
            "policy": rule["policyName"],
            "renewal": rule["renewal"],
            "overlap_days": rule["renewalOverlapDays"],
        },
    }
