"""``overair-device uptane``: a Uptane Primary on any Linux machine, and Secondaries that are processes of their own."""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import shutil
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from overair.agent.device_directory import DeviceDirectory, DeviceSettings
    from overair.agent.uptane.device import UptaneDevice
    from overair.agent.uptane.outcomes import Outcome
    from overair.agent.uptane.settings import CommandInstall, FileInstall

DONE, USAGE, REFUSED, FAILED, UNREACHABLE = 0, 1, 2, 3, 5
HARDWARE_ID_DEFAULT: Final = "posix"
CREDENTIALS_FILE: Final = "credentials.zip"


class Refused(Exception):
    """The command can't be done; the message says why."""


def add_to(commands: Any) -> None:
    """The parsers of ``uptane …``; whatever they need is loaded when they run."""
    uptane = commands.add_parser("uptane", help="a Uptane Primary and its Secondaries")
    actions = uptane.add_subparsers(required=True, metavar="COMMAND")
    _add_provision(actions)

    run = actions.add_parser("run", help="run the Primary until stopped")
    run.add_argument("device", type=Path, metavar="DIR")
    run.add_argument("--json", action="store_true", help="one JSON object a line: {outcome, message} of each round")
    run.set_defaults(command=_run)

    once = actions.add_parser("once", help="one round: manifest, metadata, and whatever is to be installed")
    once.add_argument("device", type=Path, metavar="DIR")
    once.add_argument("--json", action="store_true", help="{outcome, message}")
    once.set_defaults(command=_once)

    status = actions.add_parser("status", help="who the device is, what its ECUs run, what it trusts")
    status.add_argument("device", type=Path, metavar="DIR")
    status.add_argument("--json", action="store_true")
    status.set_defaults(command=_status)

    secondary = actions.add_parser("secondary", help="a Secondary")
    _add_secondary_run(secondary.add_subparsers(required=True, metavar="COMMAND"))


def _add_provision(actions: Any) -> None:
    parser = actions.add_parser(
        "provision",
        help="make a device directory and get its identity",
        description="Lay out a Uptane device and get its identity, from a shared credential or from files of your own PKI. "
        "On a directory that holds a device already: get the identity that its device.json asks for.",
    )
    parser.add_argument("device", type=Path, metavar="DIR")
    parser.add_argument(
        "--credentials", type=Path, metavar="ZIP", help="a shared credential; a copy goes into DIR and is emptied"
    )
    parser.add_argument("--certificate", type=Path, metavar="FILE", help="own PKI: the device's certificate, with its chain")
    parser.add_argument("--private-key", type=Path, metavar="FILE", help="own PKI: its key")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="own PKI: who the gateway's certificate must come from")
    parser.add_argument("--server", metavar="URL", help="the gateway [what the credential says]")
    parser.add_argument("--device-id", metavar="ID", help="with a shared credential [chosen at random]")
    parser.add_argument("--hardware-id", default=HARDWARE_ID_DEFAULT, metavar="ID", help="of the Primary [%(default)s]")
    parser.add_argument("--ecu-serial", metavar="SERIAL", help="of the Primary [its key's id]")
    parser.add_argument(
        "--roots", type=Path, metavar="DIR", help="holds director/root.json and repo/root.json, the first roots"
    )
    _add_install(parser, "the Primary's own images [into slots, with overair-device boot]")
    parser.add_argument("--secondary", action="append", default=[], metavar="SOCKET", help="a Secondary's socket; repeatable")
    parser.add_argument(
        "--virtual", action="append", default=[], metavar="NAME:HARDWARE_ID", help="a Secondary inside the Primary; repeatable"
    )
    parser.add_argument("--polling-s", type=float, metavar="S", help="seconds between rounds")
    parser.add_argument("--json", action="store_true", help="{device, directory, gateway}")
    parser.set_defaults(command=_provision)


def _add_secondary_run(actions: Any) -> None:
    parser = actions.add_parser(
        "run",
        help="run a Secondary until stopped",
        description="Run the Secondary in DIR. Where there is none yet, --hardware-id makes one.",
    )
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--hardware-id", metavar="ID")
    parser.add_argument("--ecu-serial", metavar="SERIAL", help="[its key's id]")
    parser.add_argument("--verification", choices=["full", "partial"], help="[full]")
    parser.add_argument("--socket", metavar="FILE", help="[DIR/secondary.sock]")
    parser.add_argument(
        "--roots", type=Path, metavar="DIR", help="holds director/root.json and repo/root.json, the first roots"
    )
    _add_install(parser, "its images [as the file firmware.bin]")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: {serial, socket} when it listens")
    parser.set_defaults(command=_secondary_run)


def _add_install(parser: argparse.ArgumentParser, what: str) -> None:
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--install-file", metavar="PATH", help=f"below files/: {what}")
    ways.add_argument("--install-command", metavar="COMMAND", help=f"gets the image's path as its last argument: {what}")


# ----------------------------------------------------------------------------------------------------------------------


