"""Keys ready to verify with: secrets opened once, remembered until any key changes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from overair.basics.ids import AccessKeyId, AccountId
from overair.basics.redacted import Redacted
from overair.basics.work import News, Tx, Work
from overair.server.access.key_uses import KeyUses
from overair.server.access.model import Credential, KeyStatus, Session
from overair.server.access.stores import IdentityStore, SecretBox

REMEMBERED_MAX: Final = 10_000


def sealed_context(account: AccountId, key_id: AccessKeyId) -> str:
    """What binds a sealed secret to its row."""
    return f"access-key/{account}/{key_id}"


def seal(box: SecretBox, account: AccountId, key_id: AccessKeyId, secret: Redacted[str]) -> bytes:
    """A key's secret as its row holds it."""
    return box.wrap(Redacted(secret.reveal().encode("ascii")), context=sealed_context(account, key_id))


class CredentialDirectory:
    """Finds who holds a key. Unknown ids are not remembered, so that guessing fills no memory."""

    def __init__(self, store: IdentityStore, box: SecretBox) -> None:
        self._store = store
        self._box = box
        self._remembered: dict[str, Credential] = {}
        self._watchers: list[Callable[[], None]] = []
        self.uses = KeyUses()
        """Whoever believes a credential notes it here."""
        self._generation = 0
        self._gate = threading.Lock()

    def remembered(self, key_id: str) -> Credential | None:
        """Without asking the records."""
        return self._remembered.get(key_id)

    async def fetch(self, work: Work, key_id: str) -> Credential | None:
        """From memory or from the records; None where nobody has such a key."""
        found = self._remembered.get(key_id)
        if found is not None:
            return found
        generation = self._generation
        credential = await work.read(lambda tx: self.load(tx, AccessKeyId(key_id)))
        if credential is not None:
            with self._gate:
                if generation == self._generation:
                    if len(self._remembered) >= REMEMBERED_MAX:
                        self._remembered.clear()
                    self._remembered[key_id] = credential
        return credential

    def evict(self) -> None:
        """Forget everything: some key or its holder has changed. Called after the commit."""
        with self._gate:
            self._generation += 1
            self._remembered.clear()
        for changed in self._watchers:
            changed()

    def watched_by(self, changed: Callable[[], None]) -> None:
        """Register, at composition, whoever has let somebody in by a key and must ask again: called on the event loop after
        each commit that changed a key or its holder."""
        self._watchers.append(changed)

    def evict_after(self, tx: Tx) -> None:
        """Forget everything once this unit has committed."""
        tx.after_commit(self.evict)
        tx.tell_nodes(News("credentials"))

    def load(self, tx: Tx, key_id: AccessKeyId) -> Credential | None:
        """From the records alone."""
        if key_id.startswith("ASIA"):
            return self._session(tx, key_id)
        key = self._store.key_by_id(tx, key_id)
        if key is None:
            return None
        secret = self._open(key.account, key.key_id, key.sealed_secret)
        is_active = key.status is KeyStatus.ACTIVE
        if not key.user_name:
            return Credential(
                account=key.account,
                key_id=key.key_id,
                secret=secret,
                is_active=is_active,
                principal_arn=f"arn:aws:iam::{key.account}:root",
                user_id=key.account,
                is_root=True,
            )
        user = self._store.find_user(tx, key.account, key.user_name)
        if user is None:
            return None
        return Credential(
            account=key.account,
            key_id=key.key_id,
            secret=secret,
            is_active=is_active,
            principal_arn=user.arn,
            user_id=user.user_id,
            user_name=user.name,
            tags=user.tags,
        )

    def _session(self, tx: Tx, key_id: AccessKeyId) -> Credential | None:
        session = self._store.session_by_id(tx, key_id)
        if session is not None and not session.role_name:
            return self._of_user(tx, session)
        role = None if session is None else self._store.find_role(tx, session.account, session.role_name)
        if session is None or role is None:
            return None
        given = {key.lower() for key in session.tags}
        return Credential(
            account=session.account,
            key_id=session.key_id,
            secret=self._open(session.account, session.key_id, session.sealed_secret),
            is_active=True,
            principal_arn=f"arn:aws:sts::{session.account}:assumed-role/{role.name}/{session.session_name}",
            user_id=f"{role.role_id}:{session.session_name}",
            session_name=session.session_name,
            role_arn=role.arn,
            token_sha256=session.token_sha256,
            expires=session.expires,
            # Keys of tags are one whatever their case.
            tags={key: value for key, value in role.tags.items() if key.lower() not in given} | dict(session.tags),
        )

    def _of_user(self, tx: Tx, session: Session) -> Credential | None:
        """A user's temporary keys: he himself, for a time."""
        user = self._store.find_user(tx, session.account, session.user_name) if session.user_name else None
        if user is None and session.user_name:
            return None
        return Credential(
            account=session.account,
            key_id=session.key_id,
            secret=self._open(session.account, session.key_id, session.sealed_secret),
            is_active=True,
            principal_arn=f"arn:aws:iam::{session.account}:root" if user is None else user.arn,
            user_id=session.account if user is None else user.user_id,
            user_name="" if user is None else user.name,
            is_root=user is None,
            token_sha256=session.token_sha256,
            expires=session.expires,
            tags={} if user is None else user.tags,
        )

    def _open(self, account: AccountId, key_id: AccessKeyId, sealed: bytes) -> Redacted[str]:
        return Redacted(self._box.unwrap(sealed, context=sealed_context(account, key_id)).reveal().decode("ascii"))
