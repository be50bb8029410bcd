"""``overair ship``: upload, sign, create, follow; one job, whatever kinds of device it is for."""

from __future__ import annotations

import json as json_text
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from overair.cli.audience import Audience, targets_of
from overair.cli.canary import Canary, open_first_stage, read_canary, run_stages
from overair.cli.ecu_bundle import Part, parts_of, read_bundle
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.image_side import NeedsSignature, bring_in
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.pace import Pace, read_pace
from overair.cli.parcel import Parcel, read_parcel
from overair.cli.uptane_rest import LeftOut, UptaneRest
from overair.cli.watch import Timeout, executions, follow, report

FIRMWARE_FILE_TYPE = 0
PLAIN_FILE_TYPE = 1
"""Any type but 0 is stored by the agent, not booted (wire reference §7.3)."""

CREATION_TIMEOUT_S = 120.0


def send(
    operator: Operator,
    parcel: Parcel,
    *,
    targets: list[str],
    profile: str,
    multi_target_update: str | None = None,
    pace: Pace | None = None,
    continuous: bool = False,
) -> str:
    """Upload the file, have it signed, create the update; the update's id. Things with ECUs get the multi-target update."""
    name = parcel.image.name if parcel.image else parcel.path.name
    key = f"images/{name}/{parcel.version or parcel.sha256[:12]}/{parcel.path.name}"
    with parcel.path.open("rb") as file:
        uploaded = operator.client("s3").put_object(Bucket=operator.endpoints.bucket, Key=key, Body=file)
    update = _new_id(parcel.version or parcel.sha256[:8])
    settings: dict[str, Any] = {}
    if multi_target_update is not None:
        settings["additionalParameters"] = {"uptaneMultiTargetUpdate": multi_target_update}
    if pace is not None and pace.rollout is not None:
        settings["awsJobExecutionsRolloutConfig"] = pace.rollout
    if pace is not None and pace.abort is not None:
        settings["awsJobAbortConfig"] = {"abortCriteriaList": pace.abort}
    if continuous:
        settings["targetSelection"] = "CONTINUOUS"
    operator.client("iot").create_ota_update(
        otaUpdateId=update,
        description=f"{parcel.path.name} {parcel.version}".strip(),
        targets=targets,
        files=[
            {
                "fileName": parcel.stored_as or parcel.path.name,
                "fileType": PLAIN_FILE_TYPE if parcel.stored_as else FIRMWARE_FILE_TYPE,
                "fileVersion": parcel.version or parcel.sha256[:12],
                "fileLocation": {
                    "s3Location": {"bucket": operator.endpoints.bucket, "key": key, "version": uploaded["VersionId"]}
                },
                "codeSigning": {
                    "startSigningJobParameter": {
                        "signingProfileName": profile,
                        "destination": {"s3Destination": {"bucket": operator.endpoints.bucket, "prefix": "SignedImages/"}},
                    }
                },
            }
        ],
        roleArn=operator.endpoints.ota_role_arn,
        **settings,
    )
    return update


def create_director_job(
    operator: Operator, update: str, parts: Sequence[Part], *, targets: list[str], pace: Pace, continuous: bool = False
) -> str:
    """A job for things with ECUs alone: no file for anybody else stands in its document."""
    job = _new_id(next((part.version for part in parts if part.version), update[:8]))
    settings: dict[str, Any] = {}
    if pace.rollout is not None:
        settings["jobExecutionsRolloutConfig"] = pace.rollout
    if pace.abort is not None:
        settings["abortConfig"] = {"criteriaList": pace.abort}
    operator.client("iot").create_job(
        jobId=job,
        description=", ".join(dict.fromkeys(part.target for part in parts))[:2028],
        targets=targets,
        document=json_text.dumps({"uptane": {"multiTargetUpdate": update}}),
        targetSelection="CONTINUOUS" if continuous else "SNAPSHOT",
        **settings,
    )
    return job


def _new_id(of: str) -> str:
    return f"ship-{re.sub('[^A-Za-z0-9_-]', '_', of)[:32]}-{secrets.token_hex(4)}"


