"""Nouns of root chains. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from overair.basics.clock import Instant
from overair.basics.ids import KeyId, ThingName
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, Repository, Role, Root
from overair.wire.uptane.metadata_reading import read_document, read_root

ROOTS_IN_MEMORY_MAX: Final = 256
KEPT_KEY_MS: Final = 24 * 3600 * 1000
"""How long a private key that no root names any more waits to be deleted by whoever pushed that root."""
ALWAYS_ONLINE: Final[Mapping[Repository, tuple[Role, ...]]] = {
    Repository.IMAGE: (Role.SNAPSHOT, Role.TIMESTAMP),
    Repository.DIRECTOR: (Role.TARGETS, Role.SNAPSHOT, Role.TIMESTAMP),
}
"""The roles whose keys the server must own: it signs them without anybody near (Uptane reference §9.1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One rule that a pushed document breaks, or comes close to breaking."""

    code: str
    field: str
    """The path of the member: ``signed.roles.root.threshold``. Of the TUF flavour it begins with ``tuf.``."""
    message: str
    hint: str = ""

    def to_json(self) -> dict[str, str]:
        """As the ``errors`` and ``warnings`` of an answer carry it."""
        return {"code": self.code, "field": self.field, "description": self.message, "hint": self.hint}


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredRoot:
    """One version of a root, as it was accepted."""

    repository: Repository
    version: int
    root: Root
    documents: Mapping[Flavour, bytes]
    """The canonical bytes. Without a TUF flavour, the view for TUF's clients ends with the version before."""
    is_published: bool
    """In the Uptane flavour. Not yet where what the repository serves isn't signed by the new keys: then devices don't see it.
    The TUF flavour may still wait when this is true."""
    stored_at: Instant


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineKey:
    """A role's private key that the keyring holds."""

    repository: Repository
    role: Role
    key_id: str
    """SHA-256 of the SubjectPublicKeyInfo: as documents call it."""
    keyring_key: KeyId
    created_at: Instant
    exported_at: Instant | None = None
    """When somebody last took a copy."""
    unlisted_at: Instant | None = None
    """When a root was published that doesn't name it, by somebody who wanted it kept until he has read that root back. It signs
    nothing from then on."""

    @property
    def kept_until(self) -> Instant | None:
        """When the server deletes it, if nobody does so before; None for a key that is in use."""
        return None if self.unlisted_at is None else Instant(self.unlisted_at + KEPT_KEY_MS)


@dataclass(frozen=True, slots=True, kw_only=True)
class RootProbe:
    """The highest root version that a thing has asked for: one more than it has (Uptane reference §13)."""

    thing: ThingName
    version: int
    at: Instant

    @property
    def client_version(self) -> int:
        """0: it has none yet."""
        return self.version - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsigned:
    """A document that waits for signatures from outside."""

    role: Role
    version: int
    signed: Mapping[Flavour, Mapping[str, object]]
    required_key_ids: tuple[str, ...]
    threshold: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleExpiry:
    """Until when one role's document counts, and whether anybody must do something about it."""

    repository: Repository
    role: str
    """A role, or the name of a delegation."""
    version: int
    expires: Instant
    is_online: bool
    """Whether the server signs it anew by itself."""
    alarm_days: int | None
    """The countdown that it has reached: 30, 14, 7, 3, 1; 0 when it has ended; None while all is well."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RootPushed:
    """What became of a pushed root."""

    stored: StoredRoot
    warnings: Sequence[Finding] = field(default_factory=tuple)


@lru_cache(maxsize=ROOTS_IN_MEMORY_MAX)
def read_stored_root(document: bytes, flavour: Flavour) -> Root:
    """What a root says that was accepted once. Roots never change, so each is read once."""
    return read_root(read_document(document, Role.ROOT, flavour=flavour, size_bytes_max=ROOT_SIZE_BYTES_MAX))
