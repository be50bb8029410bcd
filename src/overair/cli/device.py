"""``overair device``: bring devices into the registry."""

from __future__ import annotations

import json as json_text
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory, DeviceSettings, create_device_directory
from overair.agent.durable import Disk
from overair.agent.uptane.identity import signing_request
from overair.cli.c_headers import KEYS_HEADER, CIdentity, headers_for
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json

HARDWARE_ID_DEFAULT = "posix"
DEVICE_POLICY = "overair-device"
"""One policy for every enrolled device: its variables narrow it to the topics and the jobs of the thing that comes."""
HTTPS_JOBS_ACTIONS = ("GetPendingJobExecutions", "StartNextPendingJobExecution", "DescribeJobExecution", "UpdateJobExecution")

RENEWAL_ACTIONS = ("overair:DeviceRenewCertificate", "overair:DeviceGetCaCertificates")

_THING = "${iot:Connection.Thing.ThingName}"
ENROLLED_AT_ONCE_MAX = 100_000
ENROLLING_THREADS = 8

app = typer.Typer(help="Bring devices into the registry.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def device() -> None:
    """Bring devices into the registry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """A device that may connect."""

    thing: str
    thing_arn: str
    certificate_id: str
    directory: Path
    groups: tuple[str, ...]
    headers: tuple[str, ...] = ()
    """C headers that were written in place of a device directory."""


def own_topics_policy(region: str, account: str) -> dict[str, Any]:
    """Connect under its own name; publish, receive and subscribe below its own jobs and streams; nothing else."""
    arn = f"arn:aws:iot:{region}:{account}"
    own = f"$aws/things/{_THING}"
    rooms = ("jobs", "streams")
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": "iot:Connect",
                "Resource": f"{arn}:client/{_THING}",
            },
            {
                "Effect": "Allow",
                "Action": ["iot:Publish", "iot:Receive"],
                "Resource": [f"{arn}:topic/{own}/{room}/*" for room in rooms],
            },
            {
                "Effect": "Allow",
                "Action": "iot:Subscribe",
                "Resource": [f"{arn}:topicfilter/{own}/{room}/*" for room in rooms],
            },
        ],
    }


def topics_and_jobs_policy(region: str, account: str) -> dict[str, Any]:
    """Its own topics, and the jobs of its own thing over HTTPS, where the variable has a value because the certificate is the
    thing's exclusively."""
    document = own_topics_policy(region, account)
    jobs = {
        "Effect": "Allow",
        "Action": [f"iot:{name}" for name in HTTPS_JOBS_ACTIONS],
        "Resource": f"arn:aws:iot:{region}:{account}:thing/{_THING}",
    }
    return document | {"Statement": [*document["Statement"], jobs]}


def device_policy(region: str, account: str) -> dict[str, Any]:
    """The same, and the renewal of its own certificate."""
    document = topics_and_jobs_policy(region, account)
    renewal = {
        "Effect": "Allow",
        "Action": list(RENEWAL_ACTIONS),
        "Resource": f"arn:aws:iot:{region}:{account}:thing/{_THING}",
    }
    return document | {"Statement": [*document["Statement"], renewal]}


class Platform(StrEnum):
    """What a device's identity is written for."""

    POSIX = "posix"
    FREERTOS = "freertos"


def enroll_device(
    operator: Operator,
    name: str,
    out: Path,
    *,
    group: str | None = None,
    hardware_id: str = HARDWARE_ID_DEFAULT,
    platform: Platform = Platform.POSIX,
) -> Enrolled:
    """Make the thing, its certificate and its directory, or its C headers. The private key is made here and never travels.

    Raises:
        CommandEnded: USAGE when ``out`` already holds a device or a name breaks its rule.
    """
    if holds_a_device(out):
        raise CommandEnded(ExitCode.USAGE, f"{out} already holds a device. Choose another directory for --out.")
    try:
        # Before the server makes anything: a device whose directory can't be written would be registered for nobody.
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{out} can't be made: {error.strerror}.") from error
    try:
        return _enroll(operator, name, out, group=group, hardware_id=hardware_id, platform=platform)
    except Exception:
        if not any(out.iterdir()):
            out.rmdir()
        raise


def holds_a_device(out: Path) -> bool:
    """Whether a folder has somebody's identity in it."""
    return any((out / name).exists() for name in ("device.json", KEYS_HEADER))


def _enroll(operator: Operator, name: str, out: Path, *, group: str | None, hardware_id: str, platform: Platform) -> Enrolled:
    iot = operator.client("iot")
    _ensure_policy(operator, iot)
    thing_arn = iot.create_thing(thingName=name)["thingArn"]
    key = ec.generate_private_key(ec.SECP256R1())
    request = signing_request(name[:64], key, serialization.Encoding.PEM)
    issued = iot.create_certificate_from_csr(certificateSigningRequest=request.decode("ascii"), setAsActive=True)
    iot.attach_policy(policyName=DEVICE_POLICY, target=issued["certificateArn"])
    # Exclusively: over HTTPS there is no client id, and a policy's variables mean a certificate's only thing.
    iot.attach_thing_principal(thingName=name, principal=issued["certificateArn"], thingPrincipalType="EXCLUSIVE_THING")
    if group is not None:
        _ensure_group(iot, group)
        iot.add_thing_to_thing_group(thingGroupName=group, thingName=name)
    headers: tuple[str, ...] = ()
    try:
        if platform is Platform.FREERTOS:
            headers = _write_headers(operator, name, out, certificate_pem=issued["certificatePem"], key=key)
        else:
            _write_directory(operator, name, out, hardware_id=hardware_id, certificate_pem=issued["certificatePem"], key=key)
    except (BadDeviceDirectory, OSError, ValueError) as error:
        raise CommandEnded(ExitCode.USAGE, str(error)) from error
    return Enrolled(
        thing=name,
        thing_arn=thing_arn,
        certificate_id=issued["certificateId"],
        directory=out,
        groups=(group,) if group else (),
        headers=headers,
    )


def _write_directory(
    operator: Operator, name: str, out: Path, *, hardware_id: str, certificate_pem: str, key: ec.EllipticCurvePrivateKey
) -> None:
    signer = Path(operator.endpoints.signer_certificate_file)
    create_device_directory(
        out,
        DeviceSettings(
            thing_name=name,
            hardware_id=hardware_id,
            mqtt_host=operator.endpoints.mqtt_host,
            mqtt_port=operator.endpoints.mqtt_port,
        ),
        certificate_pem=certificate_pem.encode(),
        private_key_pem=key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
        ca_pem=Path(operator.endpoints.ca_file).read_bytes(),
        anchors={signer.name: signer.read_bytes()},
    )
    # Where it renews its certificate, and asks whom to trust.
    Disk().write_whole(DeviceDirectory(out).gateway_file, operator.endpoints.device_url.encode() + b"\n", mode=0o644)


def _write_headers(
    operator: Operator, name: str, out: Path, *, certificate_pem: str, key: ec.EllipticCurvePrivateKey
) -> tuple[str, ...]:
    """The header with the key last, and readable by its owner alone: a folder that has it is complete."""
    at = operator.endpoints
    # The older form of PEM for keys: every version of mbed TLS in the field reads it.
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    texts = headers_for(
        CIdentity(
            thing=name,
            endpoint=at.mqtt_host,
            port=at.mqtt_port,
            root_ca_pem=Path(at.ca_file).read_text("ascii"),
            certificate_pem=certificate_pem,
            private_key_pem=key_pem.decode("ascii"),
            signer_pem=Path(at.signer_certificate_file).read_text("ascii"),
        )
    )
    disk = Disk()
    for file in sorted(texts, key=lambda file: file == KEYS_HEADER):
        disk.write_whole(out / file, texts[file].encode("ascii"), mode=0o600 if file == KEYS_HEADER else 0o644)
    return tuple(texts)


def names_of(name: str, count: int) -> list[str]:
    """``NAME``, or for a count above 1 ``NAME-0001`` and so on, so that they sort as they are numbered."""
    if count == 1:
        return [name]
    digits = max(4, len(str(count)))
    return [f"{name}-{number:0{digits}}" for number in range(1, count + 1)]


def _ensure_policy(operator: Operator, iot: Any) -> None:
    """Make the policy; one that an earlier version made gets what it lacked. One that somebody wrote stays as it is."""
    place = operator.endpoints.region, operator.endpoints.account
    document = json_text.dumps(device_policy(*place))
    try:
        iot.create_policy(policyName=DEVICE_POLICY, policyDocument=document)
    except iot.exceptions.ResourceAlreadyExistsException:
        there = json_text.loads(iot.get_policy(policyName=DEVICE_POLICY)["policyDocument"])
        if there in (own_topics_policy(*place), topics_and_jobs_policy(*place)):
            iot.create_policy_version(policyName=DEVICE_POLICY, policyDocument=document, setAsDefault=True)


def _ensure_group(iot: Any, group: str) -> None:
    # An identical repeat succeeds, so there is nothing to look up first (wire reference §10.5).
    try:
        iot.create_thing_group(thingGroupName=group)
    except iot.exceptions.ResourceAlreadyExistsException:
        return


@app.command()
def enroll(
    name: Annotated[str, typer.Argument(help="The thing's name.")],
    out: Annotated[Path, typer.Option(help="The device directory to write.")],
    group: Annotated[str | None, typer.Option(help="A group to put it into; made if it isn't there.")] = None,
    hardware_id: Annotated[str, typer.Option(help="What it accepts images for.")] = HARDWARE_ID_DEFAULT,
    platform: Annotated[
        Platform, typer.Option("--for", help="freertos: C headers for FreeRTOS' demos in place of a device directory.")
    ] = Platform.POSIX,
    count: Annotated[
        int,
        typer.Option(min=1, max=ENROLLED_AT_ONCE_MAX, help="So many: NAME-0001 and on, each in its own directory below --out."),
    ] = 1,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Make a thing, its certificate and a policy for its own topics alone; write the device directory."""
    if count > 1:
        _enroll_many(name, out, count, group=group, hardware_id=hardware_id, platform=platform, data=data, as_json=json)
        return
    with told_plainly():
        enrolled = enroll_device(operator_of(data), name, out, group=group, hardware_id=hardware_id, platform=platform)
    if json:
        print_json(
            {
                "thing": enrolled.thing,
                "thing_arn": enrolled.thing_arn,
                "certificate_id": enrolled.certificate_id,
                "directory": str(enrolled.directory),
                "groups": list(enrolled.groups),
                **({"headers": list(enrolled.headers)} if enrolled.headers else {}),
            }
        )
        return
    if enrolled.headers:
        console.print(f"{name} is enrolled; its identity lies in {out} as C headers.", soft_wrap=True)
        for header in enrolled.headers:
            console.print(f"  {header}{'     # SECRET: has the private key' if header == KEYS_HEADER else ''}")
        return
    console.print(f"{name} is enrolled; its key and certificate lie in {out}.", soft_wrap=True)
    console.print(f"  overair-device flash {out} IMAGE     # the factory's act: its first image", soft_wrap=True)
    console.print(f"  overair-device boot --device {out}", soft_wrap=True)


def _enroll_many(
    name: str,
    out: Path,
    count: int,
    *,
    group: str | None,
    hardware_id: str,
    platform: Platform,
    data: Path,
    as_json: bool,
) -> None:
    """Several at once, since most of each is waiting for disks; the same command again goes on where it was stopped."""
    things = names_of(name, count)
    missing = [thing for thing in things if not holds_a_device(out / thing)]
    made = len(missing)

    def enroll_one(thing: str) -> None:
        enroll_device(operator, thing, out / thing, group=group, hardware_id=hardware_id, platform=platform)

    with told_plainly():
        operator = operator_of(data)
        for thing in missing[:1]:
            enroll_one(thing)  # it makes what all of them share: the policy, the group, the client
        with ThreadPoolExecutor(ENROLLING_THREADS) as threads:
            for _ in threads.map(enroll_one, missing[1:]):
                pass
    if as_json:
        print_json({"things": things, "directory": str(out), "made": made, "groups": [group] if group else []})
        return
    console.print(
        f"{made:,} devices are enrolled, {things[0]} to {things[-1]}; each has a directory below {out}.", soft_wrap=True
    )
    if made < count:
        console.print(f"{count - made:,} of them were there already.")
    if platform is Platform.POSIX:
        console.print(f"  overair-device fleet {out}     # all of them, virtually, in one process", soft_wrap=True)


@app.command()
def policy(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Make the policy that enrolled devices get, where it isn't there: a provisioning template can name it."""
    with told_plainly():
        operator = operator_of(data)
        iot = operator.client("iot")
        _ensure_policy(operator, iot)
        found = iot.get_policy(policyName=DEVICE_POLICY)
    document = json_text.loads(found["policyDocument"])
    if json:
        print_json({"policy": DEVICE_POLICY, "arn": found["policyArn"], "document": document})
        return
    console.print(f"{DEVICE_POLICY} lets a device do this:", soft_wrap=True)
    console.print(json_text.dumps(document, indent=2), markup=False, highlight=False, soft_wrap=True)


@app.command()
def block(
    name: Annotated[str, typer.Argument(help="The thing's name.")],
    reason: Annotated[str, typer.Option(help="Why, for people.")] = "",
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Keep a device out at once, whatever its certificates, until it is unblocked."""
    with told_plainly():
        operator_of(data).client("overair").block_device(thingName=name, reason=reason)
    if json:
        print_json({"thing": name, "blocked": True})
        return
    console.print(f"{name} is kept out.", soft_wrap=True)


@app.command()
def unblock(
    name: Annotated[str, typer.Argument(help="The thing's name.")], data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Let a blocked device in again."""
    with told_plainly():
        told = operator_of(data).client("overair").unblock_device(thingName=name)
    if json:
        print_json({"thing": name, "blocked": False, "was_blocked": told["wasBlocked"]})
        return
    console.print(f"{name} may come in{'' if told['wasBlocked'] else ': it was not blocked'}.", soft_wrap=True)