def _provision(options: argparse.Namespace) -> int:
    from overair.agent.device_directory import DeviceDirectory, read_settings
    from overair.agent.durable import Disk
    from overair.agent.uptane.https import TransportFailed
    from overair.agent.uptane.identity import BadIdentity, IdentityStore
    from overair.agent.uptane.provisioning import ProvisioningFailed

    directory = DeviceDirectory(options.device.resolve())
    if not directory.device_file.exists():
        _lay_out(options, directory)
    settings = read_settings(directory)
    try:
        name = _device(directory, settings).provision()
    except (ProvisioningFailed, BadIdentity) as error:
        raise Refused(str(error)) from None
    except TransportFailed as error:
        print(f"overair-device: {error}", file=sys.stderr)
        return UNREACHABLE
    server = settings.uptane.server if settings.uptane is not None else None
    gateway = server or IdentityStore(directory, Disk()).gateway
    if options.json:
        print(json.dumps({"device": name, "directory": str(directory.root), "gateway": gateway}))
    else:
        print(f"{directory.root} is {name}, a device of {gateway}")
    return DONE


def _lay_out(options: argparse.Namespace, directory: DeviceDirectory) -> None:
    from overair.agent.device_directory import DeviceSettings, create_device_directory
    from overair.agent.uptane.settings import (
        BadUptaneSettings,
        ImportedFiles,
        SlotInstall,
        SocketSecondary,
        UptaneSettings,
        parse_uptane,
    )

    files = (options.certificate, options.private_key, options.ca)
    if [options.credentials is not None, None not in files].count(True) != 1:
        raise Refused("A new device needs either --credentials, or --certificate with --private-key and --ca.")
    imported = None
    if options.credentials is None:
        certificate, private_key, ca = (str(file.resolve()) for file in files)
        imported = ImportedFiles(certificate=certificate, private_key=private_key, ca=ca)
        if options.server is None:
            raise Refused("With your own PKI the gateway's address must be given: --server URL.")
    install = _install_of(options)
    members = UptaneSettings(
        server=None if options.server is None else options.server.rstrip("/"),
        credentials=None if options.credentials is None else CREDENTIALS_FILE,
        imported=imported,
        roots=None if options.roots is None else str(options.roots.resolve()),
        ecu_serial=options.ecu_serial,
        install=SlotInstall() if install is None else install,
        secondaries=tuple(SocketSecondary(path=str(Path(path).resolve())) for path in options.secondary),
    ).to_json()
    virtual = [_virtual(text) for text in options.virtual]
    if virtual:
        members["secondaries"] = [*members.get("secondaries", []), *virtual]  # type: ignore[misc]
    if options.polling_s is not None:
        members["polling_s"] = options.polling_s
    try:
        uptane = parse_uptane(members)
    except BadUptaneSettings as error:
        raise Refused(str(error)) from None
    settings = DeviceSettings(thing_name=options.device_id or "", hardware_id=options.hardware_id, uptane=uptane)
    directory.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if options.credentials is not None:
        try:
            shutil.copyfile(options.credentials, directory.root / CREDENTIALS_FILE)
            (directory.root / CREDENTIALS_FILE).chmod(0o600)
        except OSError as error:
            raise Refused(f"{options.credentials} can't be copied: {error.strerror}.") from None
    create_device_directory(directory.root, settings, certificate_pem=None, private_key_pem=None, ca_pem=None, anchors={})


def _virtual(text: str) -> dict[str, object]:
    name, _, hardware_id = text.partition(":")
    return {"virtual": name, "hardware_id": hardware_id, "ecu_serial": name}


def _install_of(options: argparse.Namespace) -> FileInstall | CommandInstall | None:
    from overair.agent.uptane.settings import CommandInstall, FileInstall

    if options.install_file is not None:
        return FileInstall(path=options.install_file)
    if options.install_command is not None:
        try:
            return CommandInstall(argv=tuple(shlex.split(options.install_command)))
        except ValueError as error:
            raise Refused(f"--install-command can't be read: {error}.") from None
    return None


# ----------------------------------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    from overair.agent.stop_signals import call_on_stop_signals
    from overair.agent.uptane.device import CantStart

    def heard(outcome: Outcome) -> None:
        if options.json:
            print(json.dumps({"outcome": outcome.kind.value, "message": outcome.message}), flush=True)

    _log_to_stderr()
    device = _opened(options, heard=heard)
    call_on_stop_signals(device.stop)
    try:
        return device.run()
    except CantStart as error:
        raise Refused(str(error)) from None


def _once(options: argparse.Namespace) -> int:
    from overair.agent.uptane.device import CantStart
    from overair.agent.uptane.outcomes import Kind

    _log_to_stderr()
    try:
        outcome = _opened(options).once()
    except CantStart as error:
        raise Refused(str(error)) from None
    if options.json:
        print(json.dumps({"outcome": outcome.kind.value, "message": outcome.message}))
    else:
        print(f"{outcome.kind.value}{': ' if outcome.message else ''}{outcome.message}")
    return {Kind.FAILED: FAILED, Kind.REFUSED: REFUSED, Kind.UNREACHABLE: UNREACHABLE}.get(outcome.kind, DONE)


