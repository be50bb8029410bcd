"""The server's own authorities over devices, rotated by their names (``keyring.rotation``).

The authority over the server's own certificate isn't among them: devices must learn of its successor first, so it follows in
steps (``AuthoritiesService.begin_rotation``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from overair.basics.arn import Place
from overair.basics.work import Tx
from overair.server.certificates.authorities import AuthoritiesService
from overair.server.certificates.keys import AUTHORITY_KEY_KIND
from overair.server.certificates.model import AuthorityPurpose
from overair.server.keyring.model import KeyKind, PreparedKey
from overair.server.keyring.rotation import Rotated

NAMES: Final = {
    purpose.value: purpose
    for purpose in (
        AuthorityPurpose.DEVICE_AUTHORITY,
        AuthorityPurpose.FLEET_AUTHORITY,
        AuthorityPurpose.CREDENTIAL_AUTHORITY,
    )
}


class AuthorityRotation:
    """``keyring.rotation.KeyRotation`` of this room."""

    def __init__(self, authorities: AuthoritiesService) -> None:
        self._authorities = authorities

    def kinds(self) -> dict[str, Sequence[KeyKind]]:
        """See ``KeyRotation``."""
        return dict.fromkeys(NAMES, (AUTHORITY_KEY_KIND,))

    def rotate(self, tx: Tx, place: Place, name: str, prepared: PreparedKey) -> Rotated:
        """See ``KeyRotation``: what the old authority issued stays registered, and goes on."""
        self._authorities.rotate_device_authority(tx, place.account, NAMES[name], prepared)
        return Rotated(
            in_force=True,
            told="It issues from now on. What the former one issued is known by its own fingerprint and goes on; the former "
            "key is gone.",
        )
