"""Policies of users, groups and roles: inline, managed with versions, attached."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from overair.basics.clock import Clock
from overair.basics.errors import AccessDenied, AlreadyExists, Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import UPPER_AND_DIGITS, AccountId, IdSource
from overair.basics.work import Tx
from overair.server.access.aws_managed import AWS_MANAGED, DOCUMENTS
from overair.server.access.grants import INLINE_KINDS, GrantsDirectory
from overair.server.access.identities import checked_tags, tags_with
from overair.server.access.model import (
    ATTACHED_POLICIES_MAX,
    INLINE_POLICIES_MAX,
    POLICIES_MAX,
    POLICY_VERSIONS_MAX,
    ManagedPolicy,
    Owner,
    OwnerKind,
    PolicyVersion,
    check_name,
    check_path,
)
from overair.server.access.stores import IdentityStore, PolicyStore, UserGroupStore
from overair.server.policy_language.document import Kind, length_of, parse_policy


class Policies:
    """The verbs on policies. Whoever changes one makes every remembered decision void once the unit has committed."""

    def __init__(
        self,
        store: PolicyStore,
        identities: IdentityStore,
        groups: UserGroupStore,
        grants: GrantsDirectory,
        *,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._store = store
        self._groups = groups
        self._identities = identities
        self._grants = grants
        self._clock = clock
        self._ids = ids

    # Inline -----------------------------------------------------------------------------------------------------------

    def put_inline(self, tx: Tx, account: AccountId, owner: Owner, name: str, document: str) -> None:
        """Put a policy on a user, group or role, in place of one with the same name.

        Raises:
            InvalidRequest: name, or document (subject ``policy``). NotFound: no such user, group or role.
            LimitExceeded: too many policies, or too many characters together.
        """
        check_name(name, what="policy", length_max=128)
        self._require(tx, account, owner)
        kind = INLINE_KINDS[owner.kind]
        present = self._store.inline_of(tx, account, owner)
        together = sum(length_of(text) for other, text in present.items() if other != name) + length_of(document)
        if together > kind.length_max:
            raise LimitExceeded(
                f"Maximum policy size of {kind.length_max} bytes exceeded for {owner.kind.value} {owner.name}: its inline "
                f"policies would have {together} characters together, white space not counted.",
                subject="iam",
            )
        parse_policy(document, kind)
        if name not in present and len(present) >= INLINE_POLICIES_MAX:
            raise LimitExceeded(f"A {owner.kind.value} has at most {INLINE_POLICIES_MAX} inline policies.", subject="iam")
        self._store.put_inline(tx, account, owner, name, document)
        self._grants.evict_after(tx)

    def inline(self, tx: Tx, account: AccountId, owner: Owner, name: str) -> str:
        """One inline document. Raises NotFound (subject ``iam``)."""
        document = self.list_inline(tx, account, owner).get(name)
        if document is None:
            raise NotFound(f"The {owner.kind.value} policy with name {name} cannot be found.", subject="iam")
        return document

    def list_inline(self, tx: Tx, account: AccountId, owner: Owner) -> Mapping[str, str]:
        """Inline documents by name. Raises NotFound where there is no such user or role."""
        self._require(tx, account, owner)
        return self._store.inline_of(tx, account, owner)

    def delete_inline(self, tx: Tx, account: AccountId, owner: Owner, name: str) -> None:
        """Raises NotFound (subject ``iam``)."""
        self._require(tx, account, owner)
        if not self._store.delete_inline(tx, account, owner, name):
            raise NotFound(f"The {owner.kind.value} policy with name {name} cannot be found.", subject="iam")
        self._grants.evict_after(tx)

    # Managed ----------------------------------------------------------------------------------------------------------

    def create(
        self,
        tx: Tx,
        account: AccountId,
        name: str,
        document: str,
        *,
        path: str = "/",
        description: str = "",
        tags: Mapping[str, str] | None = None,
    ) -> ManagedPolicy:
        """A managed policy with its version ``v1``.

        Raises:
            InvalidRequest: name, path, or document (subject ``policy``). AlreadyExists: the name is taken.
            LimitExceeded: there are too many, or too many characters in the document.
        """
        check_name(name, what="policy", length_max=128)
        check_path(path)
        _check_managed(document)
        if len(description) > 1000 or "\0" in description:
            raise InvalidRequest("A description has at most 1000 characters.", subject="iam-input")
        if self._store.find_policy(tx, account, name) is not None:
            raise AlreadyExists(f"A policy called {name} already exists. Duplicate names are not allowed.", subject="iam")
        if self._store.count_policies(tx, account) >= POLICIES_MAX:
            raise LimitExceeded(f"Cannot exceed quota for PoliciesPerAccount: {POLICIES_MAX}", subject="iam")
        now = self._clock.now()
        policy = ManagedPolicy(
            arn=f"arn:aws:iam::{account}:policy{path}{name}",
            name=name,
            path=path,
            policy_id="ANPA" + self._ids.token(17, UPPER_AND_DIGITS),
            default_version=1,
            newest_version=1,
            created=now,
            updated=now,
            description=description,
            tags=checked_tags(tags),
        )
        self._store.add_policy(tx, account, policy, document)
        return policy

    def find(self, tx: Tx, account: AccountId, arn: str) -> ManagedPolicy:
        """One of the account's own or of those that stand ready. Raises NotFound (subject ``iam``)."""
        ours = AWS_MANAGED.get(arn)
        if ours is not None:
            return ours
        policy = self._store.find_policy(tx, account, arn.rpartition("/")[2])
        if policy is None or policy.arn != arn:
            raise NotFound(f"Policy {arn} was not found.", subject="iam")
        return policy

    def list_own(
        self, tx: Tx, account: AccountId, *, path_prefix: str, after: str | None, limit: int
    ) -> Sequence[ManagedPolicy]:
        return self._store.list_policies(tx, account, path_prefix=path_prefix, after=after, limit=limit)

    def count(self, tx: Tx, account: AccountId) -> int:
        """Of the account's own."""
        return self._store.count_policies(tx, account)

    def attachment_counts(self, tx: Tx, account: AccountId, arns: Sequence[str]) -> Mapping[str, int]:
        return self._store.attachment_counts(tx, account, arns)

    def boundary_counts(self, tx: Tx, account: AccountId, arns: Sequence[str]) -> Mapping[str, int]:
        """How many users and roles each bounds."""
        return self._identities.boundary_counts(tx, account, arns)

    def owners_of(self, tx: Tx, account: AccountId, arn: str) -> Sequence[Owner]:
        """Whom it is attached to. Raises NotFound (subject ``iam``)."""
        self.find(tx, account, arn)
        return self._store.owners_of(tx, account, arn)

    def bounded_by(self, tx: Tx, account: AccountId, arn: str) -> Sequence[Owner]:
        """Whom it bounds. Raises NotFound (subject ``iam``)."""
        self.find(tx, account, arn)
        users, roles = self._identities.bounded_by(tx, account, arn)
        bounded_users = [Owner(kind=OwnerKind.USER, name=user.name) for user in users]
        return [*bounded_users, *(Owner(kind=OwnerKind.ROLE, name=role.name) for role in roles)]

    def in_use(self, tx: Tx, account: AccountId) -> Sequence[str]:
        """ARNs of every policy that is attached to anybody."""
        return self._store.attached_arns(tx, account)

    def tags_of(self, tx: Tx, account: AccountId, arn: str) -> Mapping[str, str]:
        """What conditions ask before a policy is known to be there; of nothing but a policy of the account's own. Raises
        nothing."""
        named = arn.split(":", 5)[-1]
        found = self._store.find_policy(tx, account, arn.rpartition("/")[2]) if named.startswith("policy/") else None
        return {} if found is None or found.arn != arn else found.tags

    def tag(self, tx: Tx, account: AccountId, arn: str, tags: Mapping[str, str]) -> None:
        """Raises NotFound; InvalidRequest; LimitExceeded (subject ``iam``)."""
        policy = self._own(tx, account, arn)
        self._store.set_policy_tags(tx, account, policy.name, tags_with(policy.tags, tags))

    def untag(self, tx: Tx, account: AccountId, arn: str, keys: Sequence[str]) -> None:
        """Tags that aren't there are away already. Raises NotFound (subject ``iam``)."""
        policy = self._own(tx, account, arn)
        kept = {key: value for key, value in policy.tags.items() if key not in keys}
        self._store.set_policy_tags(tx, account, policy.name, kept)

    def delete(self, tx: Tx, account: AccountId, arn: str) -> None:
        """Raises NotFound; Conflict (subject ``iam``) while attached or while versions other than the default remain."""
        policy = self._own(tx, account, arn)
        if self._store.attachment_counts(tx, account, [arn]).get(arn) or self.boundary_counts(tx, account, [arn]):
            raise Conflict("Cannot delete a policy attached to entities.", subject="iam")
        if len(self._store.versions_of(tx, account, policy.name)) > 1:
            raise Conflict(
                "This policy has more than one version. Before you delete a policy, you must delete the policy's versions. "
                "The default version is deleted with the policy.",
                subject="iam",
            )
        self._store.delete_policy(tx, account, policy.name)
        self._grants.evict_after(tx)

    def versions(self, tx: Tx, account: AccountId, arn: str) -> Sequence[PolicyVersion]:
        """Newest first. Raises NotFound (subject ``iam``)."""
        if arn in AWS_MANAGED:
            return [PolicyVersion(number=1, document=DOCUMENTS[arn], created=AWS_MANAGED[arn].created)]
        return self._store.versions_of(tx, account, self.find(tx, account, arn).name)

    def version(self, tx: Tx, account: AccountId, arn: str, version_id: str) -> PolicyVersion:
        """Raises NotFound (subject ``iam``)."""
        for version in self.versions(tx, account, arn):
            if f"v{version.number}" == version_id:
                return version
        raise NotFound(f"Policy {arn} version {version_id} does not exist or is not attachable.", subject="iam")

    def add_version(self, tx: Tx, account: AccountId, arn: str, document: str, *, as_default: bool) -> PolicyVersion:
        """Raises NotFound; InvalidRequest (subject ``policy``); LimitExceeded at the sixth."""
        _check_managed(document)
        policy = self._own(tx, account, arn)
        if len(self._store.versions_of(tx, account, policy.name)) >= POLICY_VERSIONS_MAX:
            raise LimitExceeded(
                f"A managed policy can have up to {POLICY_VERSIONS_MAX} versions. Before you create a new version, you must "
                "delete an existing version.",
                subject="iam",
            )
        now = self._clock.now()
        number = policy.newest_version + 1
        self._store.add_version(tx, account, policy.name, number, document, now, as_default=as_default)
        self._grants.evict_after(tx)
        return PolicyVersion(number=number, document=document, created=now)

    def set_default_version(self, tx: Tx, account: AccountId, arn: str, version_id: str) -> None:
        """Raises NotFound (subject ``iam``)."""
        policy = self._own(tx, account, arn)
        number = self.version(tx, account, arn, version_id).number
        self._store.set_default_version(tx, account, policy.name, number, self._clock.now())
        self._grants.evict_after(tx)

    def delete_version(self, tx: Tx, account: AccountId, arn: str, version_id: str) -> None:
        """Raises NotFound; Conflict (subject ``iam``) for the default version."""
        policy = self._own(tx, account, arn)
        number = self.version(tx, account, arn, version_id).number
        if number == policy.default_version:
            raise Conflict("Cannot delete the default version of a policy.", subject="iam")
        self._store.delete_version(tx, account, policy.name, number)

    # Attachments ------------------------------------------------------------------------------------------------------

    def attach(self, tx: Tx, account: AccountId, owner: Owner, arn: str) -> None:
        """A repeat changes nothing. Raises NotFound; LimitExceeded (subject ``iam``)."""
        self._require(tx, account, owner)
        self.find(tx, account, arn)
        present = self._store.attached_to(tx, account, owner)
        if arn in present:
            return
        if len(present) >= ATTACHED_POLICIES_MAX:
            raise LimitExceeded(f"Cannot exceed quota for attached policies: {ATTACHED_POLICIES_MAX}", subject="iam")
        self._store.attach(tx, account, owner, arn)
        self._grants.evict_after(tx)

    def detach(self, tx: Tx, account: AccountId, owner: Owner, arn: str) -> None:
        """Raises NotFound (subject ``iam``) where it isn't attached."""
        self._require(tx, account, owner)
        if not self._store.detach(tx, account, owner, arn):
            raise NotFound(f"Policy {arn} was not found.", subject="iam")
        self._grants.evict_after(tx)

    def attached_to(self, tx: Tx, account: AccountId, owner: Owner) -> Sequence[str]:
        """ARNs in order. Raises NotFound where there is no such user or role."""
        self._require(tx, account, owner)
        return self._store.attached_to(tx, account, owner)

    def _own(self, tx: Tx, account: AccountId, arn: str) -> ManagedPolicy:
        policy = self.find(tx, account, arn)
        if policy.is_ours:
            raise AccessDenied(f"{arn} belongs to every account and can't be changed.", subject="action")
        return policy

    def _require(self, tx: Tx, account: AccountId, owner: Owner) -> None:
        finders = {
            OwnerKind.USER: self._identities.find_user,
            OwnerKind.GROUP: self._groups.find_group,
            OwnerKind.ROLE: self._identities.find_role,
        }
        found: object = finders[owner.kind](tx, account, owner.name)
        if found is None:
            raise NotFound(f"The {owner.kind.value} with name {owner.name} cannot be found.", subject="iam")


def _check_managed(document: str) -> None:
    if length_of(document) > Kind.MANAGED.length_max:
        raise LimitExceeded(f"Cannot exceed quota for PolicySize: {Kind.MANAGED.length_max}", subject="iam")
    parse_policy(document, Kind.MANAGED)
