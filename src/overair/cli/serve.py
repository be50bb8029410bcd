"""``overair serve``: one part of a server that several processes make up, on PostgreSQL."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.output import Json
from overair.cli.up import read_settings, run


class Part(StrEnum):
    """What a process may hold alone (``server.nodes.model.Role``, which isn't imported to print a help text)."""

    OPERATOR = "operator"
    GATEWAY = "gateway"
    WORKERS = "workers"


def serve(
    part: Annotated[Part, typer.Argument(help="The operators' door, a device gateway, or the workers.", show_default=False)],
    data: Annotated[Path | None, typer.Option(help="State directory; made on first start. [default: ./overair-data]")] = None,
    bind: Annotated[str | None, typer.Option(help="Address of every TLS port. [default: 127.0.0.1]")] = None,
    host: Annotated[list[str] | None, typer.Option(help="Name or address in the server certificate; repeatable.")] = None,
    operator_port: Annotated[int | None, typer.Option(help="HTTPS for operators; 0: a free port. [default: 9443]")] = None,
    mqtt_port: Annotated[int | None, typer.Option(help="MQTT for devices; 0: a free port. [default: 8883]")] = None,
    device_port: Annotated[int | None, typer.Option(help="HTTPS for devices; 0: a free port. [default: 8443]")] = None,
    plain_http: Annotated[int | None, typer.Option(help="Operator port without TLS, loopback only; 0: a free port.")] = None,
    region: Annotated[str | None, typer.Option(help="Region in ARNs; fixed at first start. [default: us-east-1]")] = None,
    account: Annotated[str | None, typer.Option(help="Twelve digits; fixed at first start. [default: random]")] = None,
    log: Annotated[str | None, typer.Option(help="text or json. [default: text]")] = None,
    database: Annotated[str | None, typer.Option(help="postgresql:// URL in place of SQLite.")] = None,
    key_passphrase_file: Annotated[Path | None, typer.Option(help="Wraps the private keys at rest.")] = None,
    presigned_v2: Annotated[
        bool | None, typer.Option("--presigned-v2/--no-presigned-v2", help="SigV2 in presigned S3 URLs. [default: accepted]")
    ] = None,
    limits: Annotated[str | None, typer.Option(help="generous or aws. [default: generous]")] = None,
    download_url: Annotated[str | None, typer.Option(help="The device port as devices see it, behind a balancer.")] = None,
    retention_days: Annotated[int | None, typer.Option(help="Days that ended jobs stay; 0: for ever. [default: 730]")] = None,
    config: Annotated[Path | None, typer.Option(envvar="OVERAIR_CONFIG", help="A TOML file with settings.")] = None,
    json: Json = False,
) -> None:
    """Start one part of a server that several processes make up. They share the state directory and a PostgreSQL."""
    given = locals()
    settings = read_settings(given)
    if settings.database is None:
        raise CommandEnded(
            ExitCode.USAGE,
            "`overair serve` needs --database postgresql://…: a SQLite file belongs to one process. `overair up` is it, "
            "with every part in it.",
        )
    from overair.server.nodes.model import Role

    run(settings, role=Role(part.value), as_json=json)
