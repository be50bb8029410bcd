"""The flags of a server: settings by their names, for ``overair up`` and ``overair serve`` alike (docs/settings.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DataFlag = Annotated[Path | None, typer.Option(help="State directory; made on first start. [default: ./overair-data]")]
BindFlag = Annotated[str | None, typer.Option(help="Address of every TLS port. [default: 127.0.0.1]")]
HostFlag = Annotated[list[str] | None, typer.Option(help="Name or address in the server certificate; repeatable.")]
OperatorPortFlag = Annotated[int | None, typer.Option(help="HTTPS for operators; 0: a free port. [default: 9443]")]
MqttPortFlag = Annotated[int | None, typer.Option(help="MQTT for devices; 0: a free port. [default: 8883]")]
DevicePortFlag = Annotated[int | None, typer.Option(help="HTTPS for devices; 0: a free port. [default: 8443]")]
PlainHttpFlag = Annotated[int | None, typer.Option(help="Operator port without TLS, loopback only; 0: a free port.")]
RegionFlag = Annotated[str | None, typer.Option(help="Region in ARNs; fixed at first start. [default: us-east-1]")]
AccountFlag = Annotated[str | None, typer.Option(help="Twelve digits; fixed at first start. [default: random]")]
LogFlag = Annotated[str | None, typer.Option(help="text or json. [default: text]")]
DatabaseFlag = Annotated[str | None, typer.Option(help="postgresql:// URL in place of SQLite.")]
KeyPassphraseFileFlag = Annotated[Path | None, typer.Option(help="Wraps the private keys at rest.")]
Pkcs11ModuleFlag = Annotated[Path | None, typer.Option(help="The library of tokens that hold keys.")]
Pkcs11PinFileFlag = Annotated[Path | None, typer.Option(help="The PIN of those tokens.")]
KeyServiceFlag = Annotated[list[str] | None, typer.Option(help="Beginning of key service URIs that may hold keys; repeatable.")]
PresignedV2Flag = Annotated[
    bool | None, typer.Option("--presigned-v2/--no-presigned-v2", help="SigV2 in presigned S3 URLs. [default: accepted]")
]
LimitsFlag = Annotated[str | None, typer.Option(help="generous or aws. [default: generous]")]
DownloadUrlFlag = Annotated[str | None, typer.Option(help="The device port as devices see it, behind a balancer.")]
RetentionDaysFlag = Annotated[int | None, typer.Option(help="Days that ended jobs stay; 0: for ever. [default: 730]")]
ServerCertificateFileFlag = Annotated[
    Path | None, typer.Option(help="Your own server certificate with its chain, PEM; read again when it changes.")
]
ServerKeyFileFlag = Annotated[Path | None, typer.Option(help="The private key of that certificate, PEM.")]
ServerCaFileFlag = Annotated[Path | None, typer.Option(help="Who clients are to trust for it, PEM.")]
ConfigFlag = Annotated[Path | None, typer.Option(envvar="OVERAIR_CONFIG", help="A TOML file with settings.")]
