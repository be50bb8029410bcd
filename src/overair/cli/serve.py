"""``overair serve``: one part of a server that several processes make up, on PostgreSQL."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.output import Json
from overair.cli.server_flags import (
    AccountFlag,
    BindFlag,
    ConfigFlag,
    DatabaseFlag,
    DataFlag,
    DevicePortFlag,
    DownloadUrlFlag,
    HostFlag,
    KeyPassphraseFileFlag,
    KeyServiceFlag,
    LimitsFlag,
    LogFlag,
    MqttPortFlag,
    OperatorPortFlag,
    Pkcs11ModuleFlag,
    Pkcs11PinFileFlag,
    PlainHttpFlag,
    PresignedV2Flag,
    RegionFlag,
    RetentionDaysFlag,
    ServerCaFileFlag,
    ServerCertificateFileFlag,
    ServerKeyFileFlag,
)
from overair.cli.up import read_settings, run


class Part(StrEnum):
    """What a process may hold alone (``server.nodes.model.Role``, which isn't imported to print a help text)."""

    OPERATOR = "operator"
    GATEWAY = "gateway"
    WORKERS = "workers"


def serve(
    part: Annotated[Part, typer.Argument(help="The operators' door, a device gateway, or the workers.", show_default=False)],
    data: DataFlag = None,
    bind: BindFlag = None,
    host: HostFlag = None,
    operator_port: OperatorPortFlag = None,
    mqtt_port: MqttPortFlag = None,
    device_port: DevicePortFlag = None,
    plain_http: PlainHttpFlag = None,
    region: RegionFlag = None,
    account: AccountFlag = None,
    log: LogFlag = None,
    database: DatabaseFlag = None,
    key_passphrase_file: KeyPassphraseFileFlag = None,
    pkcs11_module: Pkcs11ModuleFlag = None,
    pkcs11_pin_file: Pkcs11PinFileFlag = None,
    key_service: KeyServiceFlag = None,
    presigned_v2: PresignedV2Flag = None,
    limits: LimitsFlag = None,
    download_url: DownloadUrlFlag = None,
    retention_days: RetentionDaysFlag = None,
    server_certificate_file: ServerCertificateFileFlag = None,
    server_key_file: ServerKeyFileFlag = None,
    server_ca_file: ServerCaFileFlag = None,
    config: ConfigFlag = None,
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
