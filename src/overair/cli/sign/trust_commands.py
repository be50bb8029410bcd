"""``sign trust``: whom devices of the AWS family trust to sign images, as a document that is shipped to them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from overair.agent.durable import Disk
from overair.basics.clock import WallClock
from overair.cli.output import Json, print_json
from overair.cli.sign.ends import ending, usage
from overair.cli.sign.options import show
from overair.cli.sign.tree import read_file
from overair.wire.image_signature import CERTIFICATE_SIZE_BYTES_MAX
from overair.wire.trust_document import SERIAL_MAX, MalformedTrust, build_trust, parse_trust


def trust(
    name: Annotated[str, typer.Argument(help="How devices call the anchor: NAME of trust/NAME.pem.")],
    certificates: Annotated[list[Path], typer.Argument(help="The certificates of all who may sign under it, in PEM.")],
    out: Annotated[Path | None, typer.Option("--out", help="Where it is written. [default: NAME.trust]")] = None,
    serial: Annotated[
        int | None, typer.Option("--serial", min=1, max=SERIAL_MAX, help="Above the last one's. [default: the time in seconds]")
    ] = None,
    json: Json = False,
) -> None:
    """Write whom devices are to trust under a name from now on; `overair ship --trust` sends it, signed. Asks no server."""
    with ending(json):
        number = WallClock().now() // 1000 if serial is None else serial
        try:
            data = build_trust(name, number, [read_file(path, CERTIFICATE_SIZE_BYTES_MAX) for path in certificates])
        except MalformedTrust as error:
            raise usage(f"No trust document can be made of that: {error}") from None
        target = out or Path(f"{name}.trust")
        try:
            Disk().write_whole(target, data, mode=0o644)
        except OSError as error:
            raise usage(f"{target} can't be written: {error.strerror}.") from None
        signers = [signer.fingerprint for signer in parse_trust(data).signers]
        named = ", ".join(f"{signer[:16]}…" for signer in signers)
        if json:
            print_json({"document": str(target), "name": name, "serial": number, "signers": signers})
            return
        show(
            [
                f"{target} lets devices trust, as {name}: {named} (serial {number})",
                f"  send it with: overair ship {target} --trust --to …",
            ]
        )
