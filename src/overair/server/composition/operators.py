"""Who may ask: operators, their roles, keys and policies."""

from __future__ import annotations

from overair.server.access.account_store import SqlAccountStore
from overair.server.access.accounts import Accounts
from overair.server.access.bucket_policies import BucketPolicyMemory
from overair.server.access.grants import GrantsDirectory
from overair.server.access.group_store import SqlUserGroupStore
from overair.server.access.groups import UserGroups
from overair.server.access.identities import Identities
from overair.server.access.keys import CredentialDirectory
from overair.server.access.link_keys import LinkKeys
from overair.server.access.policies import Policies
from overair.server.access.policy_store import SqlPolicyStore
from overair.server.access.service import AccessService
from overair.server.access.sessions import Sessions
from overair.server.access.store import SqlIdentityStore
from overair.server.composition.ground import Ground


class OperatorRooms:
    """The room ``access``, but for what decides at a door (``operator_doors.py``)."""

    def __init__(self, ground: Ground) -> None:
        clock, ids, secret_box = ground.clock, ground.ids, ground.secret_box
        self.identity_store, policy_store, group_store = SqlIdentityStore(), SqlPolicyStore(), SqlUserGroupStore()
        self.grants = GrantsDirectory(self.identity_store, policy_store, group_store)
        self.credentials = CredentialDirectory(self.identity_store, secret_box)
        self.identities = Identities(
            self.identity_store, policy_store, group_store, self.grants, self.credentials, secret_box, clock=clock, ids=ids
        )
        self.policies = Policies(policy_store, self.identity_store, group_store, self.grants, clock=clock, ids=ids)
        self.groups = UserGroups(group_store, self.identity_store, policy_store, self.grants, clock=clock, ids=ids)
        self.accounts = Accounts(SqlAccountStore(), clock=clock, ids=ids)
        self.sessions = Sessions(self.identity_store, self.grants, secret_box, clock=clock, ids=ids)
        self.access = AccessService(self.identity_store, self.grants, clock=clock)
        self.bucket_policies = BucketPolicyMemory()
        self.link_keys = LinkKeys(secret_box, ids)
