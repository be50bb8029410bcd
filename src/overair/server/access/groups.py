"""Groups of users: making, filling, ending them. What a group's policies grant, each of its users has."""

from __future__ import annotations

from collections.abc import Sequence

from overair.basics.clock import Clock
from overair.basics.errors import AlreadyExists, Conflict, LimitExceeded, NotFound
from overair.basics.ids import UPPER_AND_DIGITS, AccountId, IdSource
from overair.basics.work import Tx
from overair.server.access.grants import GrantsDirectory
from overair.server.access.model import (
    GROUPS_MAX,
    GROUPS_OF_USER_MAX,
    Owner,
    OwnerKind,
    User,
    UserGroup,
    check_name,
    check_path,
)
from overair.server.access.stores import IdentityStore, PolicyStore, UserGroupStore


class UserGroups:
    """The verbs on groups. Whoever changes one makes every remembered decision void once the unit has committed."""

    def __init__(
        self,
        store: UserGroupStore,
        identities: IdentityStore,
        policies: PolicyStore,
        grants: GrantsDirectory,
        *,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._store = store
        self._identities = identities
        self._policies = policies
        self._grants = grants
        self._clock = clock
        self._ids = ids

    def create(self, tx: Tx, account: AccountId, name: str, *, path: str = "/") -> UserGroup:
        """A group without users and without permissions.

        Raises:
            InvalidRequest: name or path. AlreadyExists: the name is taken (subject ``iam``). LimitExceeded: there are too many.
        """
        check_name(name, what="group")
        check_path(path)
        if self._store.find_group(tx, account, name) is not None:
            raise AlreadyExists(f"Group with name {name} already exists.", subject="iam")
        if self._store.count_groups(tx, account) >= GROUPS_MAX:
            raise LimitExceeded(f"Cannot exceed quota for GroupsPerAccount: {GROUPS_MAX}", subject="iam")
        group = UserGroup(
            account=account,
            name=name,
            path=path,
            group_id="AGPA" + self._ids.token(17, UPPER_AND_DIGITS),
            created=self._clock.now(),
        )
        self._store.add_group(tx, group)
        return group

    def find(self, tx: Tx, account: AccountId, name: str) -> UserGroup:
        """Raises NotFound (subject ``iam``)."""
        group = self._store.find_group(tx, account, name)
        if group is None:
            raise NotFound(f"The group with name {name} cannot be found.", subject="iam")
        return group

    def list(self, tx: Tx, account: AccountId, *, path_prefix: str, after: str | None, limit: int) -> Sequence[UserGroup]:
        return self._store.list_groups(tx, account, path_prefix=path_prefix, after=after, limit=limit)

    def count(self, tx: Tx, account: AccountId) -> int:
        return self._store.count_groups(tx, account)

    def change(self, tx: Tx, account: AccountId, name: str, *, new_name: str | None, new_path: str | None) -> None:
        """Another name, another path, or both; users and policies stay.

        Raises:
            NotFound; InvalidRequest: name or path; AlreadyExists (subject ``iam``).
        """
        group = self.find(tx, account, name)
        if new_name is not None and new_name != name:
            check_name(new_name, what="group")
            if self._store.find_group(tx, account, new_name) is not None:
                raise AlreadyExists(f"Group with name {new_name} already exists.", subject="iam")
            self._policies.rename_owner(tx, account, Owner(kind=OwnerKind.GROUP, name=name), new_name)
        path = group.path if new_path is None else check_path(new_path)
        self._store.change_group(tx, account, name, new_name=new_name or name, new_path=path)
        self._grants.evict_after(tx)

    def delete(self, tx: Tx, account: AccountId, name: str) -> None:
        """Raises NotFound; Conflict (subject ``iam``) while users are in it or policies hang on it."""
        self.find(tx, account, name)
        if self._store.members_of(tx, account, name, after=None, limit=1):
            raise Conflict("Cannot delete entity, must remove users from group first.", subject="iam")
        owner = Owner(kind=OwnerKind.GROUP, name=name)
        if self._policies.attached_to(tx, account, owner):
            raise Conflict("Cannot delete entity, must detach all policies first.", subject="iam")
        if self._policies.inline_of(tx, account, owner):
            raise Conflict("Cannot delete entity, must delete policies first.", subject="iam")
        self._store.delete_group(tx, account, name)

    # Members ----------------------------------------------------------------------------------------------------------

    def add_user(self, tx: Tx, account: AccountId, name: str, user: str) -> None:
        """A repeat changes nothing. Raises NotFound; LimitExceeded (subject ``iam``): the user is in too many groups."""
        self.find(tx, account, name)
        self._require_user(tx, account, user)
        present = self._store.groups_of(tx, account, user)
        if name in present:
            return
        if len(present) >= GROUPS_OF_USER_MAX:
            raise LimitExceeded(f"Cannot exceed quota for GroupsPerUser: {GROUPS_OF_USER_MAX}", subject="iam")
        self._store.add_member(tx, account, name, user)
        self._grants.evict_after(tx)

    def remove_user(self, tx: Tx, account: AccountId, name: str, user: str) -> None:
        """Who isn't in it is out of it. Raises NotFound (subject ``iam``) where there is no such group or user."""
        self.find(tx, account, name)
        self._require_user(tx, account, user)
        if self._store.remove_member(tx, account, name, user):
            self._grants.evict_after(tx)

    def users_of(self, tx: Tx, account: AccountId, name: str, *, after: str | None, limit: int) -> Sequence[User]:
        """By name. Raises NotFound (subject ``iam``)."""
        self.find(tx, account, name)
        names = self._store.members_of(tx, account, name, after=after, limit=limit)
        return [user for member in names if (user := self._identities.find_user(tx, account, member)) is not None]

    def groups_of(self, tx: Tx, account: AccountId, user: str) -> Sequence[UserGroup]:
        """By name. Raises NotFound (subject ``iam``)."""
        self._require_user(tx, account, user)
        names = self._store.groups_of(tx, account, user)
        return [group for name in names if (group := self._store.find_group(tx, account, name)) is not None]

    def _require_user(self, tx: Tx, account: AccountId, user: str) -> None:
        if self._identities.find_user(tx, account, user) is None:
            raise NotFound(f"The user with name {user} cannot be found.", subject="iam")
