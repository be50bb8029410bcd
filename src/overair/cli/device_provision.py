"""``overair-device provision``: a new device gets its identity by a claim."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

DONE, UNREACHABLE = 0, 5
HARDWARE_ID_DEFAULT: Final = "posix"
PEM_SIZE_BYTES_MAX: Final = 256 * 1024


class Refused(Exception):
    """The command can't be done; the message says why."""


def add_to(commands: Any) -> None:
    """The parser of ``provision``; whatever it needs is loaded when it runs."""
    parser = commands.add_parser(
        "provision",
        help="become a device by a claim",
        description="Make a key, have a certificate given for it under a claim (a certificate that all devices of a batch "
        "share), be made a thing by a provisioning template, and lay out DIR. After a power cut, or when the server was busy, "
        "run it again: it goes on where it stood. The claim isn't copied.",
    )
    parser.add_argument("device", type=Path, metavar="DIR")
    parser.add_argument(
        "--claim",
        type=Path,
        metavar="DIR",
        help="what overair credentials claim has written; it says all but what is the device's own",
    )
    parser.add_argument("--server", metavar="HOST:PORT", help="the server's MQTT port [the claim's]")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="who the server's certificate must come from [the claim's]")
    parser.add_argument("--claim-certificate", type=Path, metavar="FILE", help="[the claim's]")
    parser.add_argument("--claim-key", type=Path, metavar="FILE", help="[the claim's]")
    parser.add_argument("--gateway", metavar="URL", help="where it renews its certificate, over HTTPS [the claim's]")
    parser.add_argument("--template", metavar="NAME", help="the provisioning template [the claim's]")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="what the template wants to know; repeatable"
    )
    parser.add_argument(
        "--trust", action="append", type=Path, metavar="FILE", help="a signer's certificate; repeatable [the claim's]"
    )
    parser.add_argument("--hardware-id", default=HARDWARE_ID_DEFAULT, metavar="ID", help="[%(default)s]")
    parser.add_argument("--client-id", metavar="ID", help="while it is being provisioned [chosen at random]")
    parser.add_argument("--timeout-s", type=float, default=60, metavar="S", help="for each thing that is waited for [60]")
    parser.add_argument("--json", action="store_true", help="{thing, directory, configuration}")
    parser.set_defaults(command=_provision)


def _provision(options: argparse.Namespace) -> int:
    import time
    from contextlib import ExitStack
    from random import Random

    from overair.agent.claim_provisioning import (
        Newcomer,
        ProvisioningRefused,
        ProvisioningUnreachable,
        provision_by_claim,
    )
    from overair.agent.claim_session import ClaimSession
    from overair.agent.durable import Disk
    from overair.basics.ids import RandomIds

    factory = _factory_of(options)
    host, port = factory.host, factory.port
    newcomer = Newcomer(
        template=factory.template,
        parameters=dict(_parameter(text) for text in options.parameter),
        hardware_id=options.hardware_id,
        mqtt_host=host,
        mqtt_port=port,
        ca_pem=_read(factory.ca),
        anchors={path.name: _read(path) for path in factory.anchors},
        gateway=factory.gateway,
    )
    for path in (factory.certificate, factory.key):
        _read(path)
    client_id = options.client_id or f"new-{RandomIds().token(12)}"
    try:
        with ExitStack() as stack:

            def session() -> ClaimSession:
                return stack.enter_context(
                    ClaimSession(
                        host=host,
                        port=port,
                        client_id=client_id,
                        certificate_file=factory.certificate,
                        private_key_file=factory.key,
                        ca_file=factory.ca,
                        monotonic=time.monotonic,
                        chance=Random(),
                        timeout_s=options.timeout_s,
                    )
                )

            directory, provisioned = provision_by_claim(options.device.resolve(), newcomer, session=session, disk=Disk())
    except ProvisioningRefused as error:
        raise Refused(str(error)) from None
    except ProvisioningUnreachable as error:
        print(f"overair-device: {error}", file=sys.stderr)
        return UNREACHABLE
    configuration = dict(provisioned.device_configuration)
    if options.json:
        told = {"thing": provisioned.thing_name, "directory": str(directory.root), "configuration": configuration}
        print(json.dumps(told))
    else:
        print(f"{directory.root} is {provisioned.thing_name}, a device of {host}:{port}")
    return DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class _Factory:
    """What the factory knows, from a claim's folder and from options, which win."""

    host: str
    port: int
    template: str
    certificate: Path
    key: Path
    ca: Path
    anchors: Sequence[Path]
    gateway: str | None


def _factory_of(options: argparse.Namespace) -> _Factory:
    from overair.agent.claim_folder import CA_FILE, CERTIFICATE_FILE, KEY_FILE, read_claim_folder

    given = {name: getattr(options, name) for name in ("server", "ca", "claim_certificate", "claim_key", "template")}
    folder = None if options.claim is None else read_claim_folder(options.claim)
    missing = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is None]
    if folder is None and missing:
        raise Refused(f"Give --claim DIR, or {', '.join(missing)}.")
    root = Path() if folder is None else folder.root
    host, port = (folder.host, folder.port) if folder is not None and options.server is None else _server(options.server)
    return _Factory(
        host=host,
        port=port,
        template=options.template or (folder.template if folder is not None else ""),
        certificate=options.claim_certificate or root / CERTIFICATE_FILE,
        key=options.claim_key or root / KEY_FILE,
        ca=options.ca or root / CA_FILE,
        anchors=options.trust or (() if folder is None else folder.anchors),
        gateway=_gateway(options.gateway) or (None if folder is None else folder.gateway),
    )


def _server(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise Refused(f"{text!r} is no HOST:PORT.")
    return host.strip("[]"), int(port)


def _gateway(text: str | None) -> str | None:
    from overair.agent.claim_folder import GATEWAY

    if text is not None and not GATEWAY.fullmatch(text):
        raise Refused(f"--gateway {text!r} isn't https://HOST:PORT.")
    return text


def _parameter(text: str) -> tuple[str, str]:
    name, found, value = text.partition("=")
    if not name or not found:
        raise Refused(f"--parameter {text!r} isn't NAME=VALUE.")
    return name, value


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(PEM_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise Refused(f"{path} can't be read: {error.strerror}.") from None
    if len(data) > PEM_SIZE_BYTES_MAX:
        raise Refused(f"{path} has more than {PEM_SIZE_BYTES_MAX} bytes: it is no PEM file.")
    return data
