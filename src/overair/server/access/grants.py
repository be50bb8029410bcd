"""What one principal's own policies grant, compiled, and remembered until any policy changes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from overair.basics.arn import parse_arn
from overair.basics.ids import AccessKeyId, AccountId
from overair.basics.work import News, Tx, Work
from overair.server.access import aws_managed
from overair.server.access.link_keys import LINK_KEY_PREFIX
from overair.server.access.model import Owner, OwnerKind
from overair.server.access.stores import IdentityStore, PolicyStore
from overair.server.aws_protocol.operations import Caller
from overair.server.policy_language.document import Kind
from overair.server.policy_language.evaluation import CompiledPolicy, Decision, Question, evaluate

REMEMBERED_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class PrincipalKey:
    """Whose grants: a user, a role, or one session of a role (which a session policy may narrow)."""

    account: AccountId
    owner: Owner
    session_key: AccessKeyId | None = None
    role_id: str | None = None
    """Of the role that was taken on: one that was deleted since, and made anew under the same name, is another. None: any."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grants:
    """Identity policies, and what narrows them: a permissions boundary, a session's own policy."""

    identity: tuple[CompiledPolicy, ...]
    narrowing: tuple[tuple[CompiledPolicy, ...], ...] = ()

    def decide(self, question: Question) -> Decision:
        """An explicit deny anywhere wins; an allow must be given by the identity and by each that narrows."""
        decisions = [evaluate(self.identity, question), *(evaluate(policies, question) for policies in self.narrowing)]
        if Decision.EXPLICIT_DENY in decisions:
            return Decision.EXPLICIT_DENY
        return Decision.IMPLICIT_DENY if Decision.IMPLICIT_DENY in decisions else Decision.ALLOW


@lru_cache(maxsize=4096)
def compiled(document: str, kind: Kind) -> CompiledPolicy:
    """A document that was accepted when it was stored, compiled once."""
    return CompiledPolicy.parse(document, kind)


def principal_of(caller: Caller) -> PrincipalKey | None:
    """Whose policies decide for a caller; None for the account's root, which needs none."""
    if caller.is_root:
        return None
    arn = parse_arn(caller.principal_arn)
    if arn.service == "sts":
        role = arn.resource.split("/")[1]
        # A link's key has no session of its own to narrow it; each would be remembered for nothing.
        is_link = caller.access_key_id.startswith(LINK_KEY_PREFIX)
        session = None if is_link else AccessKeyId(caller.access_key_id)
        role_id = caller.user_id.partition(":")[0]
        return PrincipalKey(caller.account, Owner(kind=OwnerKind.ROLE, name=role), session, role_id)
    return PrincipalKey(caller.account, Owner(kind=OwnerKind.USER, name=arn.resource.rpartition("/")[2]))


class GrantsDirectory:
    """Loads grants, and remembers what was read from committed records."""

    def __init__(self, identities: IdentityStore, policies: PolicyStore) -> None:
        self._identities = identities
        self._policies = policies
        self._remembered: dict[PrincipalKey, Grants] = {}
        self._generation = 0
        self._gate = threading.Lock()
        self._watchers: list[Callable[[], None]] = []

    def watched_by(self, changed: Callable[[], None]) -> None:
        """Register, at composition, whoever remembers what a grant allowed (streams' descriptors): called on the event loop
        after each commit that changed an identity or a policy, before the change is acknowledged."""
        self._watchers.append(changed)

    def of(self, tx: Tx, key: PrincipalKey) -> Grants:
        """The grants as this unit sees them. Not remembered: a unit may see what is never committed."""
        return self._remembered.get(key) or self._load(tx, key)

    async def fetch(self, work: Work, key: PrincipalKey) -> Grants:
        """The same for the dispatcher, remembered."""
        found = self._remembered.get(key)
        if found is not None:
            return found
        generation = self._generation
        grants = await work.read(lambda tx: self._load(tx, key))
        with self._gate:
            # Something changed while we read: what was read may be the past.
            if generation == self._generation:
                if len(self._remembered) >= REMEMBERED_MAX:
                    self._remembered.clear()
                self._remembered[key] = grants
        return grants

    def evict(self) -> None:
        """Forget everything: some identity or policy has changed. Called after the commit."""
        with self._gate:
            self._generation += 1
            self._remembered.clear()
        for changed in self._watchers:
            changed()

    def evict_after(self, tx: Tx) -> None:
        """Forget everything once this unit has committed."""
        tx.after_commit(self.evict)
        tx.tell_nodes(News("grants"))

    def _load(self, tx: Tx, key: PrincipalKey) -> Grants:
        owner = key.owner
        if owner.kind is OwnerKind.USER:
            user = self._identities.find_user(tx, key.account, owner.name)
            if user is None:
                return Grants(identity=())
            boundary = user.boundary_arn
        else:
            role = self._identities.find_role(tx, key.account, owner.name)
            if role is None or key.role_id not in (None, role.role_id):
                return Grants(identity=())
            boundary = role.boundary_arn
        kind = Kind.INLINE_USER if owner.kind is OwnerKind.USER else Kind.INLINE_ROLE
        inline = [compiled(text, kind) for text in self._policies.inline_of(tx, key.account, owner).values()]
        attached = self._managed(tx, key.account, self._policies.attached_to(tx, key.account, owner))
        narrowing = []
        if boundary is not None:
            narrowing.append(self._managed(tx, key.account, [boundary]))
        if key.session_key is not None:
            session = self._identities.session_by_id(tx, key.session_key)
            if session is not None and session.policy_document is not None:
                narrowing.append((compiled(session.policy_document, Kind.INLINE_USER),))
        return Grants(identity=(*inline, *attached), narrowing=tuple(narrowing))

    def _managed(self, tx: Tx, account: AccountId, arns: Sequence[str]) -> tuple[CompiledPolicy, ...]:
        documents = [aws_managed.DOCUMENTS[arn] for arn in arns if arn in aws_managed.DOCUMENTS]
        own = [arn.rpartition("/")[2] for arn in arns if arn not in aws_managed.DOCUMENTS]
        if own:
            documents.extend(self._policies.default_documents(tx, account, own).values())
        return tuple(compiled(document, Kind.MANAGED) for document in documents)
