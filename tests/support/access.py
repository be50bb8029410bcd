"""One account with a root key, and the services of the access room put together as the composition root does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from overair.basics.arn import Place
from overair.basics.clock import Clock, SettableClock
from overair.basics.ids import AccountId, IdSource, SeededIds
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.access.authenticator import SignatureAuthenticator
from overair.server.access.authoriser import PolicyAuthoriser
from overair.server.access.grants import GrantsDirectory
from overair.server.access.group_store import SqlUserGroupStore
from overair.server.access.groups import UserGroups
from overair.server.access.identities import Identities
from overair.server.access.keys import CredentialDirectory
from overair.server.access.model import NewKeys
from overair.server.access.policies import Policies
from overair.server.access.policy_store import SqlPolicyStore
from overair.server.access.service import AccessService
from overair.server.access.sessions import Sessions
from overair.server.access.store import SqlIdentityStore
from overair.server.aws_protocol.operations import Caller
from overair.server.keyring.wrapping import SecretBox
from overair.server.storage.work import SqlWork


class Buckets:
    """Bucket policies by name, as *objects* would have them."""

    def __init__(self) -> None:
        self.policies: dict[str, str] = {}
        self.reads = 0

    def bucket_policy(self, tx: Tx, place: Place, bucket: str) -> str | None:
        self.reads += 1
        return self.policies.get(bucket)


class Tags:
    """Tags by ARN, as *devices* would have them."""

    def __init__(self) -> None:
        self.by_arn: dict[str, dict[str, str]] = {}
        self.reads = 0

    def tags_of(self, tx: Tx, account: AccountId, arn: str) -> Mapping[str, str]:
        self.reads += 1
        return self.by_arn.get(arn, {})


@dataclass
class AccessRoom:
    work: SqlWork
    place: Place
    clock: SettableClock
    grants: GrantsDirectory
    credentials: CredentialDirectory
    identities: Identities
    policies: Policies
    groups: UserGroups
    sessions: Sessions
    service: AccessService
    authenticator: SignatureAuthenticator
    authoriser: PolicyAuthoriser
    buckets: Buckets
    tags: Tags

    def user(self, name: str, **inline: str) -> NewKeys:
        """A user with keys and inline policies."""
        from overair.server.access.model import Owner, OwnerKind

        owner = Owner(kind=OwnerKind.USER, name=name)

        def make(tx: Tx) -> NewKeys:
            self.identities.create_user(tx, self.place.account, name)
            for policy_name, document in inline.items():
                self.policies.put_inline(tx, self.place.account, owner, policy_name, document)
            return self.identities.create_key(tx, self.place.account, name)

        return self.work.run_blocking(make)

    def caller(self, name: str) -> Caller:
        """A caller as the authenticator would make it of a user; ``root`` for the root."""
        arn = f"arn:aws:iam::{self.place.account}:{'root' if name == 'root' else f'user/{name}'}"
        return Caller(
            place=self.place,
            principal_arn=arn,
            user_id="AIDA",
            access_key_id="AKIA",
            now=self.clock.now(),
            is_root=name == "root",
            context={"aws:username": (name,), "aws:PrincipalArn": (arn,), "aws:SecureTransport": ("true",)},
        )


def build_access_room(work: SqlWork, place: Place, clock: SettableClock, ids: IdSource | None = None) -> AccessRoom:
    source: IdSource = ids or SeededIds(1)
    box = SecretBox(Redacted(b"k" * 32), source)
    identities_store, policies_store, groups_store = SqlIdentityStore(), SqlPolicyStore(), SqlUserGroupStore()
    grants = GrantsDirectory(identities_store, policies_store, groups_store)
    credentials = CredentialDirectory(identities_store, box)
    buckets, tags = Buckets(), Tags()
    wall: Clock = clock
    return AccessRoom(
        work=work,
        place=place,
        clock=clock,
        grants=grants,
        credentials=credentials,
        identities=Identities(
            identities_store, policies_store, groups_store, grants, credentials, box, clock=clock, ids=source
        ),
        policies=Policies(policies_store, identities_store, groups_store, grants, clock=clock, ids=source),
        groups=UserGroups(groups_store, identities_store, policies_store, grants, clock=clock, ids=source),
        sessions=Sessions(identities_store, grants, box, clock=clock, ids=source),
        service=AccessService(identities_store, grants, clock=clock),
        authenticator=SignatureAuthenticator(work, credentials, clock=wall, region=place.region),
        authoriser=PolicyAuthoriser(work, grants, buckets, tags=tags),
        buckets=buckets,
        tags=tags,
    )
