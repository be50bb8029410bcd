"""``overair keys``: what ends when, who holds which key, and new keys in the place of old ones."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from overair.cli.listing import for_people, moment, print_rows
from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json

LATE_DAYS = 7

app = typer.Typer(help="Keys, who holds them, and what ends when.", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def keys(context: typer.Context, data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Say what ends when, the soonest first: authorities, certificates, signed metadata, revocation lists."""
    if context.invoked_subcommand is not None:
        return
    with told_plainly():
        found = _all(operator_of(data).client("overair"))
    document = [
        {
            "kind": each["kind"],
            "name": each["name"],
            "what": each["what"],
            "holder": each["holder"],
            "expires": moment(each["expiresAt"]),
            "days_left": each["daysLeft"],
            "alarm_days": each.get("alarmDays"),
            "renews_itself": each["renewsItself"],
            "do": each["todo"],
        }
        for each in found
    ]
    if json:
        print_json({"expiries": document})
        return
    rows = [
        [
            _days(each),
            for_people(each["expires"]),
            each["what"],
            each["holder"],
            "renews itself" if each["renews_itself"] and each["alarm_days"] is None else each["do"],
        ]
        for each in document
    ]
    print_rows(["days left", "ends (UTC)", "what", "held by", "what to do"], rows)


@app.command("list")
def list_keys(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Say which keys there are, who holds each, and which `overair keys rotate` knows by name."""
    with told_plainly():
        found = operator_of(data).client("overair").list_keys()["keys"]
    document = [
        {
            "name": each["keyName"],
            "key_id": each["keyId"],
            "kind": each["keyKind"],
            "holder": each["holder"],
            "created_at": moment(each.get("createdAt")),
            "rotates": each["rotates"],
        }
        for each in found
    ]
    if json:
        print_json({"keys": document})
        return
    rows = [[each["name"], each["kind"], each["holder"], for_people(each["created_at"]), each["key_id"]] for each in document]
    print_rows(["name", "kind", "held by", "made (UTC)", "id"], rows)


@app.command("rotate")
def rotate(
    name: Annotated[str, typer.Argument(help="As `overair keys list` shows it: image-timestamp, device-authority, ….")],
    holder: Annotated[
        str | None, typer.Option(help="Where the new key lies: file:, pkcs11:token=…;object=…, a key service's URI.")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Its kind, where there is a choice: ed25519, rsa-3072, rsa-4096.")] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Put a new key in the place of an old one, which is forgotten. On a token it is made if it isn't there."""
    asked = {word: value for word, value in (("holder", holder), ("keyKind", kind)) if value is not None}
    with told_plainly():
        done = operator_of(data).client("overair").rotate_key(keyName=name, **asked)
    if json:
        print_json(
            {
                "name": done["keyName"],
                "kind": done["keyKind"],
                "holder": done["holder"],
                "in_force": done["inForce"],
                "message": done["message"],
            }
        )
        return
    text = f"{name} has a new key, {done['keyKind']} at {done['holder']}. {done['message']}"
    console.print(text, soft_wrap=True, markup=False)


@app.command("rewrap")
def rewrap(
    key_passphrase_file: Annotated[Path | None, typer.Option(help="What wrapping.key is sealed with, if it is.")] = None,
    new_key_passphrase_file: Annotated[
        Path | None, typer.Option(help="What seals it from now on; as before without it.")
    ] = None,
    database: Annotated[str | None, typer.Option(help="postgresql:// URL in place of SQLite.")] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Change the key that wraps all others, of a server that is stopped. Cut short, the same command goes on."""
    from overair.basics.clock import WallClock
    from overair.basics.ids import RandomIds
    from overair.server.composition.rewrapping import change_wrapping_key
    from overair.server.config import load_settings
    from overair.server.keyring.wrapping import read_passphrase

    flags = {"data": data} if database is None else {"data": data, "database": database}
    count = change_wrapping_key(
        load_settings(flags),
        passphrase=None if key_passphrase_file is None else read_passphrase(key_passphrase_file),
        new_passphrase=None if new_key_passphrase_file is None else read_passphrase(new_key_passphrase_file),
        clock=WallClock(),
        ids=RandomIds(),
    )
    if json:
        print_json({"sealed_anew": count})
        return
    console.print(f"{count} secrets are sealed by a new wrapping key. Back it up; the former one opens older backups only.")


def _all(overair: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    token: dict[str, str] = {}
    while True:
        page = overair.list_expiries(**token)
        found += page["expiries"]
        if "nextToken" not in page:
            return found
        token = {"nextToken": page["nextToken"]}


def _days(each: dict[str, Any]) -> Text:
    if each["alarm_days"] is None:
        return Text(str(each["days_left"]))
    return Text(str(each["days_left"]), "red" if each["days_left"] < LATE_DAYS else "yellow")
