"""The keys that images are encrypted to: the device's own, and those of groups that it was given.

They lie in ``DIR/decryption/NAME.key``, readable by their owner alone, and never leave it. Each is of EC P-256 and does nothing
else: the certificate's key is another, since certificates are renewed while images are on their way.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from overair.agent.device_directory import DeviceDirectory
from overair.agent.durable import Disk
from overair.agent.uptane.identity import key_to_pem
from overair.wire.decryption_messages import KEYS_MAX, Declaration
from overair.wire.key_wrapping import key_id_of

LOG = logging.getLogger("overair.agent")

OWN_KEY: Final = "device"
"""The name of the key that no other device has."""
KEY_FILE_SIZE_BYTES_MAX: Final = 4 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class BadDecryptionKeys(Exception):
    """A key can't be read, or can't be kept; the message says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecryptionKey:
    """One key of the device."""

    name: str
    private: ec.EllipticCurvePrivateKey

    @property
    def public(self) -> ec.EllipticCurvePublicKey:
        return self.private.public_key()

    @property
    def key_id(self) -> bytes:
        return key_id_of(self.public)

    @property
    def public_pem(self) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.public.public_bytes(serialization.Encoding.PEM, form).decode("ascii")


class DecryptionKeys:
    """The keys of one device directory, read anew each time."""

    def __init__(self, directory: DeviceDirectory, disk: Disk | None = None) -> None:
        self._folder = directory.decryption
        self._disk = disk or Disk()

    def all(self) -> tuple[DecryptionKey, ...]:
        """By name; none where the device was never given any.

        Raises:
            BadDecryptionKeys: there are too many, or one can't be read.
        """
        try:
            paths = sorted(self._folder.glob("*.key"))
            if len(paths) > KEYS_MAX:
                raise BadDecryptionKeys(f"{self._folder} holds {len(paths)} keys; {KEYS_MAX} are used. Remove some.")
            return tuple(DecryptionKey(name=path.stem, private=read_private_key(path)) for path in paths)
        except OSError as error:
            raise BadDecryptionKeys(f"{error.filename} can't be read: {error.strerror}.") from None

    def by_id(self) -> Mapping[bytes, ec.EllipticCurvePrivateKey]:
        """Raises BadDecryptionKeys."""
        return {key.key_id: key.private for key in self.all()}

    def declaration(self) -> Declaration | None:
        """What the device tells the server of itself; None where it was never given a key, which is nothing to tell of.

        Raises:
            BadDecryptionKeys
        """
        return Declaration(keys=tuple(key.public for key in self.all())) if self._folder.is_dir() else None

    def make(self, name: str = OWN_KEY) -> DecryptionKey:
        """A new key, which nobody else has. Raises BadDecryptionKeys."""
        return self.add(name, ec.generate_private_key(ec.SECP256R1()))

    def add(self, name: str, private: ec.EllipticCurvePrivateKey) -> DecryptionKey:
        """Keep a key under a name that is free.

        Raises:
            BadDecryptionKeys: the name is no name or is taken, the key is here already, or there are too many.
        """
        if not _NAME.fullmatch(name):
            raise BadDecryptionKeys(f"{name[:80]!r} is no name for a key: letters, digits, '_' and '-', at most 64.")
        present = self.all()
        added = DecryptionKey(name=name, private=private)
        for key in present:
            if key.name == name or key.key_id == added.key_id:
                raise BadDecryptionKeys(f"The device has this key, or another called {name!r}, already: see {key.name}.key.")
        if len(present) >= KEYS_MAX:
            raise BadDecryptionKeys(f"A device uses {KEYS_MAX} keys at most. Remove one first.")
        pem = key_to_pem(private)
        try:
            self._disk.make_directory(self._folder)
            self._disk.write_whole(self._folder / f"{name}.key", pem, mode=0o600)
        except OSError as error:
            raise BadDecryptionKeys(f"{self._folder} can't be written: {error.strerror}.") from None
        return added

    def remove(self, name: str) -> None:
        """Forget a key for ever. Raises BadDecryptionKeys: there is none of that name."""
        path = self._folder / f"{name}.key"
        if not _NAME.fullmatch(name) or not path.is_file():
            raise BadDecryptionKeys(f"The device has no key {name[:80]!r}.")
        self._disk.remove(path)
        self._disk.sync_directory(self._folder)


def declared_of(directory: DeviceDirectory) -> Declaration | None:
    """What a device says of its keys when it starts. Keys that can't be read keep nobody from running: it says that it has
    none."""
    keys = DecryptionKeys(directory)
    try:
        return keys.declaration()
    except BadDecryptionKeys as error:
        LOG.warning("no encrypted image can be read: %s", error)
        return Declaration(keys=())


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """A private key in PEM, without a passphrase.

    Raises:
        BadDecryptionKeys: it can't be read, or is of another kind than EC P-256. Nothing of it is told.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            data = os.read(descriptor, KEY_FILE_SIZE_BYTES_MAX + 1)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BadDecryptionKeys(f"{path} can't be read: {error.strerror}.") from None
    try:
        key = serialization.load_pem_private_key(data, password=None) if len(data) <= KEY_FILE_SIZE_BYTES_MAX else None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise BadDecryptionKeys(f"{path} holds no private key of EC P-256 in PEM without a passphrase.")
    return key
