"""Users, roles and access keys: making, finding, ending them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from overair.basics.clock import Clock
from overair.basics.errors import AlreadyExists, Conflict, InvalidRequest, LimitExceeded, NotFound
from overair.basics.ids import ALPHANUMERIC, UPPER_AND_DIGITS, AccessKeyId, AccountId, IdSource
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.access import aws_managed
from overair.server.access.grants import GrantsDirectory
from overair.server.access.keys import CredentialDirectory, seal
from overair.server.access.model import (
    ACCESS_KEYS_MAX,
    ROLES_MAX,
    SESSION_S_DEFAULT,
    SESSION_S_MAX,
    USERS_MAX,
    AccessKey,
    KeyStatus,
    NewKeys,
    Owner,
    OwnerKind,
    Role,
    User,
    check_name,
    check_path,
)
from overair.server.access.stores import IdentityStore, PolicyStore, SecretBox, UserGroupStore
from overair.server.policy_language.document import Kind, length_of, parse_policy

SECRET_ALPHABET: Final = ALPHANUMERIC + "+/"
SECRET_LENGTH: Final = 40
DESCRIPTION_LENGTH_MAX: Final = 1000
TAGS_MAX: Final = 50


class Identities:
    """The verbs on users, roles and keys. Everything is of one account; names are found in that account alone."""

    def __init__(
        self,
        store: IdentityStore,
        policies: PolicyStore,
        groups: UserGroupStore,
        grants: GrantsDirectory,
        credentials: CredentialDirectory,
        box: SecretBox,
        *,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._store = store
        self._policies = policies
        self._groups = groups
        self._grants = grants
        self._credentials = credentials
        self._box = box
        self._clock = clock
        self._ids = ids

    # Users ------------------------------------------------------------------------------------------------------------

    def create_user(
        self,
        tx: Tx,
        account: AccountId,
        name: str,
        *,
        path: str = "/",
        boundary_arn: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> User:
        """A user without keys and without permissions.

        Raises:
            InvalidRequest: name, path or tags. AlreadyExists: the name is taken (subject ``iam``).
            NotFound: no such boundary policy. LimitExceeded: there are too many.
        """
        check_name(name, what="user")
        check_path(path)
        if self._store.find_user(tx, account, name) is not None:
            raise AlreadyExists(f"User with name {name} already exists.", subject="iam")
        if self._store.count_users(tx, account) >= USERS_MAX:
            raise LimitExceeded(f"Cannot exceed quota for UsersPerAccount: {USERS_MAX}", subject="iam")
        user = User(
            account=account,
            name=name,
            path=path,
            user_id="AIDA" + self._ids.token(17, UPPER_AND_DIGITS),
            created=self._clock.now(),
            boundary_arn=self._boundary(tx, account, boundary_arn),
            tags=checked_tags(tags),
        )
        self._store.add_user(tx, user)
        return user

    def user(self, tx: Tx, account: AccountId, name: str) -> User:
        """Raises NotFound (subject ``iam``)."""
        user = self._store.find_user(tx, account, name)
        if user is None:
            raise NotFound(f"The user with name {name} cannot be found.", subject="iam")
        return user

    def list_users(self, tx: Tx, account: AccountId, *, path_prefix: str, after: str | None, limit: int) -> Sequence[User]:
        return self._store.list_users(tx, account, path_prefix=path_prefix, after=after, limit=limit)

    def count_users(self, tx: Tx, account: AccountId) -> int:
        return self._store.count_users(tx, account)

    def change_user(self, tx: Tx, account: AccountId, name: str, *, new_name: str | None, new_path: str | None) -> None:
        """Another name, another path, or both; keys, groups and policies stay.

        Raises:
            NotFound; InvalidRequest: name or path; AlreadyExists (subject ``iam``).
        """
        user = self.user(tx, account, name)
        if new_name is not None and new_name != name:
            check_name(new_name, what="user")
            if self._store.find_user(tx, account, new_name) is not None:
                raise AlreadyExists(f"User with name {new_name} already exists.", subject="iam")
            self._policies.rename_owner(tx, account, Owner(kind=OwnerKind.USER, name=name), new_name)
            self._groups.rename_member(tx, account, name, new_name)
        path = user.path if new_path is None else check_path(new_path)
        self._store.change_user(tx, account, name, new_name=new_name or name, new_path=path)
        self._forget(tx)

    def delete_user(self, tx: Tx, account: AccountId, name: str) -> None:
        """Raises NotFound; Conflict (subject ``iam``) while keys or policies hang on it, or it is in a group."""
        self.user(tx, account, name)
        if self._groups.groups_of(tx, account, name):
            raise Conflict("Cannot delete entity, must remove users from group first.", subject="iam")
        if self._store.keys_of(tx, account, name):
            raise Conflict("Cannot delete entity, must delete access keys first.", subject="iam")
        self._refuse_with_policies(tx, account, Owner(kind=OwnerKind.USER, name=name))
        self._store.delete_user(tx, account, name)
        self._forget(tx)

    # Roles ------------------------------------------------------------------------------------------------------------

    def create_role(
        self,
        tx: Tx,
        account: AccountId,
        name: str,
        trust_document: str,
        *,
        path: str = "/",
        description: str = "",
        session_s_max: int = SESSION_S_DEFAULT,
        boundary_arn: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Role:
        """A role that whoever ``trust_document`` names may take on.

        Raises:
            InvalidRequest: name, path, trust policy (subject ``policy``), tags. AlreadyExists: the name is taken.
            LimitExceeded: there are too many roles, or too many characters in the trust policy.
        """
        check_name(name, what="role")
        check_path(path)
        _check_trust(trust_document)
        _check_role(description, session_s_max)
        if self._store.find_role(tx, account, name) is not None:
            raise AlreadyExists(f"Role with name {name} already exists.", subject="iam")
        if self._store.count_roles(tx, account) >= ROLES_MAX:
            raise LimitExceeded(f"Cannot exceed quota for RolesPerAccount: {ROLES_MAX}", subject="iam")
        role = Role(
            account=account,
            name=name,
            path=path,
            role_id="AROA" + self._ids.token(17, UPPER_AND_DIGITS),
            created=self._clock.now(),
            trust_document=trust_document,
            description=description,
            session_s_max=session_s_max,
            boundary_arn=self._boundary(tx, account, boundary_arn),
            tags=checked_tags(tags),
        )
        self._store.add_role(tx, role)
        return role

    def role(self, tx: Tx, account: AccountId, name: str) -> Role:
        """Raises NotFound (subject ``iam``)."""
        role = self._store.find_role(tx, account, name)
        if role is None:
            raise NotFound(f"The role with name {name} cannot be found.", subject="iam")
        return role

    def list_roles(self, tx: Tx, account: AccountId, *, path_prefix: str, after: str | None, limit: int) -> Sequence[Role]:
        return self._store.list_roles(tx, account, path_prefix=path_prefix, after=after, limit=limit)

    def set_trust(self, tx: Tx, account: AccountId, name: str, document: str) -> None:
        """Replace a role's trust policy. Raises NotFound; InvalidRequest (subject ``policy``)."""
        _check_trust(document)
        self.role(tx, account, name)
        self._store.set_trust(tx, account, name, document)
        self._forget(tx)

    def count_roles(self, tx: Tx, account: AccountId) -> int:
        return self._store.count_roles(tx, account)

    def change_role(
        self, tx: Tx, account: AccountId, name: str, *, description: str | None = None, session_s_max: int | None = None
    ) -> Role:
        """Another description, other sessions, or both. Raises NotFound; InvalidRequest (subject ``iam-input``)."""
        role = self.role(tx, account, name)
        described = role.description if description is None else description
        seconds = role.session_s_max if session_s_max is None else session_s_max
        _check_role(described, seconds)
        self._store.change_role(tx, account, name, description=described, session_s_max=seconds)
        return replace(role, description=described, session_s_max=seconds)

    def delete_role(self, tx: Tx, account: AccountId, name: str) -> None:
        """Its sessions end with it. Raises NotFound; Conflict (subject ``iam``) while policies hang on it."""
        self.role(tx, account, name)
        self._refuse_with_policies(tx, account, Owner(kind=OwnerKind.ROLE, name=name))
        self._store.delete_role(tx, account, name)
        self._forget(tx)

    # Boundaries and tags, of users and roles -----------------------------------------------------------------------------

    def set_boundary(self, tx: Tx, account: AccountId, owner: Owner, boundary_arn: str | None) -> None:
        """Put a permissions boundary on a user or role; None takes it away.

        Raises:
            NotFound (subject ``iam``): no such user, role or policy; nothing to take away.
        """
        held = self._tagged(tx, account, owner)
        if boundary_arn is None and held.boundary_arn is None:
            raise NotFound(f"The {owner.kind.value} {owner.name} has no permissions boundary.", subject="iam")
        checked = self._boundary(tx, account, boundary_arn)
        if owner.kind is OwnerKind.USER:
            self._store.set_user_boundary(tx, account, owner.name, checked)
        else:
            self._store.set_role_boundary(tx, account, owner.name, checked)
        self._grants.evict_after(tx)

    def tags_of(self, tx: Tx, account: AccountId, owner: Owner) -> Mapping[str, str]:
        """Raises NotFound (subject ``iam``)."""
        return self._tagged(tx, account, owner).tags

    def tag(self, tx: Tx, account: AccountId, owner: Owner, tags: Mapping[str, str]) -> None:
        """Add tags to a user or role, or give them other values. Raises NotFound; InvalidRequest; LimitExceeded."""
        self._set_tags(tx, account, owner, tags_with(self._tagged(tx, account, owner).tags, tags))

    def untag(self, tx: Tx, account: AccountId, owner: Owner, keys: Sequence[str]) -> None:
        """Take tags away; those that aren't there are away already. Raises NotFound (subject ``iam``)."""
        present = self._tagged(tx, account, owner).tags
        self._set_tags(tx, account, owner, {key: value for key, value in present.items() if key not in keys})

    def _set_tags(self, tx: Tx, account: AccountId, owner: Owner, tags: Mapping[str, str]) -> None:
        if owner.kind is OwnerKind.USER:
            self._store.set_user_tags(tx, account, owner.name, tags)
        else:
            self._store.set_role_tags(tx, account, owner.name, tags)
        # Tags are conditions of policies (aws:PrincipalTag), and who holds a key carries them.
        self._forget(tx)

    def _tagged(self, tx: Tx, account: AccountId, owner: Owner) -> User | Role:
        return self.user(tx, account, owner.name) if owner.kind is OwnerKind.USER else self.role(tx, account, owner.name)

    # Access keys ------------------------------------------------------------------------------------------------------

    def create_key(self, tx: Tx, account: AccountId, user_name: str) -> NewKeys:
        """New keys for a user, or for the account's root where ``user_name`` is empty. The secret is never shown again.

        Raises:
            NotFound: no such user. LimitExceeded: it has two already (subject ``iam``).
        """
        if user_name:
            self.user(tx, account, user_name)
        if len(self._store.keys_of(tx, account, user_name)) >= ACCESS_KEYS_MAX:
            raise LimitExceeded(f"Cannot exceed quota for AccessKeysPerUser: {ACCESS_KEYS_MAX}", subject="iam")
        key_id = AccessKeyId("AKIA" + self._ids.token(16, UPPER_AND_DIGITS))
        secret = Redacted(self._ids.token(SECRET_LENGTH, SECRET_ALPHABET))
        now = self._clock.now()
        self._store.add_key(
            tx,
            AccessKey(
                account=account,
                key_id=key_id,
                user_name=user_name,
                status=KeyStatus.ACTIVE,
                created=now,
                sealed_secret=seal(self._box, account, key_id, secret),
            ),
        )
        self._forget(tx)
        return NewKeys(key_id=key_id, secret=secret, created=now)

    def keys_of(self, tx: Tx, account: AccountId, user_name: str) -> Sequence[AccessKey]:
        """Raises NotFound where there is no such user."""
        if user_name:
            self.user(tx, account, user_name)
        return self._store.keys_of(tx, account, user_name)

    def set_key_status(self, tx: Tx, account: AccountId, user_name: str, key_id: str, status: KeyStatus) -> None:
        """Raises NotFound (subject ``iam``)."""
        self._store.set_key_status(tx, account, self._own_key(tx, account, user_name, key_id), status)
        self._forget(tx)

    def delete_key(self, tx: Tx, account: AccountId, user_name: str, key_id: str) -> None:
        """Raises NotFound (subject ``iam``)."""
        self._store.delete_key(tx, account, self._own_key(tx, account, user_name, key_id))
        self._forget(tx)

    def holder_of_key(self, tx: Tx, account: AccountId, key_id: str) -> AccessKey:
        """Raises NotFound (subject ``iam``), for keys of other accounts too."""
        key = self._store.key_by_id(tx, AccessKeyId(key_id))
        if key is None or key.account != account:
            raise NotFound(f"The Access Key with id {key_id} cannot be found", subject="iam")
        return replace(key, sealed_secret=b"")

    def _own_key(self, tx: Tx, account: AccountId, user_name: str, key_id: str) -> AccessKeyId:
        for key in self.keys_of(tx, account, user_name):
            if key.key_id == key_id:
                return key.key_id
        raise NotFound(f"The Access Key with id {key_id} cannot be found", subject="iam")

    def _boundary(self, tx: Tx, account: AccountId, arn: str | None) -> str | None:
        if arn is None or arn in aws_managed.DOCUMENTS:
            return arn
        found = self._policies.find_policy(tx, account, arn.rpartition("/")[2])
        if found is None or found.arn != arn:
            raise NotFound(f"Policy {arn} does not exist or is not attachable.", subject="iam")
        return arn

    def _refuse_with_policies(self, tx: Tx, account: AccountId, owner: Owner) -> None:
        if self._policies.attached_to(tx, account, owner):
            raise Conflict("Cannot delete entity, must detach all policies first.", subject="iam")
        if self._policies.inline_of(tx, account, owner):
            raise Conflict("Cannot delete entity, must delete policies first.", subject="iam")

    def _forget(self, tx: Tx) -> None:
        self._grants.evict_after(tx)
        self._credentials.evict_after(tx)


