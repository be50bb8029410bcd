"""The file that is to be shipped, looked at before anything leaves this machine."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

from overair.cli.ends import CommandEnded, ExitCode
from overair.wire.image import ImageManifest, InvalidImage, read_manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Parcel:
    """What is to be shipped."""

    path: Path
    size_bytes: int
    sha256: str
    image: ImageManifest | None
    """What image.json says, or None for a file that isn't an image of ours (any C firmware)."""
    stored_as: str | None
    named_version: str | None = None
    """What the operator calls a file that says no version itself."""

    @property
    def version(self) -> str:
        return str(self.image.version) if self.image else self.named_version or ""


def read_parcel(path: Path, *, version: str | None, stored_as: str | None) -> Parcel:
    """Look at the file before anything leaves this machine.

    Raises:
        CommandEnded: USAGE when the file can't be read, is empty, or says another version than ``version``.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} can't be read: {error.strerror}.") from error
    if not content:
        raise CommandEnded(ExitCode.USAGE, f"{path} is empty; a device drops an update of size 0 without a word.")
    image = None
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
        named_version=version,
    )
