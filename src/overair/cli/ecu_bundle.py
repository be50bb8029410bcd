"""What Uptane devices get: for each hardware id an image, from the command line or from a bundle's file.

A bundle is TOML or JSON::

    [hardware.gateway-imx8]
    image = "gateway.zip"        # a file beside the bundle …
    name = "gateway"             # left out: what the image says it is, else the file's name without its ending
    version = "2.0.0"            # left out: what the image says

    [hardware.telematics]
    target = "telematics-7"      # … or an image that is in the Image repository already
    from = "telematics-6"        # only ECUs that run this one now; may be left out
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.parcel import Parcel, read_parcel

BUNDLE_SIZE_BYTES_MAX: Final = 1024 * 1024
_MEMBERS: Final = frozenset({"image", "name", "version", "target", "from"})
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What ECUs of one hardware id get."""

    hardware_id: str
    target: str
    """Its name in the Image repository."""
    parcel: Parcel | None = None
    """None: it is there already."""
    name: str = ""
    version: str = ""
    only_from: str | None = None
    """Only ECUs that run this target."""


def parts_of(parcel: Parcel, hardware_ids: Sequence[str], *, name: str | None, version: str | None) -> tuple[Part, ...]:
    """One image for several kinds of ECU.

    Raises:
        CommandEnded: USAGE when nobody says which version it is.
    """
    called, numbered = _called(parcel, name=name, version=version, where="--version")
    return tuple(
        Part(hardware_id=each, target=f"{called}-{numbered}", parcel=parcel, name=called, version=numbered)
        for each in dict.fromkeys(hardware_ids)
    )


def read_bundle(path: Path) -> tuple[Part, ...]:
    """A bundle's file.

    Raises:
        CommandEnded: USAGE, with the member that is wrong.
    """
    members = _read(path)
    unknown = sorted(members.keys() - {"hardware"})
    if unknown:
        raise _wrong(path, unknown[0], "is not known; a bundle has tables [hardware.ID]")
    hardware = members.get("hardware")
    if not isinstance(hardware, dict) or not hardware:
        raise _wrong(path, "hardware", "names no hardware id")
    parts = tuple(_part(path, str(hardware_id), value) for hardware_id, value in hardware.items())
    for part in parts:
        files = {each.parcel.sha256 for each in parts if each.target == part.target and each.parcel is not None}
        if len(files) > 1:
            raise _wrong(path, f"hardware.{part.hardware_id}", f"{part.target} stands twice with different files")
    return parts


def _read(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(BUNDLE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} can't be read: {error.strerror}.") from error
    if len(data) > BUNDLE_SIZE_BYTES_MAX:
        raise CommandEnded(ExitCode.USAGE, f"{path} has more than {BUNDLE_SIZE_BYTES_MAX} bytes: that is no bundle.")
    try:
        text = data.decode()
        members = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "TOML"
        raise CommandEnded(ExitCode.USAGE, f"{path} is not {kind}: {error}") from error
    if not isinstance(members, dict):
        raise CommandEnded(ExitCode.USAGE, f"{path} holds no object.")
    return members


def _part(bundle: Path, hardware_id: str, value: Any) -> Part:
    where = f"hardware.{hardware_id}"
    if not isinstance(value, dict):
        raise _wrong(bundle, where, "is no table")
    unknown = sorted(value.keys() - _MEMBERS)
    if unknown:
        raise _wrong(bundle, f"{where}.{unknown[0]}", f"is not known; there are {', '.join(sorted(_MEMBERS))}")
    for member, text in value.items():
        if not isinstance(text, str) or not text:
            raise _wrong(bundle, f"{where}.{member}", "is a string")
    if ("image" in value) == ("target" in value):
        raise _wrong(bundle, where, "has either image (a file) or target (one that is in the Image repository)")
    only_from = value.get("from")
    if "target" in value:
        return Part(hardware_id=hardware_id, target=value["target"], only_from=only_from)
    parcel = read_parcel(bundle.parent / value["image"], version=value.get("version"), stored_as=None)
    name, version = _called(parcel, name=value.get("name"), version=value.get("version"), where=f"{where}.version")
    return Part(
        hardware_id=hardware_id,
        target=f"{name}-{version}",
        parcel=parcel,
        name=name,
        version=version,
        only_from=only_from,
    )


def _called(parcel: Parcel, *, name: str | None, version: str | None, where: str) -> tuple[str, str]:
    called = name or (parcel.image.name if parcel.image else parcel.path.stem)
    numbered = parcel.version or version
    if not numbered:
        raise CommandEnded(ExitCode.USAGE, f"{parcel.path} doesn't say its version: name it with {where}.")
    for what, word in (("name", called), ("version", numbered)):
        if not _WORD.fullmatch(word):
            raise CommandEnded(
                ExitCode.USAGE, f"The {what} {word!r} can be no part of a target's name: letters, digits, and . _ + - are."
            )
    return called, numbered


def _wrong(bundle: Path, member: str, what: str) -> CommandEnded:
    return CommandEnded(ExitCode.USAGE, f"{bundle}: {member} {what}.")
