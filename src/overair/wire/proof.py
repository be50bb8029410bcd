"""What only a verifier holds. Whoever imports this can claim that an image was verified, so an import contract names who may:
``image_signature`` and ``uptane.matching``."""

from __future__ import annotations

from typing import Final

VERIFIED: Final = object()
"""Given to the constructor of ``VerifiedImage``."""