def _status(options: argparse.Namespace) -> int:
    from overair.agent.device_directory import DeviceDirectory, read_settings
    from overair.agent.uptane.identity import BadIdentity
    from overair.agent.uptane.metadata_store import StoredMetadataDamaged
    from overair.agent.uptane.state import DamagedState
    from overair.agent.uptane.status import read_status
    from overair.basics.clock import WallClock

    directory = DeviceDirectory(options.device.resolve())
    try:
        status = read_status(directory, read_settings(directory), now=WallClock().now())
    except (BadIdentity, StoredMetadataDamaged, DamagedState) as error:
        raise Refused(str(error)) from None
    if options.json:
        print(json.dumps(asdict(status)))
        return DONE
    for name, value in asdict(status).items():
        if isinstance(value, dict):
            for key, members in value.items():
                shown = " ".join(f"{word}={'-' if each is None else each}" for word, each in (members or {}).items())
                print(f"{name:20} {key} {shown or '-'}")
        else:
            print(f"{name:20} {'-' if value in (None, '') else value}")
    return DONE


def _secondary_run(options: argparse.Namespace) -> int:
    from overair.agent.stop_signals import call_on_stop_signals
    from overair.agent.uptane.ecu_key import BadEcuKey
    from overair.agent.uptane.metadata_store import StoredMetadataDamaged
    from overair.agent.uptane.secondary_directory import SETTINGS_FILE, open_secondary, read_settings
    from overair.agent.uptane.secondary_socket import SecondaryServer
    from overair.agent.uptane.settings import BadUptaneSettings
    from overair.agent.uptane.state import DamagedState
    from overair.basics.clock import WallClock

    _log_to_stderr()
    folder = options.folder.resolve()
    try:
        if not (folder / SETTINGS_FILE).exists() and options.hardware_id is not None:
            _lay_out_secondary(options, folder)
        settings = read_settings(folder)
        secondary = open_secondary(folder, settings, clock=WallClock(), monotonic=time.monotonic)
        server = SecondaryServer(secondary, folder / settings.socket)
    except (BadUptaneSettings, BadEcuKey, StoredMetadataDamaged, DamagedState) as error:
        raise Refused(str(error)) from None
    except OSError as error:
        raise Refused(f"{folder / settings.socket} can't be listened on: {error.strerror}") from None
    call_on_stop_signals(server.stop)
    if options.json:
        print(json.dumps({"serial": secondary.serial, "socket": str(folder / settings.socket)}), flush=True)
    else:
        print(f"Secondary {secondary.serial} listens on {folder / settings.socket}", file=sys.stderr, flush=True)
    server.run()
    return DONE


def _lay_out_secondary(options: argparse.Namespace, folder: Path) -> None:
    from overair.agent.uptane.secondary import ROOT_PATHS, SecondarySettings
    from overair.agent.uptane.secondary_directory import SOCKET, StandaloneSecondary, write_settings
    from overair.agent.uptane.settings import FileInstall, Verification

    settings = StandaloneSecondary(
        secondary=SecondarySettings(
            hardware_id=options.hardware_id,
            ecu_serial=options.ecu_serial,
            verification=Verification(options.verification or "full"),
            install=_install_of(options) or FileInstall(path="firmware.bin"),
        ),
        socket=SOCKET if options.socket is None else str(Path(options.socket).resolve()),
    )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in ROOT_PATHS.values():
        if options.roots is not None and (options.roots / path).exists():
            (folder / "roots" / path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            shutil.copyfile(options.roots / path, folder / "roots" / path)
    write_settings(folder, settings)


# ----------------------------------------------------------------------------------------------------------------------


def _opened(options: argparse.Namespace, **changes: Any) -> UptaneDevice:
    from overair.agent.device_directory import DeviceDirectory, read_settings
    from overair.agent.uptane.settings import SlotInstall

    directory = DeviceDirectory(options.device.resolve())
    settings = read_settings(directory)
    if settings.uptane is None:
        raise Refused(f"{directory.device_file} has no member uptane: this is no Uptane device.")
    if isinstance(settings.uptane.install, SlotInstall):
        raise Refused(f"This device's own images go into slots: run it with overair-device boot --device {options.device}")
    return _device(directory, settings, **changes)


def _device(directory: DeviceDirectory, settings: DeviceSettings, **changes: Any) -> UptaneDevice:
    from importlib.metadata import version

    from overair.agent.progress import ProgressFile
    from overair.agent.uptane.device import UptaneDevice

    directory.run.mkdir(mode=0o700, exist_ok=True)
    return UptaneDevice(
        directory,
        settings,
        platform=None,
        application=_NoSelfTest(),
        version=version("overair"),
        progress=ProgressFile(directory.run / "progress.json"),
        **changes,
    )


class _NoSelfTest:
    def self_test(self) -> bool:
        return True


def _log_to_stderr() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s", stream=sys.stderr)
