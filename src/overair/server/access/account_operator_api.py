"""The operator's door to the whole of an account's identities at once (service ``iam``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from overair.basics.work import Tx, Work
from overair.server.access.aws_managed import AWS_MANAGED
from overair.server.access.group_operator_api import group_members
from overair.server.access.groups import UserGroups
from overair.server.access.identities import Identities
from overair.server.access.model import (
    ACCESS_KEYS_MAX,
    ATTACHED_POLICIES_MAX,
    GROUPS_MAX,
    GROUPS_OF_USER_MAX,
    POLICIES_MAX,
    POLICY_VERSIONS_MAX,
    ROLES_MAX,
    USERS_MAX,
    ManagedPolicy,
    Owner,
    OwnerKind,
    Role,
    User,
    UserGroup,
)
from overair.server.access.operator_api import MAX_ITEMS_DEFAULT, MAX_ITEMS_MAX, marked, role_members, user_members
from overair.server.access.policies import Policies
from overair.server.access.policy_operator_api import policy_members, version_members
from overair.server.aws_protocol.operations import Caller, Members, Request, operation
from overair.server.aws_protocol.page_tokens import cut, read_page_token
from overair.server.policy_language.document import Kind

_SECTIONS: Final = ("User", "Group", "Role", "LocalManagedPolicy", "AWSManagedPolicy")
"""In the order of the answer's pages."""
_BATCH: Final = 100

Entity = User | UserGroup | Role | ManagedPolicy


