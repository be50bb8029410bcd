"""``overair ship``: upload, sign, create, follow; one job, whatever kinds of device it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from overair.cli.audience import Audience
from overair.cli.canary import Canary, open_first_stage, read_canary, report_end, run_stages
from overair.cli.dispatch import Dispatched, dispatch, new_id
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.image_side import NeedsSignature
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.pace import Pace, read_pace
from overair.cli.recipients import encrypted_for, readers_for
from overair.cli.shipment import Shipment, audience_of, shipment_of
from overair.cli.uptane_rest import UptaneRest
from overair.cli.watch import Timeout, executions, follow, report


def ship(
    to: Annotated[str, typer.Option(help="THING, group:NAME or all.")],
    image: Annotated[
        Path | None, typer.Argument(help="The image, or any file with --as. With --bundle: what things without ECUs get.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Refuse unless the image says this version; the version of a file that says none.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Signing profile. [default: the server's own]")] = None,
    signature: Annotated[
        Path | None, typer.Option("--signature", help="What `overair sign image` wrote: the server signs nothing.")
    ] = None,
    encrypt_to: Annotated[
        list[str] | None,
        typer.Option(
            "--encrypt-to", help="A public key's file, THING or group:NAME: encrypt it before it leaves; may be repeated."
        ),
    ] = None,
    stored_as: Annotated[
        str | None, typer.Option("--as", help="Path on the device: verified and stored there, no restart.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="The file is what `overair sign trust` wrote: whom devices trust from now on.")
    ] = False,
    hardware_ids: Annotated[
        list[str] | None,
        typer.Option("--hardware-id", help="Uptane devices get it too, on ECUs of this kind; may be repeated."),
    ] = None,
    bundle: Annotated[Path | None, typer.Option("--bundle", help="TOML or JSON: for each hardware id its image.")] = None,
    name: Annotated[
        str | None, typer.Option("--name", help="What the software is called. [default: what the image says]")
    ] = None,
    rate: Annotated[str | None, typer.Option("--rate", help="N/min: how many devices get it per minute.")] = None,
    abort_on_failures: Annotated[
        str | None,
        typer.Option("--abort-on-failures", help="P%: cancel once that share has failed; P%/N: not before N have ended."),
    ] = None,
    stages: Annotated[
        str | None,
        typer.Option(
            "--canary", help="1%,10%,100%: in stages, each after the one before has gone well. Follows it to its end."
        ),
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the devices until each is done.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    timeout: Timeout = 3600,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Upload, sign and send an image to devices of both kinds, as one job."""
    if signature is not None and profile is not None:
        raise CommandEnded(ExitCode.USAGE, "--signature or --profile: an image that is signed already is signed by no profile.")
    shipment = shipment_of(
        image,
        bundle,
        hardware_ids or [],
        version=version,
        stored_as=stored_as,
        name=name,
        signature=signature,
        trust=trust,
        encrypt_to=encrypt_to or [],
    )
    pace = read_pace(rate, abort_on_failures)
    canary = None if stages is None else read_canary(stages, pace.abort_percent)
    with told_plainly():
        operator = operator_of(data)
        rest = UptaneRest(operator)
        audience = audience_of(operator, rest, to, shipment, dry_run=dry_run)
        profile_name = profile or operator.endpoints.signing_profile
        facts = _facts(operator, shipment, audience, profile_name)
        readers = readers_for(operator, shipment, audience) if shipment.is_encrypted else None
        if readers is not None:
            facts["encrypted_to"] = list(readers.key_ids)
        if canary is not None:
            facts["canary"] = {"stages": list(canary.stages), "things": canary.sizes(len(audience.things))}
            group = new_id("canary").removeprefix("ship-")
        if dry_run:
            _tell_dry_run(facts, shipment, audience, as_json=json)
            return
        try:
            with encrypted_for(shipment, readers) as encrypted:
                if canary is None:
                    sent = dispatch(operator, rest, shipment, audience, profile=profile_name, pace=pace, encrypted=encrypted)
                else:
                    sent = _dispatch_canary(
                        operator,
                        rest,
                        shipment,
                        audience,
                        canary,
                        group,
                        to,
                        profile=profile_name,
                        pace=pace,
                        encrypted=encrypted,
                    )
        except NeedsSignature as waits:
            if json:
                print_json({**facts, "needs_signature": waits.to_json()})
            raise CommandEnded(ExitCode.REFUSED, waits.in_words()) from None
        if canary is not None:
            end = run_stages(operator, sent.job, group, canary, audience.things, timeout_s=timeout, quiet=json)
            report_end(sent.job, executions(operator, sent.job), end, as_json=json)
            return
        if not watch:
            _tell_shipped(facts, sent, as_json=json)
            return
        followed = follow(operator, sent.job, timeout_s=timeout, quiet=json)
        left_out = rest.left_out(sent.job) if sent.multi_target_update is not None else ()
    report(sent.job, followed, as_json=json, left_out=left_out)


