"""``overair-device provision``: a new device gets its identity by a claim."""

from __future__ import annotations

import argparse
import json
import sys
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
    parser.add_argument("--server", required=True, metavar="HOST:PORT", help="the server's MQTT port")
    parser.add_argument("--ca", type=Path, required=True, metavar="FILE", help="who the server's certificate must come from")
    parser.add_argument("--claim-certificate", type=Path, required=True, metavar="FILE")
    parser.add_argument("--claim-key", type=Path, required=True, metavar="FILE")
    parser.add_argument("--template", required=True, metavar="NAME", help="the provisioning template")
    parser.add_argument(
        "--parameter", action="append", default=[], metavar="NAME=VALUE", help="what the template wants to know; repeatable"
    )
    parser.add_argument(
        "--trust", action="append", default=[], type=Path, metavar="FILE", help="a signer's certificate; repeatable"
    )
    parser.add_argument("--hardware-id", default=HARDWARE_ID_DEFAULT, metavar="ID", help="[%(default)s]")
    parser.add_argument("--client-id", metavar="ID", help="while it is being provisioned [chosen at random]")
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

    host, port = _server(options.server)
    newcomer = Newcomer(
        template=options.template,
        parameters=dict(_parameter(text) for text in options.parameter),
        hardware_id=options.hardware_id,
        mqtt_host=host,
        mqtt_port=port,
        ca_pem=_read(options.ca),
        anchors={path.name: _read(path) for path in options.trust},
    )
    for path in (options.claim_certificate, options.claim_key):
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
                        certificate_file=options.claim_certificate,
                        private_key_file=options.claim_key,
                        ca_file=options.ca,
                        monotonic=time.monotonic,
                        chance=Random(),
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


def _server(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise Refused(f"{text!r} is no HOST:PORT.")
    return host.strip("[]"), int(port)


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
