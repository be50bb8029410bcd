"""What ``overair ship`` sends, and to whom: looked at before anything leaves this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from overair.cli.audience import Audience, targets_of
from overair.cli.ecu_bundle import Part, parts_of, read_bundle
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import Operator
from overair.cli.parcel import Parcel, read_parcel
from overair.cli.uptane_rest import UptaneRest


@dataclass(frozen=True, slots=True, kw_only=True)
class Shipment:
    """What things without ECUs get, and what ECUs get."""

    parcel: Parcel | None
    parts: tuple[Part, ...]


def shipment_of(
    image: Path | None,
    bundle: Path | None,
    hardware_ids: Sequence[str],
    *,
    version: str | None = None,
    stored_as: str | None = None,
    name: str | None = None,
) -> Shipment:
    if bundle is not None and (hardware_ids or name is not None):
        raise CommandEnded(ExitCode.USAGE, "A bundle says by itself which hardware gets what, and what it is called.")
    if image is None and bundle is None:
        raise CommandEnded(ExitCode.USAGE, "Name an image, or a --bundle.")
    parcel = None if image is None else read_parcel(image, version=version, stored_as=stored_as)
    if bundle is not None:
        return Shipment(parcel=parcel, parts=read_bundle(bundle))
    assert parcel is not None
    if not hardware_ids:
        return Shipment(parcel=parcel, parts=())
    return Shipment(parcel=parcel, parts=parts_of(parcel, hardware_ids, name=name, version=version))


def audience_of(operator: Operator, rest: UptaneRest, to: str, shipment: Shipment, *, dry_run: bool = False) -> Audience:
    targets, things = targets_of(operator, to, dry_run=dry_run)
    if not things:
        raise CommandEnded(ExitCode.REFUSED, f"{to} names no thing yet: there is nobody to ship to.")
    registered = rest.registered() if shipment.parts else frozenset()
    audience = Audience(targets=targets, things=things, uptane=[thing for thing in things if thing in registered])
    if shipment.parcel is None and not audience.uptane:
        raise CommandEnded(
            ExitCode.REFUSED,
            f"None of the {len(things)} thing(s) of {to} has registered ECUs, and without an IMAGE there is nothing for them.",
        )
    return audience
