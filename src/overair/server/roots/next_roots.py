"""The root that would follow: what it says, and the keys that it names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.roots.chains import RootChains
from overair.server.roots.lifetimes import LIFETIMES
from overair.server.roots.model import StoredRoot, Unsigned
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import Repository, Role, RoleKeys, Root
from overair.wire.uptane.metadata_writing import MetadataSigner, payload, sign_payload

BOTH: Final = (Flavour.UPTANE, Flavour.TUF)


class NextRoots(RootChains):
    """Describes roots; ``service`` accepts and publishes them."""

    def unsigned(self, tx: Tx, account: AccountId, repository: Repository) -> Unsigned:
        """The root that would follow: the next version, a fresh end, and those of the server's own keys that wait to be named
        (after ``rotate`` or ``adopt_chain``) in place of the older ones."""
        accepted = self.accepted(tx, account, repository)
        standing = accepted.root
        named = self._named_until_now(tx, account, repository, accepted)
        waiting: dict[Role, list[PublicKey]] = {}
        for key in self.keys.all(tx, account, repository):
            if key.key_id not in named and key.unlisted_at is None:
                waiting.setdefault(key.role, []).append(self.keys.public(tx, account, key))
        # Of several that were made for one role only the last is meant.
        root = self.following(with_keys(standing, {role: keys[-1:] for role, keys in waiting.items()}), repository)
        keys = standing.role_keys(Role.ROOT)
        return Unsigned(
            role=Role.ROOT,
            version=root.version,
            signed={flavour: payload(root, flavour) for flavour in BOTH},
            required_key_ids=keys.key_ids,
            threshold=keys.threshold,
        )

    def following(self, root: Root, repository: Repository) -> Root:
        expires = whole_second(self._clock.now() + LIFETIMES[repository, Role.ROOT].lasts_ms)
        return replace(root, version=root.version + 1, expires=expires)

    def _named_until_now(self, tx: Tx, account: AccountId, repository: Repository, accepted: StoredRoot) -> set[str]:
        """The key ids of the published root and of those that wait: not of keys that are still to be named."""
        first = self.current(tx, account, repository).version
        roots = [self.find(tx, account, repository, version) for version in range(first, accepted.version)]
        return {key_id for each in (*roots, accepted) if each is not None for key_id in each.root.keys}

    @staticmethod
    def signed(
        repository: Repository,
        root: Root,
        signers: Sequence[MetadataSigner],
        now: Instant,
        flavours: Iterable[Flavour],
    ) -> StoredRoot:
        documents = {flavour: sign_payload(payload(root, flavour), signers, flavour) for flavour in flavours}
        return StoredRoot(
            repository=repository,
            version=root.version,
            root=root,
            documents=documents,
            is_published=False,
            stored_at=now,
        )


def with_keys(root: Root, replaced: Mapping[Role, Sequence[PublicKey]]) -> Root:
    """The same root with other keys for some roles, at a threshold that they can meet; keys that nobody needs any more go."""
    roles = dict(root.roles)
    keys = dict(root.keys)
    for role, new in replaced.items():
        if not new:
            continue
        roles[role.value] = RoleKeys(
            key_ids=tuple(key.id for key in new), threshold=min(root.role_keys(role).threshold, len(new))
        )
        keys |= {key.id: key for key in new}
    named = {key_id for role_keys in roles.values() for key_id in role_keys.key_ids}
    return replace(root, keys={key_id: key for key_id, key in keys.items() if key_id in named}, roles=roles)


def whole_second(moment: int) -> Instant:
    """Documents say whole seconds."""
    return Instant(moment // 1000 * 1000)
