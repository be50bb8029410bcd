"""Signing what somebody else has described: a payload that the server offers, or one made wrong on purpose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata_writing import MetadataSigner, sign_payload


def sign_described(
    described: Mapping[Flavour, Mapping[str, object]], signers: Sequence[MetadataSigner]
) -> dict[Flavour, bytes]:
    """The same in each flavour, signed."""
    return {flavour: sign_payload(signed, signers, flavour) for flavour, signed in described.items()}