def wait_until_created(operator: Operator, update: str) -> str:
    """The job of an update, once the update is whole.

    Raises:
        CommandEnded: REFUSED with the reason kept in errorInfo; TIMED_OUT.
    """
    iot = operator.client("iot")
    deadline = time.monotonic() + CREATION_TIMEOUT_S
    while time.monotonic() < deadline:
        info = iot.get_ota_update(otaUpdateId=update)["otaUpdateInfo"]
        if info["otaUpdateStatus"] == "CREATE_COMPLETE":
            return str(info["awsIotJobId"])
        if info["otaUpdateStatus"] == "CREATE_FAILED":
            reason = info.get("errorInfo", {})
            raise CommandEnded(ExitCode.REFUSED, f"{update} was not created ({reason.get('code')}): {reason.get('message')}")
        time.sleep(0.1)  # GetOTAUpdate is the only way to learn it (wire reference §1.1, step 8)
    raise CommandEnded(ExitCode.TIMED_OUT, f"{update} is still being created after {CREATION_TIMEOUT_S:g} s.")


def ship(
    to: Annotated[str, typer.Option(help="THING, group:NAME or all.")],
    image: Annotated[
        Path | None, typer.Argument(help="The image, or any file with --as. With --bundle: what things without ECUs get.")
    ] = None,
    version: Annotated[
        str | None, typer.Option(help="Refuse unless the image says this version; the version of a file that says none.")
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Signing profile. [default: the server's own]")] = None,
    stored_as: Annotated[
        str | None, typer.Option("--as", help="Path on the device: verified and stored there, no restart.")
    ] = None,
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
    shipment = shipment_of(image, bundle, hardware_ids or [], version=version, stored_as=stored_as, name=name)
    pace = read_pace(rate, abort_on_failures)
    canary = None if stages is None else read_canary(stages, pace.abort_percent)
    with told_plainly():
        operator = operator_of(data)
        rest = UptaneRest(operator)
        audience = audience_of(operator, rest, to, shipment, dry_run=dry_run)
        profile_name = profile or operator.endpoints.signing_profile
        facts = _facts(operator, shipment, audience, profile_name)
        if canary is not None:
            facts["canary"] = {"stages": list(canary.stages), "things": canary.sizes(len(audience.things))}
            group = _new_id("canary").removeprefix("ship-")
        if dry_run:
            _tell_dry_run(facts, shipment, audience, as_json=json)
            return
        try:
            if canary is None:
                sent = dispatch(operator, rest, shipment, audience, profile=profile_name, pace=pace)
            else:
                sent = _dispatch_canary(operator, rest, shipment, audience, canary, group, to, profile=profile_name, pace=pace)
        except NeedsSignature as waits:
            if json:
                print_json({**facts, "needs_signature": waits.to_json()})
            raise CommandEnded(ExitCode.REFUSED, waits.in_words()) from None
        if canary is not None:
            rollout, left_out = run_stages(operator, sent.job, group, canary, audience.things, timeout_s=timeout, quiet=json)
            followed = executions(operator, sent.job)
            report(sent.job, followed, as_json=json, left_out=left_out, rollout=rollout)
            return
        if not watch:
            _tell_shipped(facts, sent, as_json=json)
            return
        followed = follow(operator, sent.job, timeout_s=timeout, quiet=json)
        left_out = rest.left_out(sent.job) if sent.multi_target_update is not None else ()
    report(sent.job, followed, as_json=json, left_out=left_out)


# What is shipped, and to whom -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """What things without ECUs get, and what ECUs get."""

    parcel: Parcel | None
    parts: tuple[Part, ...]


def shipment_of(
    image: Path | None,
    bundle: Path | None,
    hardware_ids: Sequence[str],
    *,
    version: str | None = None,
    stored_as: str | None = None,
    name: str | None = None,
) -> Shipment:
    if bundle is not None and (hardware_ids or name is not None):
        raise CommandEnded(ExitCode.USAGE, "A bundle says by itself which hardware gets what, and what it is called.")
    if image is None and bundle is None:
        raise CommandEnded(ExitCode.USAGE, "Name an image, or a --bundle.")
    parcel = None if image is None else read_parcel(image, version=version, stored_as=stored_as)
    if bundle is not None:
        return Shipment(parcel=parcel, parts=read_bundle(bundle))
    assert parcel is not None
    if not hardware_ids:
        return Shipment(parcel=parcel, parts=())
    return Shipment(parcel=parcel, parts=parts_of(parcel, hardware_ids, name=name, version=version))


def audience_of(operator: Operator, rest: UptaneRest, to: str, shipment: Shipment, *, dry_run: bool = False) -> Audience:
    targets, things = targets_of(operator, to, dry_run=dry_run)
    if not things:
        raise CommandEnded(ExitCode.REFUSED, f"{to} names no thing yet: there is nobody to ship to.")
    registered = rest.registered() if shipment.parts else frozenset()
    audience = Audience(targets=targets, things=things, uptane=[thing for thing in things if thing in registered])
    if shipment.parcel is None and not audience.uptane:
        raise CommandEnded(
            ExitCode.REFUSED,
            f"None of the {len(things)} thing(s) of {to} has registered ECUs, and without an IMAGE there is nothing for them.",
        )
    return audience


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """What is on its way."""

    name: str
    """Of the OTA update, or of the job where there is none."""
    job: str
    multi_target_update: str | None
    left_out: tuple[LeftOut, ...]
    """Whom the update wouldn't reach, asked before it went."""


def dispatch(
    operator: Operator,
    rest: UptaneRest,
    shipment: Shipment,
    audience: Audience,
    *,
    profile: str,
    pace: Pace,
    continuous: bool = False,
) -> Dispatched:
    """One job for everybody, each on its own road.

    Raises:
        NeedsSignature: the Image repository's targets keys are offline; nothing is on its way.
        CommandEnded: REFUSED, and nothing is on its way.
    """
    update, left_out = _prepare(rest, shipment, audience)
    if shipment.parcel is not None and (audience.others or update is None):
        name = send(
            operator,
            shipment.parcel,
            targets=audience.targets,
            profile=profile,
            multi_target_update=update,
            pace=pace,
            continuous=continuous,
        )
        job = wait_until_created(operator, name)
    else:
        assert update is not None
        name = job = create_director_job(
            operator, update, shipment.parts, targets=audience.targets, pace=pace, continuous=continuous
        )
    return Dispatched(name=name, job=job, multi_target_update=update, left_out=left_out)


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
        )
    except BaseException:
        operator.client("iot").delete_thing_group(thingGroupName=group)
        raise


def _prepare(rest: UptaneRest, shipment: Shipment, audience: Audience) -> tuple[str | None, tuple[LeftOut, ...]]:
    """The multi-target update, where somebody has ECUs, and whom it doesn't reach. Nothing is on its way yet.

    Raises:
        NeedsSignature: the Image repository's targets keys are offline.
        CommandEnded: REFUSED where nobody would get anything.
    """
    if not audience.uptane:
        return None, ()
    update = rest.create_update(bring_in(rest, shipment.parts))
    preview = rest.preview(update, audience.uptane)
    if not preview.affected and (shipment.parcel is None or not audience.others):
        reasons = "".join(f"\n  {each.thing}: {each.reason}" for each in preview.left_out)
        raise CommandEnded(ExitCode.REFUSED, f"Nobody would get it; nothing was shipped.{reasons}")
    return update, preview.left_out


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
        "signing_profile": profile,
        "signer_testing_only": signer_is_for_testing_only(operator, profile),
    }
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
        console.print(f"  signed   by profile {facts['signing_profile']}{testing_only}")
    else:
        console.print("Would ship a bundle to Uptane devices alone:")
    for part in shipment.parts:
        source = "is in the Image repository" if part.parcel is None else f"{part.parcel.size_bytes:,} bytes"
        console.print(f"  ECUs of {part.hardware_id} get {part.target} ({source})", soft_wrap=True)
    if "canary" in facts:
        told = ", ".join(f"{size:,}" for size in facts["canary"]["things"])
        console.print(f"  stages   {told} devices, each after the one before has gone well")
    things = audience.things
    console.print(f"  to       {len(things)} thing(s): {', '.join(things[:10])}{' …' if len(things) > 10 else ''}")
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
    console.print(f"{sent.name} is on its way to {reached} thing(s); follow it with: overair watch {sent.name}")
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
