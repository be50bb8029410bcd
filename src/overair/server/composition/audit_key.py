"""The key that signs the heads of an account's audit chain: in the keyring, under its purpose."""

from __future__ import annotations

from typing import Final

from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.keyring.keys import public_key_raw
from overair.server.keyring.model import KeyKind, SignatureAlgorithm
from overair.server.keyring.service import Keyring

PURPOSE: Final = "audit-head"


class AuditKey:
    """``audit.heads.HeadKey``."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring

    def sign(self, tx: Tx, account: AccountId, data: bytes) -> tuple[bytes, bytes]:
        """With the account's key, which is made when it is first needed."""
        held = [key.key_id for key in self._keyring.list(tx, account) if key.purpose == PURPOSE]
        key_id = held[0] if held else self._keyring.create(tx, account, KeyKind.ED25519, PURPOSE)
        signature = self._keyring.sign(tx, account, key_id, data, algorithm=SignatureAlgorithm.ED25519)
        return public_key_raw(self._keyring.public_key(tx, account, key_id)), signature
