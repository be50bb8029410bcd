"""Bringing images into the Image repository, so that vehicles will take them; or saying what must be signed first."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from overair.cli.ecu_bundle import Part
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.uptane_rest import Listed, ToSign, UptaneRest


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned:
    """An image that waits for a signature."""

    part: Part
    hardware_ids: tuple[str, ...]

    @property
    def command(self) -> str:
        """What names it in the targets on the signer's machine; the bytes are here already."""
        part = self.part
        words = ["overair", "sign", "add", str(part.parcel.path if part.parcel else part.target), "--name", part.name]
        words += ["--version", part.version]
        for hardware_id in self.hardware_ids:
            words += ["--hardware-id", hardware_id]
        return shlex.join(words)


class NeedsSignature(Exception):
    """The targets keys are offline: nothing is on its way, and the images wait in the repository."""

    def __init__(self, waiting: Sequence[Unsigned], to_sign: ToSign | None) -> None:
        super().__init__()
        self.waiting = tuple(waiting)
        self.to_sign = to_sign

    @property
    def commands(self) -> list[str]:
        # What is in the signer's own hand is hashed there; what isn't is taken as the server has it.
        adding = [each.command for each in self.waiting if each.part.parcel is not None]
        if any(each.part.parcel is None for each in self.waiting):
            adding.append("overair sign pending --take")
        return ["overair sign pull", *adding, "overair sign push"]

    def to_json(self) -> dict[str, Any]:
        return {
            "targets": [each.part.target for each in self.waiting],
            "required_key_ids": list(self.to_sign.required_key_ids) if self.to_sign else [],
            "threshold": self.to_sign.threshold if self.to_sign else None,
            "commands": self.commands,
        }

    def in_words(self) -> str:
        names = ", ".join(each.part.target for each in self.waiting)
        who = ""
        if self.to_sign is not None and self.to_sign.required_key_ids:
            keys = ", ".join(f"{key_id[:16]}…" for key_id in self.to_sign.required_key_ids)
            who = f" ({self.to_sign.threshold} of the keys {keys})"
        commands = "".join(f"\n  {command}" for command in self.commands)
        return (
            f"Nothing was shipped: {names} waits in the Image repository for the signature of its targets role, whose keys are "
            f"offline{who}. In the signing tree:{commands}\nThen ship again, with the same words."
        )


def bring_in(rest: UptaneRest, parts: Sequence[Part]) -> dict[str, Any]:
    """See that each image is in the Image repository and signed; ``targets`` of a multi-target update.

    Raises:
        NeedsSignature: some are there and wait.
        CommandEnded: REFUSED where a name stands for other bytes or other hardware, or for nothing.
    """
    images: dict[str, Listed] = {}
    waiting: list[Unsigned] = []
    to_sign: ToSign | None = None
    for target in dict.fromkeys(part.target for part in parts):
        users = [part for part in parts if part.target == target]
        hardware_ids = tuple(part.hardware_id for part in users)
        first = next((part for part in users if part.parcel is not None), users[0])
        found = rest.find(target)
        _check(first, found, hardware_ids)
        if first.parcel is not None and (found is None or not found.is_signed):
            asked = rest.put(first, hardware_ids)
            to_sign = asked or to_sign
            if asked is not None:
                waiting.append(Unsigned(part=first, hardware_ids=hardware_ids))
            found = Listed(
                name=target,
                length=first.parcel.size_bytes,
                sha256=first.parcel.sha256,
                hardware_ids=hardware_ids,
                is_signed=asked is None,
            )
        elif found is not None and not found.is_signed:
            waiting.append(Unsigned(part=first, hardware_ids=hardware_ids))
        assert found is not None
        images[target] = found
    if waiting:
        raise NeedsSignature(waiting, to_sign)
    return {part.hardware_id: _target_update(rest, part, images[part.target]) for part in parts}


def _check(part: Part, found: Listed | None, hardware_ids: tuple[str, ...]) -> None:
    name = part.target
    if found is None:
        if part.parcel is None:
            raise CommandEnded(ExitCode.REFUSED, f"The Image repository has no target {name}. Ship its file, or name another.")
        return
    if part.parcel is not None and found.sha256 != part.parcel.sha256:
        raise CommandEnded(
            ExitCode.REFUSED,
            f"{name} is in the Image repository with other bytes (sha256 {found.sha256[:16]}…, the file has "
            f"{part.parcel.sha256[:16]}…), and a name never changes its bytes. Give the image another version, or --name.",
        )
    missing = sorted(set(hardware_ids) - set(found.hardware_ids))
    if missing and found.is_signed:
        raise CommandEnded(
            ExitCode.REFUSED,
            f"{name} is signed for hardware {', '.join(found.hardware_ids)}, not for {', '.join(missing)}. Give the image "
            f"another --name, or name it for these too: PATCH /api/v1/user_repo/targets/{name} with hardwareIds.",
        )


def _target_update(rest: UptaneRest, part: Part, image: Listed) -> dict[str, Any]:
    origin = None
    if part.only_from is not None:
        before = rest.find(part.only_from)
        if before is None:
            raise CommandEnded(
                ExitCode.REFUSED, f"The Image repository has no target {part.only_from}: nobody can be known to run it."
            )
        origin = _image(before)
    return {"from": origin, "to": _image(image), "targetFormat": "BINARY", "generateDiff": False}


def _image(image: Listed) -> dict[str, Any]:
    checksum = {"method": "sha256", "hash": image.sha256}
    return {"target": image.name, "checksum": checksum, "targetLength": image.length}
