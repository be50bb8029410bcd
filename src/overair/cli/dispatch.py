"""How a shipment goes on its way: an OTA update over things, a multi-target update over ECUs, and one job over both."""

from __future__ import annotations

import json as json_text
import re
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from overair.cli.audience import Audience
from overair.cli.ecu_bundle import Part
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.image_side import bring_in
from overair.cli.operator import Operator
from overair.cli.pace import Pace
from overair.cli.parcel import Parcel
from overair.cli.shipment import Shipment
from overair.cli.uptane_rest import LeftOut, UptaneRest
from overair.wire.custom_signature import CustomSignature

CREATION_TIMEOUT_S: Final = 120.0


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
    encrypted: Path | None = None,
) -> Dispatched:
    """One job for everybody, each on its own road. ``encrypted``: what is uploaded in place of the parcel.

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
            signature=shipment.signature,
            multi_target_update=update,
            pace=pace,
            continuous=continuous,
            encrypted=encrypted,
        )
        job = wait_until_created(operator, name)
    else:
        assert update is not None
        name = job = create_director_job(
            operator, update, shipment.parts, targets=audience.targets, pace=pace, continuous=continuous
        )
    return Dispatched(name=name, job=job, multi_target_update=update, left_out=left_out)


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


def send(
    operator: Operator,
    parcel: Parcel,
    *,
    targets: list[str],
    profile: str,
    signature: CustomSignature | None = None,
    multi_target_update: str | None = None,
    pace: Pace | None = None,
    continuous: bool = False,
    encrypted: Path | None = None,
) -> str:
    """Upload the file, have it signed unless a signature comes along, create the update; the update's id. Things with ECUs get
    the multi-target update."""
    name = parcel.image.name if parcel.image else parcel.path.name
    body = encrypted or parcel.path
    # Even a digest of what is encrypted would tell which image it is.
    of = parcel.version or (parcel.sha256[:12] if encrypted is None else secrets.token_hex(6))
    key = f"images/{name}/{of}/{body.name}"
    with body.open("rb") as file:
        uploaded = operator.client("s3").put_object(Bucket=operator.endpoints.bucket, Key=key, Body=file)
    update = new_id(of)
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
                "fileType": parcel.file_type,
                "fileVersion": of,
                "fileLocation": {
                    "s3Location": {"bucket": operator.endpoints.bucket, "key": key, "version": uploaded["VersionId"]}
                },
                "codeSigning": _signed_here(operator, profile) if signature is None else signature.to_members(),
            }
        ],
        roleArn=operator.endpoints.ota_role_arn,
        **settings,
    )
    return update


def _signed_here(operator: Operator, profile: str) -> Mapping[str, Any]:
    """By the server, with a profile's certificate."""
    destination = {"s3Destination": {"bucket": operator.endpoints.bucket, "prefix": "SignedImages/"}}
    return {"startSigningJobParameter": {"signingProfileName": profile, "destination": destination}}


def create_director_job(
    operator: Operator, update: str, parts: Sequence[Part], *, targets: list[str], pace: Pace, continuous: bool = False
) -> str:
    """A job for things with ECUs alone: no file for anybody else stands in its document."""
    job = new_id(next((part.version for part in parts if part.version), update[:8]))
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


def new_id(of: str) -> str:
    """A name for an update, a job or a group."""
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
