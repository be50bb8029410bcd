"""``overair server-ca``: what the server shows, and how the authority behind it follows another without a device lost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json

_ROLES: Final = {
    "next": "is made and handed out, and will vouch for the server",
    "current": "vouches for the server",
    "former": "vouches for nothing new, and is trusted until it is retired",
}
_NEXT: Final = {
    "steady": "`overair server-ca begin` makes the authority that is to follow.",
    "ahead": "`overair server-ca switch` has the new one vouch, once devices trust it.",
    "switched": "`overair server-ca retire` ends the trust in the former one.",
}

EvenSo = Annotated[bool, typer.Option("--even-so", help="Do it although devices would be lost.")]

app = typer.Typer(help="What the server shows, and whom devices trust.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def server_ca() -> None:
    """What the server shows, and whom devices trust."""


@app.command("status")
def status(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """What is shown, who vouches for it, and which devices don't trust the newest authority yet."""
    with told_plainly():
        told = operator_of(data).client("overair").describe_server_certificate()
    _tell(told, as_json=json)


@app.command("begin")
def begin(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Make the authority that is to follow, and hand it out: devices fetch it while they trust the present one."""
    _step("begin", data, json)


@app.command("switch")
def switch(even_so: EvenSo = False, data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Show a certificate of the new authority from now on; refused while known devices don't trust it."""
    _step("switch", data, json, even_so=even_so)


@app.command("retire")
def retire(even_so: EvenSo = False, data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """End the trust in the former authority, and destroy its key; refused while known devices don't trust the new one."""
    _step("retire", data, json, even_so=even_so)


@app.command("back-out")
def back_out(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Undo the last step: have the former authority vouch again, or forget the next one."""
    _step("back-out", data, json)


@app.command("renew")
def renew(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Issue a new server certificate now, by the same authority; or read your own files again."""
    with told_plainly():
        told = operator_of(data).client("overair").renew_server_certificate()
    _tell(told, as_json=json)


def _step(step: str, data: Path, as_json: bool, *, even_so: bool = False) -> None:
    with told_plainly():
        told = operator_of(data).client("overair").rotate_server_authority(step=step, evenSo=even_so)
    _tell(told, as_json=as_json)


def _tell(told: Mapping[str, Any], *, as_json: bool) -> None:
    lacking = list(told["lackingNamed"])
    elsewhere = told["devicesLackingElsewhere"]
    if as_json:
        print_json(
            {
                "certificate_id": told["certificateId"],
                "not_after": told["notAfter"].isoformat(),
                "is_from_files": told["isFromFiles"],
                "phase": told["phase"],
                "authorities": [
                    {
                        "role": each["role"],
                        "authority_id": each["authorityId"],
                        "not_after": each["notAfter"].isoformat(),
                        "certificate_pem": each["certificatePem"],
                    }
                    for each in told["authorities"]
                ],
                "devices_lacking": told["devicesLacking"],
                "are_more_lacking": told["areMoreLacking"],
                "devices_lacking_elsewhere": elsewhere,
                "lacking_named": lacking,
            }
        )
        return
    whose = "your own files'" if told["isFromFiles"] else "ours"
    console.print(
        f"Shown is {told['certificateId'][:16]}…, {whose}, good until {told['notAfter'].isoformat()}.", soft_wrap=True
    )
    for each in told["authorities"]:
        until = each["notAfter"].date()
        console.print(f"  authority {each['authorityId'][:16]}…, until {until}, {_ROLES[each['role']]}", soft_wrap=True)
    if told["devicesLacking"]:
        more = " or more" if told["areMoreLacking"] else ""
        names = ", ".join([*lacking, *([f"{elsewhere} of other accounts"] if elsewhere else [])])
        console.print(f"{told['devicesLacking']}{more} devices don't trust the newest yet: {names}", soft_wrap=True)
    console.print(_NEXT[told["phase"]], soft_wrap=True)
