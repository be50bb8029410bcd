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
from overair.server.access.model import Owner, OwnerKind, Role, User, UserGroup
from overair.server.access.stores import IdentityStore, PolicyStore, UserGroupStore
from overair.server.aws_protocol.operations import Caller
from overair.server.policy_language.document import Kind
from overair.server.policy_language.evaluation import CompiledPolicy, Decision, Question, evaluate

REMEMBERED_MAX: Final = 10_000
RESOURCE_TAG: Final = ("aws:resourcetag/", "iam:resourcetag/")
INLINE_KINDS: Final = {
    OwnerKind.USER: Kind.INLINE_USER,
    OwnerKind.GROUP: Kind.INLINE_GROUP,
    OwnerKind.ROLE: Kind.INLINE_ROLE,
}
"""What an owner's inline policies are read as."""


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
    """Identity policies (a user's with those of its groups), and what narrows them; None narrows nothing, nothing narrows to
    nothing."""

    identity: tuple[CompiledPolicy, ...]
    boundary: tuple[CompiledPolicy, ...] | None = None
    session: tuple[CompiledPolicy, ...] | None = None
    asks_for_tags: bool = False
    """Whether any of them depends on the tags of the resource that is asked about, so that these must be looked up."""

    def decide(self, question: Question) -> Decision:
        """An explicit deny anywhere wins; an allow must be given by the identity and by each that narrows."""
        decision = evaluate(self.identity, question)
        if decision is Decision.EXPLICIT_DENY or (self.boundary is None and self.session is None):
            return decision
        narrowed = self.narrowed(question)
        return narrowed if narrowed is not Decision.ALLOW else decision

    def narrowed(self, question: Question) -> Decision:
        """What boundary and session policy together say, whatever the identity policies do."""
        decisions = [evaluate(policies, question) for policies in (self.boundary, self.session) if policies is not None]
        if Decision.EXPLICIT_DENY in decisions:
            return Decision.EXPLICIT_DENY
        return Decision.IMPLICIT_DENY if Decision.IMPLICIT_DENY in decisions else Decision.ALLOW

    def refusal(self, question: Question) -> str:
        """The kind of policy that refuses, for people to read."""
        decision = self.decide(question)
        for kind, policies in (("permissions boundary", self.boundary), ("session policy", self.session)):
            if policies is not None and evaluate(self.identity, question) is not decision is evaluate(policies, question):
                return kind
        return "identity-based policy"


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

    def __init__(self, identities: IdentityStore, policies: PolicyStore, groups: UserGroupStore) -> None:
        self._identities = identities
        self._policies = policies
        self._groups = groups
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
        session = None
        if key.session_key is not None:
            found = self._identities.session_by_id(tx, key.session_key)
            if found is not None and (found.policy_document is not None or found.policy_arns):
                own = () if found.policy_document is None else (compiled(found.policy_document, Kind.SESSION),)
                session = (*own, *self.managed(tx, key.account, found.policy_arns))
        identity = self.identity_of(tx, key.account, owner)
        bounding = None if boundary is None else self.managed(tx, key.account, [boundary])
        everything = (*identity, *(bounding or ()), *(session or ()))
        return Grants(
            identity=identity,
            boundary=bounding,
            session=session,
            asks_for_tags=any(policy.looks_at(prefix) for policy in everything for prefix in RESOURCE_TAG),
        )

    def holder(self, tx: Tx, account: AccountId, owner: Owner) -> User | UserGroup | Role | None:
        """Whom policies are put on, if there is such."""
        if owner.kind is OwnerKind.USER:
            return self._identities.find_user(tx, account, owner.name)
        if owner.kind is OwnerKind.GROUP:
            return self._groups.find_group(tx, account, owner.name)
        return self._identities.find_role(tx, account, owner.name)

    def identity_of(self, tx: Tx, account: AccountId, owner: Owner) -> tuple[CompiledPolicy, ...]:
        """The policies put on an owner and attached to it; a user has those of its groups too."""
        owners = [owner]
        if owner.kind is OwnerKind.USER:
            groups = self._groups.groups_of(tx, account, owner.name)
            owners += [Owner(kind=OwnerKind.GROUP, name=group) for group in groups]
        policies: list[CompiledPolicy] = []
        attached: dict[str, None] = {}
        for each in owners:
            inline = self._policies.inline_of(tx, account, each).values()
            policies.extend(compiled(text, INLINE_KINDS[each.kind]) for text in inline)
            attached |= dict.fromkeys(self._policies.attached_to(tx, account, each))
        return (*policies, *self.managed(tx, account, list(attached)))

    def managed(self, tx: Tx, account: AccountId, arns: Sequence[str]) -> tuple[CompiledPolicy, ...]:
        """Managed policies in their default versions; those that are gone are left out."""
        documents = [aws_managed.DOCUMENTS[arn] for arn in arns if arn in aws_managed.DOCUMENTS]
        own = [arn.rpartition("/")[2] for arn in arns if arn not in aws_managed.DOCUMENTS]
        if own:
            documents.extend(self._policies.default_documents(tx, account, own).values())
        return tuple(compiled(document, Kind.MANAGED) for document in documents)