def _dispatch_canary(
    operator: Operator,
    rest: UptaneRest,
    shipment: Shipment,
    audience: Audience,
    canary: Canary,
    group: str,
    to: str,
    *,
    profile: str,
    pace: Pace,
    encrypted: Path | None,
) -> Dispatched:
    """As ``dispatch``, for the first stage alone: the job is for a group that grows.

    Raises:
        NeedsSignature, CommandEnded: as ``dispatch``; the group is gone again.
    """
    first = open_first_stage(operator, canary, group, audience.things, to=to)
    # The server's own rule ends a stage that goes badly early, but not at the first device of many.
    patient = replace(pace, abort_after=max(pace.abort_after, canary.sizes(len(audience.things))[0]))
    try:
        return dispatch(
            operator,
            rest,
            shipment,
            replace(audience, targets=[first]),
            profile=profile,
            pace=patient,
            continuous=True,
            encrypted=encrypted,
        )
    except BaseException:
        operator.client("iot").delete_thing_group(thingGroupName=group)
        raise


# What is told ---------------------------------------------------------------------------------------------------------


def _facts(operator: Operator, shipment: Shipment, audience: Audience, profile: str) -> dict[str, Any]:
    parcel = shipment.parcel
    facts: dict[str, Any] = {
        "image": None if parcel is None else str(parcel.path),
        "version": None if parcel is None else parcel.version or None,
        "size_bytes": None if parcel is None else parcel.size_bytes,
        "sha256": None if parcel is None else parcel.sha256,
        "targets": audience.targets,
        "things": audience.things,
        "signing_profile": profile if shipment.signature is None else None,
        "signer_testing_only": shipment.signature is None and signer_is_for_testing_only(operator, profile),
    }
    if shipment.signature is not None:
        facts["offline_signer"] = shipment.signature.signer.fingerprint
    if shipment.parts:
        facts["uptane_things"] = audience.uptane
        facts["uptane_targets"] = {part.hardware_id: part.target for part in shipment.parts}
    return facts


def _tell_dry_run(facts: Mapping[str, Any], shipment: Shipment, audience: Audience, *, as_json: bool) -> None:
    if as_json:
        print_json({**facts, "dry_run": True})
        return
    testing_only = " (testing only: self-signed)" if facts["signer_testing_only"] else ""
    if shipment.parcel is not None:
        parcel = shipment.parcel
        console.print(f"Would ship {parcel.path} ({parcel.size_bytes:,} bytes, sha256 {parcel.sha256[:16]}…)")
        console.print(f"  version  {parcel.version or 'not told by the file'}")
        away = facts.get("offline_signer")
        signer = f"profile {facts['signing_profile']}{testing_only}" if away is None else f"{away[:16]}…, away from the server"
        console.print(f"  signed   by {signer}")
        for key_id in facts.get("encrypted_to", ()):
            console.print(f"  encrypted to {key_id}", soft_wrap=True)
    else:
        console.print("Would ship a bundle to Uptane devices alone:")
    for part in shipment.parts:
        source = "is in the Image repository" if part.parcel is None else f"{part.parcel.size_bytes:,} bytes"
        console.print(f"  ECUs of {part.hardware_id} get {part.target} ({source})", soft_wrap=True)
    if "canary" in facts:
        told = ", ".join(f"{size:,}" for size in facts["canary"]["things"])
        console.print(f"  stages   {told} devices, each after the one before has gone well")
    things = audience.things
    count = "1 thing" if len(things) == 1 else f"{len(things):,} things"
    console.print(f"  to       {count}: {', '.join(things[:10])}{' …' if len(things) > 10 else ''}", soft_wrap=True)
    if shipment.parts:
        console.print(f"           {len(audience.uptane)} of them by the Director, {len(audience.others)} by a signed document")


def _tell_shipped(facts: Mapping[str, Any], sent: Dispatched, *, as_json: bool) -> None:
    if as_json:
        more: dict[str, Any] = {}
        if "uptane_things" in facts:
            left_out = [each.to_json() for each in sent.left_out]
            more = {"multi_target_update": sent.multi_target_update, "left_out": left_out}
        print_json({**facts, "update": sent.name, "job": sent.job, **more})
        return
    reached = len(facts["things"]) - len(sent.left_out)
    what = "1 thing" if reached == 1 else f"{reached:,} things"
    console.print(f"{sent.name} is on its way to {what}; follow it with: overair watch {sent.name}", soft_wrap=True)
    if facts.get("uptane_things"):
        console.print(f"{len(facts['uptane_things']) - len(sent.left_out)} of them get it from the Uptane Director.")
    elif "uptane_things" in facts:
        console.print("None of them has registered ECUs: nothing was put into the Image repository.")
    for each in sent.left_out:
        console.print(f"left out: {each.thing}: {each.reason}", soft_wrap=True, markup=False)
    if facts["signer_testing_only"] and facts["image"] is not None:
        console.print(f"The signer of {facts['signing_profile']} is self-signed: good for testing only.")


def signer_is_for_testing_only(operator: Operator, profile: str) -> bool:
    """Whether a profile's certificate vouches for itself; the server knows."""
    profiles = operator.client("overair").describe_server()["imageSigning"]["profiles"]
    return any(each["name"] == profile and each["testingOnly"] for each in profiles)
