"""``overair credentials``: bundles for devices, operators and signers."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from overair.basics.clock import WallClock
from overair.basics.ids import RandomIds
from overair.cli import bundles, claims
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json

app = typer.Typer(help="Bundles for devices, operators and signers.", no_args_is_help=True, rich_markup_mode=None)

KEY_TYPES: Final = ("EC_P256", "RSA_2048")
ACCESS_DAYS_DEFAULT: Final = 365

Out = Annotated[Path, typer.Option(help="The file to write; mode 0600.")]
Name = Annotated[str, typer.Option(help="For people: which line, which person.")]
AccessDays = Annotated[int, typer.Option("--expires-days", min=1, max=3650, help="How long the bundle is good.")]
TakesOffline = Annotated[
    bool, typer.Option("--may-take-offline", help="May have the server's role keys sign, handed out and deleted, too.")
]


@app.callback()
def credentials() -> None:
    """Bundles for devices, operators and signers."""


@app.command("device")
def device(
    out: Out,
    name: Name = "",
    uses: Annotated[int | None, typer.Option(min=1, help="How many devices it may make; without it, any number.")] = None,
    expires_days: Annotated[int, typer.Option(min=1, max=3650, help="How long it is good.")] = 90,
    key_type: Annotated[str, typer.Option(help=f"The key that devices get: {' or '.join(KEY_TYPES)}.")] = KEY_TYPES[0],
    certificate_days: Annotated[
        int, typer.Option(min=1, max=36500, help="How long a device's certificate lasts at most.")
    ] = 3650,
    per_minute: Annotated[int, typer.Option(min=1, max=60000, help="How many times a minute it may ask.")] = 600,
    policy: Annotated[str | None, typer.Option(help="The device policy that devices get.")] = None,
    combined: Annotated[
        bool, typer.Option("--combined", help="Put an operator's and a signer's key in, as OTA Connect's zip has them.")
    ] = False,
    may_take_offline: TakesOffline = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Make a shared provisioning credential: credentials.zip for devices to come in with."""
    if key_type not in KEY_TYPES:
        raise CommandEnded(ExitCode.USAGE, f"--key-type is {' or '.join(KEY_TYPES)}.")
    asked = {
        "name": name,
        "usesMax": uses,
        "expiresDays": expires_days,
        "deviceKeyType": key_type,
        "certificateDaysMax": certificate_days,
        "devicesPerMinute": per_minute,
        "policyName": policy,
    }
    with told_plainly(), bundles.new_file(out), ExitStack() as undone:
        operator = operator_of(data)
        overair = operator.client("overair")
        made = overair.create_provisioning_credential(**{key: value for key, value in asked.items() if value is not None})
        credential = made["credential"]
        undone.callback(overair.revoke_provisioning_credential, credentialId=credential["credentialId"])
        entries = bundles.device_entries(made) | bundles.root_entries(operator, clock=WallClock())
        user = None
        if combined:
            user = _make_user(operator, "combined", _signs(may_take_offline) + bundles.OPERATES, expires_days)
            undone.callback(bundles.drop_user, operator, user.name)
            entries = bundles.access_entries(operator, user) | entries
        bundles.write_zip(out, entries)
        undone.pop_all()
    document = {
        "file": str(out),
        "entries": sorted(entries),
        "credential_id": credential["credentialId"],
        "name": credential["name"],
        "expires_at": credential["expiresAt"].isoformat(),
        "uses_max": credential.get("usesMax"),
        "device_key_type": credential["deviceKeyType"],
        "user": None if user is None else user.name,
    }
    if json:
        print_json(document)
        return
    console.print(
        f"{out} lets devices in until {document['expires_at']}: credential {document['credential_id']}.", soft_wrap=True
    )
    console.print("  Whoever has the file can make devices: keep it off images that others can read.", soft_wrap=True)
    if user is not None:
        console.print(
            f"  It holds the right of {user.name} to operate and to sign, too: use it with old tools alone.", soft_wrap=True
        )


app.command("claim")(claims.claim)


