"""The file that is to be shipped, looked at before anything leaves this machine."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overair.cli.ends import CommandEnded, ExitCode
from overair.wire.image import ImageManifest, InvalidImage, read_manifest
from overair.wire.trust_document import TRUST_FILE_TYPE, MalformedTrust, parse_trust

FIRMWARE_FILE_TYPE: Final = 0
PLAIN_FILE_TYPE: Final = 1
"""Any type but 0 is stored by the agent, not booted (wire reference §7.3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What is to be shipped."""

    path: Path
    size_bytes: int
    sha256: str
    image: ImageManifest | None
    """What image.json says, or None for a file that isn't an image of ours (any C firmware)."""
    stored_as: str | None
    file_type: int = FIRMWARE_FILE_TYPE
    named_version: str | None = None
    """What the operator calls a file that says no version itself."""

    @property
    def version(self) -> str:
        return str(self.image.version) if self.image else self.named_version or ""


def read_parcel(path: Path, *, version: str | None, stored_as: str | None, trust: bool = False) -> Parcel:
    """Look at the file before anything leaves this machine.

    Raises:
        CommandEnded: USAGE when the file can't be read, is empty, says another version than ``version``, or is ``trust`` and
            no trust document.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} can't be read: {error.strerror}.") from error
    if not content:
        raise CommandEnded(ExitCode.USAGE, f"{path} is empty; a device drops an update of size 0 without a word.")
    image = None
    file_type = PLAIN_FILE_TYPE if stored_as else FIRMWARE_FILE_TYPE
    if trust:
        try:
            document = parse_trust(content)
        except MalformedTrust as error:
            raise CommandEnded(
                ExitCode.USAGE, f"{path} is no trust document (make one with: overair sign trust): {error}"
            ) from None
        stored_as, file_type = f"trust/{document.name}.pem", TRUST_FILE_TYPE
        version = version or str(document.serial)
    if stored_as is None and zipfile.is_zipfile(io.BytesIO(content)):
        try:
            image = read_manifest(io.BytesIO(content))
        except InvalidImage as error:
            raise CommandEnded(ExitCode.USAGE, f"{path} is a zip but no image: {error}") from error
    if image is not None and version is not None and str(image.version) != version:
        raise CommandEnded(
            ExitCode.USAGE,
            f"--version {version} doesn't fit {path}: its image.json says {image.version}. "
            "The running version is told by the image, so build it again or drop --version.",
        )
    return Parcel(
        path=path,
        size_bytes=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        image=image,
        stored_as=stored_as,
        file_type=file_type,
        named_version=version,
    )