def _check_trust(document: str) -> None:
    if length_of(document) > Kind.TRUST.length_max:
        raise LimitExceeded(f"Cannot exceed quota for ACLSizePerRole: {Kind.TRUST.length_max}", subject="iam")
    parse_policy(document, Kind.TRUST)


def _check_role(description: str, session_s_max: int) -> None:
    if len(description) > DESCRIPTION_LENGTH_MAX or "\0" in description:
        raise InvalidRequest(f"A description has at most {DESCRIPTION_LENGTH_MAX} characters.", subject="iam-input")
    if not SESSION_S_DEFAULT <= session_s_max <= SESSION_S_MAX:
        raise InvalidRequest(f"MaxSessionDuration is {SESSION_S_DEFAULT} to {SESSION_S_MAX} seconds.", subject="iam-input")


def tags_with(present: Mapping[str, str], more: Mapping[str, str]) -> dict[str, str]:
    """Tags after some were added or changed. Raises InvalidRequest; LimitExceeded (subject ``iam``): too many together."""
    together = {**present, **checked_tags(more)}
    if len(together) > TAGS_MAX:
        raise LimitExceeded(f"The number of tags has reached the maximum limit: {TAGS_MAX}", subject="iam")
    return together


def checked_tags(tags: Mapping[str, str] | None) -> dict[str, str]:
    """Tags, if they can be some. Raises InvalidRequest (subject ``iam-input``)."""
    if not tags:
        return {}
    if len(tags) > TAGS_MAX or any(not 1 <= len(key) <= 128 or len(value) > 256 for key, value in tags.items()):
        raise InvalidRequest(
            f"At most {TAGS_MAX} tags, keys of 1 to 128 and values of at most 256 characters.", subject="iam-input"
        )
    return dict(tags)
