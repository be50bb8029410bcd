"""``overair ship``: upload, sign, create, follow."""

from __future__ import annotations

import hashlib
import io
import secrets
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.watch import Timeout, follow, report
from overair.wire.image import ImageManifest, InvalidImage, read_manifest

EVERY_THING_GROUP = "overair-all"
"""The static group that ``--to all`` fills and targets: AWS's target list has no word for "every thing"."""

FIRMWARE_FILE_TYPE = 0
PLAIN_FILE_TYPE = 1
"""Any type but 0 is stored by the agent, not booted (wire reference §7.3)."""

CREATION_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What is to be shipped."""

    path: Path
    size_bytes: int
    sha256: str
    image: ImageManifest | None
    """What image.json says, or None for a file that isn't an image of ours (any C firmware)."""
    stored_as: str | None

    @property
    def version(self) -> str:
        return str(self.image.version) if self.image else ""


def read_parcel(path: Path, *, version: str | None, stored_as: str | None) -> Parcel:
    """Look at the file before anything leaves this machine.

    Raises:
        CommandEnded: USAGE when the file can't be read, is empty, or says another version than ``--version``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} can't be read: {error.strerror}.") from error
    if not content:
        raise CommandEnded(ExitCode.USAGE, f"{path} is empty; a device drops an update of size 0 without a word.")
    image = None
    if stored_as is None and zipfile.is_zipfile(io.BytesIO(content)):
        try:
            image = read_manifest(io.BytesIO(content))
        except InvalidImage as error:
            raise CommandEnded(ExitCode.USAGE, f"{path} is a zip but no image: {error}") from error
    if image is not None and version is not None and str(image.version) != version:
        raise CommandEnded(
            ExitCode.USAGE,
            f"--version {version} doesn't fit {path}: its image.json says {image.version}. "
            "The running version is told by the image, so build it again or drop --version.",
        )
    return Parcel(
        path=path,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        image=image,
        stored_as=stored_as,
    )


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


def send(operator: Operator, parcel: Parcel, *, targets: list[str], profile: str) -> str:
    """Upload the file, have it signed, create the update; the update's id."""
    name = parcel.image.name if parcel.image else parcel.path.name
    key = f"images/{name}/{parcel.version or parcel.sha256[:12]}/{parcel.path.name}"
    with parcel.path.open("rb") as file:
        uploaded = operator.client("s3").put_object(Bucket=operator.endpoints.bucket, Key=key, Body=file)
    update = f"ship-{parcel.version.replace('.', '_') or parcel.sha256[:8]}-{secrets.token_hex(4)}"
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
    )
    return update


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
    image: Annotated[Path, typer.Argument(help="The image, or any file with --as.")],
    to: Annotated[str, typer.Option(help="THING, group:NAME or all.")],
    version: Annotated[str | None, typer.Option(help="Refuse unless the image says this version.")] = None,
    profile: Annotated[str | None, typer.Option(help="Signing profile. [default: the server's own]")] = None,
    stored_as: Annotated[
        str | None, typer.Option("--as", help="Path on the device: verified and stored there, no restart.")
    ] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Follow the devices until each is done.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen; change nothing.")] = False,
    timeout: Timeout = 3600,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Upload, sign and send an image to devices."""
    parcel = read_parcel(image, version=version, stored_as=stored_as)
    with told_plainly():
        operator = operator_of(data)
        targets, things = targets_of(operator, to, dry_run=dry_run)
        if not things:
            raise CommandEnded(ExitCode.REFUSED, f"{to} names no thing yet: there is nobody to ship to.")
        profile_name = profile or operator.endpoints.signing_profile
        testing_only = signer_is_for_testing_only(operator, profile_name)
        facts = {
            "image": str(image),
            "version": parcel.version or None,
            "size_bytes": parcel.size_bytes,
            "sha256": parcel.sha256,
            "targets": targets,
            "things": things,
            "signing_profile": profile_name,
            "signer_testing_only": testing_only,
        }
        if dry_run:
            if json:
                print_json({**facts, "dry_run": True})
            else:
                console.print(f"Would ship {image} ({parcel.size_bytes:,} bytes, sha256 {parcel.sha256[:16]}…)")
                console.print(f"  version  {parcel.version or 'not told by the file'}")
                console.print(f"  signed   by profile {profile_name}{' (testing only: self-signed)' if testing_only else ''}")
                console.print(f"  to       {len(things)} thing(s): {', '.join(things[:10])}{' …' if len(things) > 10 else ''}")
            return
        update = send(operator, parcel, targets=targets, profile=profile_name)
        job = wait_until_created(operator, update)
        if not watch:
            if json:
                print_json({**facts, "update": update, "job": job})
            else:
                console.print(f"{update} is on its way to {len(things)} thing(s); follow it with: overair watch {update}")
                if testing_only:
                    console.print(f"The signer of {profile_name} is self-signed: good for testing only.")
            return
        followed = follow(operator, job, timeout_s=timeout, quiet=json)
    report(job, followed, as_json=json)


def signer_is_for_testing_only(operator: Operator, profile: str) -> bool:
    """Whether a profile's certificate vouches for itself; the server knows."""
    profiles = operator.client("overair").describe_server()["imageSigning"]["profiles"]
    return any(each["name"] == profile and each["testingOnly"] for each in profiles)
