"""What an import will bring, what it can't, and whose signatures it needs: everything is asked before anything is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overair.cli.migrate.handover import Handover, Level
from overair.cli.migrate.layout import Documents
from overair.cli.rest import finding_in_words
from overair.cli.sign.known import Known, fingerprint
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, TargetFile

NAMED_MAX = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageFile:
    """An image whose bytes are in the directory."""

    name: str
    path: Path
    length: int
    sha256: str


@dataclass(slots=True, kw_only=True)
class Plan:
    """All of it. ``errors`` keep it from being carried out; refused devices only keep themselves out."""

    source: str
    level: Level
    known: Mapping[Repository, Known]
    documents: Mapping[tuple[Repository, Flavour], Documents]
    is_there: bool = False
    """The repositories are there already: an earlier import got so far."""
    uploads: list[ImageFile] = field(default_factory=list)
    """Of these the server has no bytes yet."""
    images: int = 0
    elsewhere: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    handover: Handover | None = None
    authorities: list[dict[str, Any]] = field(default_factory=list)
    """What is sent of each."""
    authority_names: list[str] = field(default_factory=list)
    devices: dict[str, int] = field(default_factory=dict)
    """Outcome → how many."""
    refused_devices: dict[str, list[str]] = field(default_factory=dict)
    device_warnings: dict[str, list[str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        image, director = self.known[Repository.IMAGE], self.known[Repository.DIRECTOR]
        return {
            "source": self.source,
            "level": self.level.value,
            "repositories_there": self.is_there,
            "image": {
                "root_version": image.root.version,
                "first_root_sha256": fingerprint(image.served.roots[0]),
                "targets": sum(len(body.targets) for body in bodies(image)),
                "delegations": sorted(image.delegations),
            },
            "director": {
                "root_version": director.root.version,
                "first_root_sha256": fingerprint(director.served.roots[0]),
            },
            "images": {
                "here": self.images,
                "to_upload": len(self.uploads),
                "bytes_to_upload": sum(each.length for each in self.uploads),
                "elsewhere": list(self.elsewhere),
                "missing": list(self.missing),
            },
            "signatures_needed": [each.to_json() for each in self.handover.needed] if self.handover is not None else [],
            "signatures_missing": [each.to_json() for each in self.handover.missing] if self.handover is not None else [],
            "fleet_authorities": list(self.authority_names),
            "devices": {**self.devices, "total": sum(self.devices.values())},
            "refused_devices": dict(self.refused_devices),
            "device_warnings": dict(self.device_warnings),
            "errors": list(self.errors),
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        """For people."""
        image, director = self.known[Repository.IMAGE], self.known[Repository.DIRECTOR]
        first = {repository: fingerprint(known.served.roots[0]) for repository, known in self.known.items()}
        targets = sum(len(body.targets) for body in bodies(image))
        lines = [
            f"From {self.source}:" if self.source else "From this directory:",
            f"  Image repository: roots 1 to {image.root.version} (the first: {first[Repository.IMAGE]}), {targets} targets, "
            f"{len(image.delegations)} delegations.",
            f"  Director: roots 1 to {director.root.version} (the first: {first[Repository.DIRECTOR]}).",
            f"  Images: {self.images} with their bytes, {len(self.uploads)} of them to upload; {len(self.elsewhere)} that lie "
            f"elsewhere; {len(self.missing)} without bytes{_some(self.missing)}.",
            f"  Fleet authorities: {len(self.authorities)}{_some(self.authority_names)}.",
            f"  Devices: {sum(self.devices.values())}, of which {len(self.refused_devices)} can't come.",
        ]
        if self.is_there:
            lines.append("The repositories are there already; what is left goes on.")
        elif self.handover is not None:
            whose = "this server for all roles" if self.level is Level.DEFAULT else "you for root and targets"
            lines.append(f"Root {image.root.version + 1} hands over; from then on {whose} signs.")
            lines += [f"  needs {each.text}" for each in self.handover.needed]
        lines += [f"  {device}: {'; '.join(errors)}" for device, errors in list(self.refused_devices.items())[:NAMED_MAX]]
        lines += [f"! {warning}" for warning in self.warnings]
        return lines


def bodies(known: Known) -> Sequence[Any]:
    """Targets and every delegation in force."""
    return [*([] if known.targets is None else [known.targets]), *known.delegations.values()]


def needs_bytes(target: TargetFile) -> bool:
    """Whether devices would fetch it from the repository itself."""
    return target.uri is None and target.custom.get("targetFormat", "BINARY") == "BINARY"


def errors_in_words(errors: Sequence[Any], otherwise: str) -> list[str]:
    """Of a refusal's ``errors``; its message where it has none."""
    return [finding_in_words(each) for each in errors] or [otherwise]


def _some(names: Sequence[str]) -> str:
    if not names:
        return ""
    return f" ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})"
