"""``overair encrypt``: images that only some devices can read, and the keys for them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.durable import Disk
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.image_encryption import SUFFIX, encrypt_file, public_key_in
from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.recipients import DeclaredKeys
from overair.wire.key_wrapping import key_id_of

app = typer.Typer(help="Images that only some devices can read.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def encrypt() -> None:
    """Images that only some devices can read."""


@app.command()
def key(
    file: Annotated[Path, typer.Argument(help="Where the private key goes; the public one beside it, as FILE.pub.pem.")],
    json: Json = False,
) -> None:
    """Make a key pair for a group of devices. Asks no server; the private key goes to the devices alone."""
    public_file = file.with_name(f"{file.name}.pub.pem")
    for path in (file, public_file):
        if path.exists():
            raise CommandEnded(
                ExitCode.USAGE, f"{path} is there already. Choose another name: what is encrypted to it needs it."
            )
    private = ec.generate_private_key(ec.SECP256R1())
    pem, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        disk = Disk()
        secret = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        disk.write_whole(file, secret, mode=0o600)
        disk.write_whole(public_file, private.public_key().public_bytes(pem, form), mode=0o644)
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{error.filename or file} can't be written: {error.strerror}.") from error
    key_id = key_id_of(private.public_key()).hex()
    if json:
        print_json({"key_id": key_id, "private_key": str(file), "public_key": str(public_file)})
        return
    console.print(f"{file} is a new private key, {key_id[:16]}…; give it to each device of the group, over a safe way:")
    console.print(f"  overair-device decryption add DIR {file} --name GROUP", soft_wrap=True)
    console.print(f"and encrypt to {public_file}.", soft_wrap=True)


@app.command()
def image(
    file: Annotated[Path, typer.Argument(help="The image, signed already: overair sign image.")],
    to: Annotated[list[Path], typer.Option("--to", metavar="KEY", help="A device's or group's public key; may be repeated.")],
    out: Annotated[Path | None, typer.Option("--out", help=f"Where it is written. [default: FILE{SUFFIX}]")] = None,
    json: Json = False,
) -> None:
    """Encrypt an image. Asks no server; `overair ship` sends what is written, with the signature that was made before."""
    target = out or file.with_name(f"{file.name}{SUFFIX}")
    envelope = encrypt_file(file, target, [public_key_in(path) for path in to])
    if json:
        print_json({"image": str(target), "size_bytes": envelope.size_bytes, "key_ids": list(envelope.key_ids)})
        return
    console.print(f"{target} ({envelope.size_bytes:,} bytes) is {file}, encrypted to:", soft_wrap=True)
    for key_id in envelope.key_ids:
        console.print(f"  {key_id}", soft_wrap=True)
    console.print(f"Send it with: overair ship {target} --signature {file}.sig.json --to …", soft_wrap=True)


@app.command()
def keys(
    thing: Annotated[str | None, typer.Argument(help="Of this thing alone.")] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Which keys devices have declared, as the server tells it."""
    with told_plainly():
        declared = DeclaredKeys(operator_of(data))
        found = [each for name, each in declared.by_thing.items() if thing in (None, name)]
        holders = declared.holders
    if json:
        print_json(
            {
                "things": [
                    {
                        "thing": each.thing,
                        "formats": list(each.formats),
                        "declared_at": str(each.declared_at),
                        "keys": [{"key_id": name, "things": len(holders[name])} for name in each.keys],
                    }
                    for each in found
                ]
            }
        )
        return
    if not found:
        console.print("No device has declared a decryption key." if thing is None else f"{thing} has declared none.")
    for each in found:
        console.print(f"{each.thing}  declared at {each.declared_at}", soft_wrap=True)
        for name in each.keys:
            others = len(holders[name]) - 1
            shared = "its own" if not others else f"shared with {others:,} other thing(s)"
            console.print(f"  {name}  {shared}", soft_wrap=True)