class AccountOperatorApi:
    """Every identity of the account with all that it may, in one list; and how many there are."""

    def __init__(self, *, work: Work, policies: Policies, identities: Identities, groups: UserGroups) -> None:
        self.work = work
        self.policies = policies
        self.identities = identities
        self.groups = groups

    @operation("iam", "GetAccountAuthorizationDetails")
    async def get_account_authorization_details(self, caller: Caller, request: Request) -> Members:
        wanted = set(request.get("Filter") or _SECTIONS)
        position = read_page_token(request.get("Marker"), tuple[str, str], name="Marker") or ("", "")
        limit = min(request.get("MaxItems", MAX_ITEMS_DEFAULT), MAX_ITEMS_MAX)

        def find(tx: Tx) -> tuple[Mapping[str, list[dict[str, Any]]], str | None]:
            found = list(islice(self._entities(tx, caller, wanted, position), limit + 1))
            page, marker = cut(found, limit, lambda each: (each[0], each[1].name))
            shown: dict[str, list[dict[str, Any]]] = {section: [] for section in _SECTIONS}
            for section, entity in page:
                shown[section].append(self._details(tx, caller, entity))
            return shown, marker

        shown, marker = await self.work.read(find)
        return {
            "UserDetailList": shown["User"],
            "GroupDetailList": shown["Group"],
            "RoleDetailList": shown["Role"],
            "Policies": [*shown["LocalManagedPolicy"], *shown["AWSManagedPolicy"]],
            **marked(marker),
        }

    @operation("iam", "GetAccountSummary")
    async def get_account_summary(self, caller: Caller, request: Request) -> Members:
        def count(tx: Tx) -> dict[str, int]:
            return {
                "Users": self.identities.count_users(tx, caller.account),
                "Groups": self.groups.count(tx, caller.account),
                "Roles": self.identities.count_roles(tx, caller.account),
                "Policies": self.policies.count(tx, caller.account),
                "AccountAccessKeysPresent": int(bool(self.identities.keys_of(tx, caller.account, ""))),
            }

        return {"SummaryMap": {**await self.work.read(count), **_QUOTAS}}

    def _entities(self, tx: Tx, caller: Caller, wanted: set[str], position: tuple[str, str]) -> Iterator[tuple[str, Entity]]:
        """Section by section, each in the order of names, after a position."""
        begun, last = position
        for section in _SECTIONS[_SECTIONS.index(begun) if begun in _SECTIONS else 0 :]:
            if section in wanted:
                for entity in self._section(tx, caller, section, last if section == begun else None):
                    yield section, entity

    def _section(self, tx: Tx, caller: Caller, section: str, after: str | None) -> Iterator[Entity]:
        if section == "AWSManagedPolicy":
            # Those that are in use here: nobody's account is described by what stands ready for all.
            ready = [AWS_MANAGED[arn] for arn in self.policies.in_use(tx, caller.account) if arn in AWS_MANAGED]
            yield from (policy for policy in sorted(ready, key=_name) if policy.name > (after or ""))
            return
        while True:
            batch = self._batch(tx, caller, section, after)
            yield from batch
            if len(batch) < _BATCH:
                return
            after = batch[-1].name

    def _batch(self, tx: Tx, caller: Caller, section: str, after: str | None) -> Sequence[Entity]:
        if section == "User":
            return self.identities.list_users(tx, caller.account, path_prefix="/", after=after, limit=_BATCH)
        if section == "Group":
            return self.groups.list(tx, caller.account, path_prefix="/", after=after, limit=_BATCH)
        if section == "Role":
            return self.identities.list_roles(tx, caller.account, path_prefix="/", after=after, limit=_BATCH)
        return self.policies.list_own(tx, caller.account, path_prefix="/", after=after, limit=_BATCH)

    def _details(self, tx: Tx, caller: Caller, entity: Entity) -> dict[str, Any]:
        if isinstance(entity, User):
            groups = [group.name for group in self.groups.groups_of(tx, caller.account, entity.name)]
            owner = Owner(kind=OwnerKind.USER, name=entity.name)
            return {**user_members(entity), "GroupList": groups, **self._held(tx, caller, owner, "UserPolicyList")}
        if isinstance(entity, UserGroup):
            owner = Owner(kind=OwnerKind.GROUP, name=entity.name)
            return {**group_members(entity), **self._held(tx, caller, owner, "GroupPolicyList")}
        if isinstance(entity, Role):
            owner = Owner(kind=OwnerKind.ROLE, name=entity.name)
            held = self._held(tx, caller, owner, "RolePolicyList")
            role = {name: value for name, value in role_members(entity).items() if name not in _NOT_IN_DETAILS}
            return {**role, "InstanceProfileList": [], **held}
        arn = entity.arn
        attachments = self.policies.attachment_counts(tx, caller.account, [arn]).get(arn, 0)
        boundaries = self.policies.boundary_counts(tx, caller.account, [arn]).get(arn, 0)
        versions = [
            {**version_members(version, entity.default_version), "Document": quote(version.document, safe="")}
            for version in self.policies.versions(tx, caller.account, arn)
        ]
        members = {name: value for name, value in policy_members(entity, attachments, boundaries).items() if name != "Tags"}
        return {**members, "Description": entity.description or None, "PolicyVersionList": versions}

    def _held(self, tx: Tx, caller: Caller, owner: Owner, inline_member: str) -> dict[str, Any]:
        inline = self.policies.list_inline(tx, caller.account, owner)
        attached = self.policies.attached_to(tx, caller.account, owner)
        return {
            inline_member: [{"PolicyName": name, "PolicyDocument": quote(text, safe="")} for name, text in inline.items()],
            "AttachedManagedPolicies": [{"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn} for arn in attached],
        }


def _name(policy: ManagedPolicy) -> str:
    return policy.name


_NOT_IN_DETAILS: Final = frozenset({"Description", "MaxSessionDuration"})

_QUOTAS: Final = {
    "UsersQuota": USERS_MAX,
    "GroupsQuota": GROUPS_MAX,
    "RolesQuota": ROLES_MAX,
    "PoliciesQuota": POLICIES_MAX,
    "GroupsPerUserQuota": GROUPS_OF_USER_MAX,
    "AccessKeysPerUserQuota": ACCESS_KEYS_MAX,
    "AttachedPoliciesPerUserQuota": ATTACHED_POLICIES_MAX,
    "AttachedPoliciesPerGroupQuota": ATTACHED_POLICIES_MAX,
    "AttachedPoliciesPerRoleQuota": ATTACHED_POLICIES_MAX,
    "VersionsPerPolicyQuota": POLICY_VERSIONS_MAX,
    "PolicySizeQuota": Kind.MANAGED.length_max,
    "UserPolicySizeQuota": Kind.INLINE_USER.length_max,
    "GroupPolicySizeQuota": Kind.INLINE_GROUP.length_max,
    "RolePolicySizeQuota": Kind.INLINE_ROLE.length_max,
    "AssumeRolePolicySizeQuota": Kind.TRUST.length_max,
}
