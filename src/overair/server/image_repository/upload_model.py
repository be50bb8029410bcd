"""Uploads of images in parts. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from overair.basics.clock import Instant
from overair.server.image_repository.model import ImageUploadId
from overair.server.objects.model import ContentId

DAY_MS: Final = 24 * 3600 * 1000
UPLOAD_ID_LENGTH: Final = 48
PART_NUMBER_MAX: Final = 10_000
PART_SIZE_BYTES_DEFAULT: Final = 64 * 1024 * 1024
"""What tools are told to send as one part."""
PART_SIZE_BYTES_MAX: Final = 5 * 1024**3
IMAGE_SIZE_BYTES_MAX: Final = 5 * 1024**4
URL_LASTS_MS: Final = 3600 * 1000
GIVEN_UP_AFTER_MS: Final = 7 * DAY_MS
"""An upload that nobody has completed by then is forgotten with its parts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageUpload:
    upload_id: ImageUploadId
    name: str
    size_bytes: int
    created_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadedPart:
    number: int
    content_id: ContentId
    size_bytes: int
    md5_hex: str
