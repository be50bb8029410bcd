"""``overair account``: other accounts on the same server, each with a wall around it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from json import dumps as dump
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import typer

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import ACCOUNT_FILE, DATA_DEFAULT, SIGNER_FILE, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json

app = typer.Typer(help="Accounts of the server.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def account() -> None:
    """Accounts of the server."""


@app.command("create")
def create(
    name: Annotated[str, typer.Option(help="For people.")] = "",
    number: Annotated[str | None, typer.Option("--account", help="Twelve digits; chance chooses without.")] = None,
    out: Annotated[Path | None, typer.Option(help="The folder that gets its keys; overair-account-NUMBER without.")] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Make another account with a bucket, a role, a signer and repositories of its own, and keep its root's key in a folder."""
    if out is not None and out.exists():
        raise CommandEnded(ExitCode.USAGE, f"{out} is there already. Choose another name for --out.")
    with _new_folder(Path() if out is None else out.parent) as folder, told_plainly():
        asked = {} if number is None else {"accountId": number}
        made = operator_of(data).client("overair").create_account(name=name, **asked)
        key = {
            "account": made["accountId"],
            "access_key_id": made["accessKeyId"],
            "secret_access_key": made["secretAccessKey"],
            "bucket": made["bucket"],
            "ota_role_arn": made["otaRoleArn"],
            "signing_profile": made["signingProfile"],
        }
        write_private(folder / ACCOUNT_FILE, dump(key, indent=2) + "\n")
        (folder / SIGNER_FILE).write_text(made["signerCertificatePem"])
        place = out or Path(f"overair-account-{made['accountId']}")
        folder.rename(place)
    if json:
        told = {name: value for name, value in key.items() if name != "secret_access_key"}
        print_json({**told, "directory": str(place)})
        return
    console.print(f"Account {made['accountId']} is there. Its root's key lies in {place / ACCOUNT_FILE}.", soft_wrap=True)
    console.print(f'Work in it with: eval "$(overair env --account {place})"', soft_wrap=True)


@app.command("list")
def list_accounts(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Which accounts there are."""
    found: list[dict[str, object]] = []
    with told_plainly():
        overair = operator_of(data).client("overair")
        token: dict[str, str] = {}
        while True:
            page = overair.list_accounts(**token)
            found += [
                {
                    "account": each["accountId"],
                    "name": each["name"],
                    "created_at": each["createdAt"].isoformat(),
                    "first": each["isFirst"],
                }
                for each in page["accounts"]
            ]
            if "nextToken" not in page:
                break
            token = {"nextToken": page["nextToken"]}
    if json:
        print_json({"accounts": found})
        return
    for each in found:
        first = "  the server's first" if each["first"] else ""
        console.print(f"{each['account']}  {each['name'] or '-'}{first}", soft_wrap=True)


@contextmanager
def _new_folder(parent: Path) -> Iterator[Path]:
    """A folder to fill, made before the server is asked for what it tells once; gone where nothing comes of it."""
    try:
        folder = Path(mkdtemp(prefix=".overair-account-", dir=parent))
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"No folder can be made in {parent.resolve()}: {error.strerror}.") from error
    try:
        yield folder
    finally:
        with suppress(OSError):
            folder.rmdir()


def write_private(path: Path, text: str) -> None:
    """A file that its owner alone reads."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
