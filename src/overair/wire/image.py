"""The image of the posix platform: a zip with ``image.json`` and a pure-Python application (docs/glossary.md, "image").

``image.json`` says what the image is: {"name", "version", "hardware_id", "allow_downgrade", "entry"}. It lies inside the signed
bytes, so that what it says is the signer's word.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from dataclasses import dataclass
from typing import IO, Final

from overair.wire import strict_json

MAIN_FILE: Final = "__main__.py"
MANIFEST_NAME: Final = "image.json"
MANIFEST_SIZE_BYTES_MAX: Final = 16 * 1024
_COMPRESSIONS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_VERSION: Final = re.compile(r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,4})")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,63}")
_ENTRY: Final = re.compile(r"(?:[A-Za-z_][A-Za-z0-9_]{0,63}/){0,8}[A-Za-z_][A-Za-z0-9_]{0,63}\.py")


class InvalidImage(ValueError):
    """The bytes aren't an image; the message says which rule they break."""


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class ImageVersion:
    """MAJOR.MINOR.BUILD; 0..255, 0..255, 0..65535. Ordered as numbers."""

    major: int
    minor: int
    build: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.build}"

    @property
    def word(self) -> int:
        """One 32-bit number in the same order: major << 24 | minor << 16 | build (wire reference §7.3)."""
        return self.major << 24 | self.minor << 16 | self.build

    @classmethod
    def from_word(cls, word: int) -> ImageVersion:
        """The version that a word stands for."""
        if not 0 <= word < 2**32:
            raise ValueError("A version word has 32 bits.")
        return cls(major=word >> 24, minor=word >> 16 & 0xFF, build=word & 0xFFFF)

    @classmethod
    def parse(cls, text: str) -> ImageVersion:
        """Read ``1.2.3``.

        Raises:
            InvalidImage: another shape, leading zeros, or a part out of range.
        """
        match = _VERSION.fullmatch(text)
        parts = [int(part) for part in match.groups()] if match else [256]
        if match is None or parts[0] > 255 or parts[1] > 255 or parts[2] > 65_535:
            raise InvalidImage(f"{text[:40]!r} is not a version: MAJOR.MINOR.BUILD with 0-255, 0-255 and 0-65535.")
        return cls(major=parts[0], minor=parts[1], build=parts[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageManifest:
    """What an image says of itself."""

    name: str
    version: ImageVersion
    hardware_id: str
    """The hardware that it was built for; a device of another refuses it."""
    allow_downgrade: bool = False
    """The signer allows this image to replace the same or a newer version."""
    entry: str = MAIN_FILE
    """The file inside the zip that is run."""


def parse_manifest(data: bytes) -> ImageManifest:
    """Read ``image.json``; ``allow_downgrade`` and ``entry`` may be left out, nothing may be added.

    Raises:
        InvalidImage: anything else.
    """
    try:
        members = strict_json.decode_object(data, size_bytes_max=MANIFEST_SIZE_BYTES_MAX, depth_max=4)
    except strict_json.MalformedJson as error:
        raise InvalidImage(f"image.json: {error}") from None
    unknown = sorted(members.keys() - {"name", "version", "hardware_id", "allow_downgrade", "entry"})
    if unknown:
        raise InvalidImage(f"image.json has the unknown member {unknown[0][:40]!r}.")
    allow_downgrade = members.get("allow_downgrade", False)
    if not isinstance(allow_downgrade, bool):
        raise InvalidImage("image.json: allow_downgrade must be true or false.")
    return ImageManifest(
        name=_text(members, "name", _NAME),
        version=ImageVersion.parse(_text(members, "version", _VERSION)),
        hardware_id=_text(members, "hardware_id", _NAME),
        allow_downgrade=allow_downgrade,
        entry=_text({"entry": MAIN_FILE} | members, "entry", _ENTRY),
    )


def _text(members: dict[str, object], name: str, pattern: re.Pattern[str]) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise InvalidImage(f"image.json: {name} must be text that matches {pattern.pattern}.")
    return value


def read_manifest(image: IO[bytes]) -> ImageManifest:
    """Find and read ``image.json`` inside an image, given as a seekable stream.

    Raises:
        InvalidImage: no zip, no manifest or two, one that breaks its rules, or an entry that isn't in the zip.
    """
    try:
        with zipfile.ZipFile(image) as archive:
            names = archive.namelist()
            if names.count(MANIFEST_NAME) != 1:
                raise InvalidImage("An image is a zip with exactly one image.json at its top.")
            if archive.getinfo(MANIFEST_NAME).compress_type not in _COMPRESSIONS:
                raise InvalidImage("image.json inside the zip must be stored or deflated; devices unpack nothing else.")
            with archive.open(MANIFEST_NAME) as member:
                data = member.read(MANIFEST_SIZE_BYTES_MAX + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, OSError, ValueError) as error:
        if isinstance(error, InvalidImage):
            raise
        raise InvalidImage(f"An image is a zip with image.json in it; this can't be read as one: {error}") from None
    manifest = parse_manifest(data)
    if names.count(manifest.entry) != 1:
        raise InvalidImage(f"image.json names the entry {manifest.entry!r}, which isn't in the image.")
    return manifest
