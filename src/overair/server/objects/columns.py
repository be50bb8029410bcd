"""What this room's tables share: how properties are written down, and the conditions of a list's page."""

from __future__ import annotations

from typing import Any, Final

import msgspec
from sqlalchemy import Column, ColumnElement, and_, or_

from overair.server.objects.model import ChecksumType, Properties
from overair.server.objects.ports import Position

CONTENT_ID_LENGTH: Final = 66

_DEFAULT_PROPERTIES: Final = Properties()
_encoder: Final = msgspec.json.Encoder()


def properties_text(properties: Properties) -> str:
    """Only what differs from the default, so that most rows stay short."""
    content = {
        name: getattr(properties, name)
        for name in Properties.__dataclass_fields__
        if getattr(properties, name) != getattr(_DEFAULT_PROPERTIES, name)
    }
    return _encoder.encode(content).decode()


def read_properties(text: str) -> Properties:
    content = msgspec.json.decode(text)
    if "checksum_type" in content:
        content["checksum_type"] = ChecksumType(content["checksum_type"])
    return Properties(**content)


def within(key: Column[str], at: Position, below: str | None, behind: ColumnElement[bool] | None = None) -> list[Any]:
    """The conditions of a list's page."""
    conditions: list[Any] = [key >= at.at_least]
    if at.after is not None:
        conditions.append(key > at.after if behind is None else or_(key > at.after, and_(key == at.after, behind)))
    if below is not None:
        conditions.append(key < below)
    return conditions
