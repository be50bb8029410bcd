"""``overair-device decryption``: the keys with which a device decrypts images."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from overair.agent.decryption_keys import OWN_KEY, BadDecryptionKeys, DecryptionKey, DecryptionKeys, read_private_key
from overair.agent.device_directory import BadDeviceDirectory, DeviceDirectory, read_settings

__all__ = ["BadDecryptionKeys", "add_to"]


def add_to(commands: Any) -> None:
    """Put the commands beside the others of ``overair-device``."""
    decryption = commands.add_parser(
        "decryption",
        help="the keys with which the device decrypts images",
        description="A device that has such keys says so when it connects; images that are encrypted to one of them are then "
        "offered to it. A running image takes note of a change when it starts again.",
    )
    verbs = decryption.add_subparsers(required=True, metavar="VERB")
    new = verbs.add_parser("new", help="make a key that no other device has, and print its public half")
    new.add_argument("device", type=Path, metavar="DIR")
    new.add_argument("--name", default=OWN_KEY, help="what it is called on the device [%(default)s]")
    new.set_defaults(command=_new)
    add = verbs.add_parser("add", help="take in the private key of a group (overair encrypt key)")
    add.add_argument("device", type=Path, metavar="DIR")
    add.add_argument("key", type=Path, metavar="FILE", help="PEM, without a passphrase")
    add.add_argument("--name", required=True, help="what it is called on the device")
    add.set_defaults(command=_add)
    listing = verbs.add_parser("list", help="which keys it has")
    listing.add_argument("device", type=Path, metavar="DIR")
    listing.set_defaults(command=_list)
    remove = verbs.add_parser("remove", help="forget a key for ever")
    remove.add_argument("device", type=Path, metavar="DIR")
    remove.add_argument("name", metavar="NAME")
    remove.set_defaults(command=_remove)
    for verb in (new, add, listing, remove):
        verb.add_argument("--json", action="store_true")


def _new(options: argparse.Namespace) -> int:
    return _told(_keys(options).make(options.name), options)


def _add(options: argparse.Namespace) -> int:
    keys = _keys(options)
    return _told(keys.add(options.name, read_private_key(options.key)), options)


def _told(key: DecryptionKey, options: argparse.Namespace) -> int:
    if options.json:
        print(json.dumps({"name": key.name, "key_id": key.key_id.hex(), "public_key": key.public_pem}))
        return 0
    print(f"{options.device} decrypts with {key.name}, {key.key_id.hex()}")
    print(key.public_pem, end="")
    return 0


def _list(options: argparse.Namespace) -> int:
    found = _keys(options).all()
    if options.json:
        print(json.dumps({"keys": [{"name": key.name, "key_id": key.key_id.hex()} for key in found]}))
        return 0
    for key in found:
        print(f"{key.name:16} {key.key_id.hex()}")
    return 0


def _remove(options: argparse.Namespace) -> int:
    _keys(options).remove(options.name)
    print(json.dumps({"removed": options.name}) if options.json else f"{options.device} has forgotten {options.name}")
    return 0


def _keys(options: argparse.Namespace) -> DecryptionKeys:
    directory = DeviceDirectory(options.device.resolve())
    if read_settings(directory).uptane is not None:
        raise BadDeviceDirectory(f"{options.device} is a Uptane device: its images don't come encrypted.")
    return DecryptionKeys(directory)
