"""Keys of metadata roles, rotated by their names (``keyring.rotation``): ``image-timestamp``, ``director-root``, …"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from overair.basics.arn import Place
from overair.basics.errors import Conflict
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.keyring.model import KeyKind, PreparedKey
from overair.server.keyring.rotation import Rotated
from overair.server.roots.model import Unsigned
from overair.server.roots.service import RootsService
from overair.wire.uptane.keys import KeyType
from overair.wire.uptane.metadata import Repository, Role

NAMES: Final = {f"{repository}-{role}": (repository, role) for repository in Repository for role in Role}
KINDS: Final = (KeyKind.ED25519, KeyKind.RSA_3072, KeyKind.RSA_4096)
"""What aktualizr reads, in the sizes that new keys have."""


class RoleKeyRotation:
    """``keyring.rotation.KeyRotation`` of this room."""

    def __init__(self, roots: RootsService) -> None:
        self._roots = roots

    def kinds(self) -> dict[str, Sequence[KeyKind]]:
        """See ``KeyRotation``."""
        return dict.fromkeys(NAMES, KINDS)

    def offline_keys(self, tx: Tx, account: AccountId) -> Iterator[tuple[str, str, str]]:
        """Keys that the newest roots name and the server doesn't hold: (name, id, kind)."""
        for repository in Repository:
            if not self._roots.exists(tx, account, repository):
                continue
            held = {key.key_id for key in self._roots.keys.all(tx, account, repository)}
            root = self._roots.accepted(tx, account, repository).root
            for role, keys in root.roles.items():
                for key_id in keys.key_ids:
                    if key_id not in held and key_id in root.keys:
                        public = root.keys[key_id]
                        is_rsa = public.type is KeyType.RSA
                        kind = f"rsa-{public.size_bits}" if is_rsa else public.type.value.lower()
                        yield f"{repository}-{role}", key_id, kind

    def rotate(self, tx: Tx, place: Place, name: str, prepared: PreparedKey) -> Rotated:
        """See ``KeyRotation``: the next root names the new key, and what the role signs is signed anew."""
        repository, role = NAMES[name]
        if not self._roots.is_online(tx, place.account, repository, role):
            raise Conflict(
                f"The {role} keys of the {repository} repository are offline: whoever holds them rotates them, with "
                "`overair sign rotate` and `overair sign push`.",
                subject="role-keys-offline",
            )
        key_type = "ED25519" if prepared.kind is KeyKind.ED25519 else "RSA"
        done = self._roots.rotate(tx, place, repository, roles=[role], key_type=key_type, prepared={role: prepared})
        if isinstance(done, Unsigned):
            return Rotated(
                in_force=False,
                told=f"The key is made. The root keys of the {repository} repository are offline: sign root {done.version}, "
                f"which names it, with {done.threshold} of {', '.join(done.required_key_ids)}, and push it (overair sign).",
            )
        if not done.is_published:
            return Rotated(in_force=False, told=f"Root {done.version} names it, and waits for targets that fit it.")
        return Rotated(in_force=True, told=f"Root {done.version} names it; devices learn of it at their next look.")