@app.command("operator")
def operator_bundle(
    out: Out,
    name: Name = "operator",
    expires_days: AccessDays = ACCESS_DAYS_DEFAULT,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Make a bundle for OTA Connect's operator tools: a new access key that may assign, campaign and look, nothing else."""
    _access_bundle(out, name, bundles.OPERATES, expires_days, data, json, with_roots=False)


@app.command("signing")
def signing_bundle(
    out: Out,
    name: Name = "signing",
    expires_days: AccessDays = ACCESS_DAYS_DEFAULT,
    may_take_offline: TakesOffline = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Make a bundle for signing tools: a new access key that may upload and publish signed metadata, and the roots."""
    _access_bundle(out, name, _signs(may_take_offline), expires_days, data, json, with_roots=True)


def _access_bundle(
    out: Path, name: str, actions: tuple[str, ...], expires_days: int, data: Path, json: bool, *, with_roots: bool
) -> None:
    with told_plainly(), bundles.new_file(out), ExitStack() as undone:
        operator = operator_of(data)
        user = _make_user(operator, name, actions, expires_days)
        undone.callback(bundles.drop_user, operator, user.name)
        entries = bundles.access_entries(operator, user)
        if with_roots:
            entries |= bundles.root_entries(operator, clock=WallClock())
        bundles.write_zip(out, entries)
        undone.pop_all()
    if json:
        print_json({"file": str(out), "entries": sorted(entries), "user": user.name, "access_key_id": user.key_id})
        return
    console.print(f"{out} is good for {expires_days} days: user {user.name}, access key {user.key_id}.", soft_wrap=True)


@app.command("list")
def list_credentials(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Which credentials and bundles there are."""
    with told_plainly():
        operator = operator_of(data)
        shared = _every(operator.client("overair").list_provisioning_credentials, "credentials")
        users = bundles.list_users(operator)
    document = {
        "credentials": [_shown(each) for each in shared],
        "bundles": [{"user": user["UserName"], "created_at": user["CreateDate"].isoformat()} for user in users],
    }
    if json:
        print_json(document)
        return
    for each in document["credentials"]:
        most = "" if each["uses_max"] is None else f" of {each['uses_max']}"
        console.print(
            f"{each['credential_id']}  {each['state']}  {each['uses']}{most} devices, until {each['expires_at']}  "
            f"{each['name']}",
            soft_wrap=True,
        )
    for user in document["bundles"]:
        console.print(f"{user['user']}  bundle of {user['created_at']}", soft_wrap=True)


@app.command("devices")
def devices(
    credential: Annotated[str, typer.Argument(help="A shared credential's id.")], data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Which devices came from a shared credential."""
    with told_plainly():
        overair = operator_of(data).client("overair")
        found = _every(overair.list_devices_of_credential, "devices", credentialId=credential)
    document = [
        {
            "thing": each["thingName"],
            "certificate_id": each["certificateId"],
            "created_at": each["createdAt"].isoformat(),
            "registered_at": each["registeredAt"].isoformat() if each.get("registeredAt") else None,
            "reissues": each["reissues"],
            "source_ip": each["sourceIp"],
            "blocked": each["blocked"],
        }
        for each in found
    ]
    if json:
        print_json({"devices": document})
        return
    for each in document:
        state = "blocked" if each["blocked"] else "registered" if each["registered_at"] else "not registered yet"
        console.print(f"{each['thing']}  {state}, made {each['created_at']} for {each['source_ip']}", soft_wrap=True)


@app.command("revoke")
def revoke(
    which: Annotated[str, typer.Argument(metavar="ID", help="A shared credential's id, or the user of a bundle.")],
    block_devices: Annotated[
        bool, typer.Option("--block-devices", help="Keep out the devices that came from the shared credential, too.")
    ] = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """End a shared credential or a bundle. Devices that came from it go on, unless they are blocked with it."""
    with told_plainly():
        operator = operator_of(data)
        if any(user["UserName"] == which for user in bundles.list_users(operator)):
            if block_devices:
                raise CommandEnded(
                    ExitCode.USAGE, f"{which} is a bundle without devices: --block-devices is for shared credentials."
                )
            bundles.drop_user(operator, which)
            document: dict[str, Any] = {"revoked": which, "devices_blocked": False}
        else:
            told = operator.client("overair").revoke_provisioning_credential(credentialId=which, blockDevices=block_devices)
            document = {"revoked": which, "devices_blocked": told["credential"]["devicesBlocked"]}
    if json:
        print_json(document)
        return
    blocked = "; its devices are blocked" if document["devices_blocked"] else ""
    console.print(f"{which} opens nothing any more{blocked}.", soft_wrap=True)


@app.command("shared-provisioning")
def shared_provisioning(
    state: Annotated[str, typer.Argument(metavar="on|off", help="Off destroys the keys with which this server makes devices.")],
    yes: Annotated[bool, typer.Option("--yes", help="Destroy the keys without asking.")] = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Say whether this server may make devices. Off is the production level: your own authorities alone."""
    if state not in ("on", "off"):
        raise CommandEnded(ExitCode.USAGE, "Say on or off.")
    if state == "off" and not yes:
        if json:
            raise CommandEnded(ExitCode.USAGE, "Off destroys keys: say --yes where nobody can be asked.")
        typer.confirm("This destroys the keys with which this server makes devices. Go on?", abort=True)
    with told_plainly():
        told = operator_of(data).client("overair").set_shared_provisioning(enabled=state == "on")
    document = {
        "level": told["level"],
        "shared_provisioning": told["sharedProvisioning"],
        "destroyed_keys": [
            {
                "purpose": key["purpose"],
                "created_at": key["createdAt"].isoformat(),
                "destroyed_at": key["destroyedAt"].isoformat(),
            }
            for key in told["destroyedKeys"]
        ],
        "warnings": list(told["warnings"]),
    }
    if json:
        print_json(document)
        return
    console.print(f"Shared provisioning is {state}: {document['level']} level.")
    for warning in document["warnings"]:
        console.print(f"  ! {warning}", soft_wrap=True)


def _make_user(operator: Operator, name: str, actions: tuple[str, ...], expires_days: int) -> bundles.BundleUser:
    return bundles.make_user(operator, name, actions, expires_days=expires_days, clock=WallClock(), ids=RandomIds())


def _signs(may_take_offline: bool) -> tuple[str, ...]:
    return bundles.SIGNS + (bundles.TAKES_OFFLINE if may_take_offline else ())


def _shown(credential: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "credential_id": credential["credentialId"],
        "name": credential["name"],
        "state": credential["state"],
        "uses": credential["uses"],
        "uses_max": credential.get("usesMax"),
        "created_at": credential["createdAt"].isoformat(),
        "expires_at": credential["expiresAt"].isoformat(),
        "devices_blocked": credential["devicesBlocked"],
    }


def _every(call: Any, member: str, **request: Any) -> list[Any]:
    """All pages of a list."""
    found: list[Any] = []
    token: dict[str, str] = {}
    while True:
        answer = call(**request, **token)
        found += answer[member]
        if not answer.get("nextToken"):
            return found
        token = {"nextToken": answer["nextToken"]}
