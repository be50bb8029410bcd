"""The signed head: where an account's chain has got to, said with a key of the keyring. An auditor keeps it elsewhere."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from overair.basics.clock import Clock, Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.audit.model import CHAIN_FORMAT, AuditRecord, ChainWalk, Reached
from overair.server.audit.service import AuditStore

HEAD_SIZE_BYTES_MAX: Final = 4096


class HeadKey(Protocol):
    """An account's Ed25519 key for heads, made when it is first asked for."""

    def sign(self, tx: Tx, account: AccountId, data: bytes) -> tuple[bytes, bytes]:
        """The raw public key, and the signature."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditHead:
    """What an auditor keeps."""

    reached: Reached
    at: Instant
    public_key: bytes
    signature: bytes

    def text(self) -> str:
        """One line of JSON."""
        return json.dumps(
            {
                **_signed(self.reached, self.at),
                "publicKey": base64.b64encode(self.public_key).decode("ascii"),
                "signature": base64.b64encode(self.signature).decode("ascii"),
            }
        )


def _signed(reached: Reached, at: Instant) -> dict[str, Any]:
    return {
        "format": CHAIN_FORMAT,
        "account": reached.account,
        "sequence": reached.sequence,
        "chainHash": reached.chain_hash,
        "time": int(at),
    }


def _to_sign(reached: Reached, at: Instant) -> bytes:
    return json.dumps(_signed(reached, at), sort_keys=True, separators=(",", ":")).encode("ascii")


class AuditHeads:
    """Signs heads."""

    def __init__(self, store: AuditStore, key: HeadKey, *, clock: Clock) -> None:
        self._store = store
        self._key = key
        self._clock = clock

    def sign(self, tx: Tx, account: AccountId) -> AuditHead:
        """The head as of this unit of work."""
        reached, at = self._store.reached(tx, account), self._clock.now()
        public_key, signature = self._key.sign(tx, account, _to_sign(reached, at))
        return AuditHead(reached=reached, at=at, public_key=public_key, signature=signature)


def read_head(text: bytes) -> AuditHead:
    """A head that was kept, once its signature has been checked.

    Raises:
        InvalidRequest: it isn't one, or it was changed. Subject ``audit-head``.
    """
    try:
        if len(text) > HEAD_SIZE_BYTES_MAX:
            raise ValueError
        content = json.loads(text)
        if content["format"] != CHAIN_FORMAT:
            raise ValueError
        reached = Reached(
            account=AccountId(content["account"]), sequence=int(content["sequence"]), chain_hash=str(content["chainHash"])
        )
        head = AuditHead(
            reached=reached,
            at=Instant(int(content["time"])),
            public_key=base64.b64decode(content["publicKey"], validate=True),
            signature=base64.b64decode(content["signature"], validate=True),
        )
        Ed25519PublicKey.from_public_bytes(head.public_key).verify(head.signature, _to_sign(reached, head.at))
    except InvalidSignature:
        raise InvalidRequest(
            "The head was changed after it was signed: its signature doesn't fit. Take the one that you kept elsewhere.",
            subject="audit-head",
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise InvalidRequest("This isn't a head that `overair audit head` wrote.", subject="audit-head") from None
    return head


def walk(head: AuditHead, rows: Iterable[AuditRecord]) -> int:
    """Follow all rows of the head's account, in chain order; how many there are in the chain.

    Raises:
        ChainBroken: an edited, deleted, moved or truncated row.
    """
    following = ChainWalk(head.reached)
    for row in rows:
        following.follow(row)
    following.end()
    return following.sequence
