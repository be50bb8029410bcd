"""``overair-device``: what is run on a device. Needs nothing beyond the base install."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from base64 import b64decode
from dataclasses import asdict
from pathlib import Path

from overair.agent.boot import BootLoader, NothingToBoot
from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory
from overair.agent.flash import FlashRefused, flash, read_status
from overair.agent.settings import JSON_VARIABLE
from overair.agent.slots import SlotSignature
from overair.agent.stop_signals import call_on_stop_signals
from overair.cli import device_decryption, device_fleet, device_provision, device_tuf, device_uptane
from overair.wire.image_signature import SIGNATURE_SIZE_BYTES_MAX, SignatureAlgorithm

DONE, USAGE, REFUSED = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Entry point; exit codes as of every Overair command: 0 done, 1 usage, 2 refused."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.command(options))
    except (
        BadDeviceDirectory,
        NothingToBoot,
        FlashRefused,
        device_decryption.BadDecryptionKeys,
        device_provision.Refused,
        device_uptane.Refused,
    ) as error:
        print(f"overair-device: {error}", file=sys.stderr)
        return REFUSED


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.print_usage(sys.stderr)
        self.exit(USAGE, f"overair-device: {message}\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="overair-device", description="Boot, flash and inspect an Overair device.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    boot = commands.add_parser("boot", help="run the device: verify the active slot, run its image, go back if it fails")
    boot.add_argument("--device", type=Path, required=True, metavar="DIR", help="the device's directory")
    boot.add_argument("--json", action="store_true", help="one JSON object a line on standard output: {boot: …}")
    boot.set_defaults(command=_boot)

    flashing = commands.add_parser(
        "flash",
        help="put a first image into a slot",
        description="Put an image into the inactive slot and make it active. Without --signature it has factory trust: "
        "whoever may write to this disk vouches for it, and status says so.",
    )
    flashing.add_argument("device", type=Path, metavar="DIR")
    flashing.add_argument("image", type=Path, metavar="IMAGE")
    flashing.add_argument("--signature", type=Path, metavar="FILE", help="the image's signature, raw or Base64")
    flashing.add_argument("--anchor", default="signer", metavar="NAME", help="trust anchor DIR/trust/NAME.pem [%(default)s]")
    flashing.add_argument(
        "--algorithm",
        default=SignatureAlgorithm.ECDSA_SHA256.value,
        choices=[SignatureAlgorithm.ECDSA_SHA256.value, SignatureAlgorithm.RSA_SHA256.value],
    )
    flashing.add_argument("--json", action="store_true")
    flashing.set_defaults(command=_flash)

    status = commands.add_parser("status", help="what the device runs")
    status.add_argument("device", type=Path, metavar="DIR")
    status.add_argument("--json", action="store_true", help="{slot, version, sha256, state, boots, job}")
    status.set_defaults(command=_status)

    running = commands.add_parser(
        "run",
        help="run the agent on a gateway without slots",
        description="Run the agent on a Linux gateway whose images are installed by the programs that device.json names as "
        "hooks. Ends with 75 when it, or the machine, must start again.",
    )
    running.add_argument("device", type=Path, metavar="DIR")
    running.add_argument("--json", action="store_true", help="one JSON object a line on standard output: {step: …}")
    running.set_defaults(command=_run)
    device_provision.add_to(commands)
    device_decryption.add_to(commands)
    device_uptane.add_to(commands)
    device_tuf.add_to(commands)
    device_fleet.add_to(commands)
    return parser


def _boot(options: argparse.Namespace) -> int:
    def say(line: str) -> None:
        if options.json:
            print(json.dumps({"boot": line}), flush=True)
        else:
            print(f"boot: {line}", file=sys.stderr, flush=True)

    loader = BootLoader(DeviceDirectory(options.device.resolve()), monotonic=time.monotonic, say=say, json_lines=options.json)
    call_on_stop_signals(loader.stop)
    return loader.run()


def _run(options: argparse.Namespace) -> int:
    from overair.agent.gateway_main import run_gateway

    if options.json:
        os.environ[JSON_VARIABLE] = "json"
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
    return run_gateway(DeviceDirectory(options.device.resolve()), stop_calls=call_on_stop_signals)


def _flash(options: argparse.Namespace) -> int:
    signature = None
    if options.signature is not None:
        signature = SlotSignature(
            algorithm=SignatureAlgorithm(options.algorithm), value=_signature_bytes(options.signature), anchor=options.anchor
        )
    record = flash(DeviceDirectory(options.device.resolve()), options.image, signature=signature)
    trust = "factory" if record.signature is None else "signed"
    if options.json:
        print(json.dumps({"version": record.version, "sha256": record.sha256, "trust": trust}))
    else:
        how = "by factory trust: no signature was given" if trust == "factory" else f"signed by {options.anchor}"
        print(f"{options.device} now boots {record.version} ({how})")
    return DONE


def _signature_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(4 * SIGNATURE_SIZE_BYTES_MAX)
    except OSError as error:
        raise FlashRefused(f"{path} can't be read: {error.strerror}.") from None
    try:
        return b64decode(data.strip(), validate=True)
    except ValueError:
        return data


def _status(options: argparse.Namespace) -> int:
    status = read_status(DeviceDirectory(options.device.resolve()))
    if options.json:
        print(json.dumps(asdict(status)))
        return DONE
    for name, value in asdict(status).items():
        if name != "trust":
            print(f"{name:8} {'-' if value is None else value}")
    for each in status.trust:
        signers = ", ".join(f"{signer[:16]}…" for signer in each.signers) or "nobody: the file can't be used"
        print(f"{'trust':8} {each.name}: {signers}{f' (serial {each.serial})' if each.serial else ''}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
