"""The operator's door with its real proof and its real permissions, over loopback, for boto3."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.config import Config

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.ids import RandomIds
from overair.server.access.account_operator_api import AccountOperatorApi
from overair.server.access.group_operator_api import UserGroupOperatorApi
from overair.server.access.model import NewKeys
from overair.server.access.operator_api import IdentityOperatorApi
from overair.server.access.policy_operator_api import PolicyOperatorApi
from overair.server.access.simulation_operator_api import SimulationOperatorApi
from overair.server.audit.service import AuditedWork, AuditService
from overair.server.audit.store import SqlAuditStore
from overair.server.aws_protocol.dispatcher import AwsProtocol
from overair.server.storage.work import SqlWork
from tests.support.access import AccessRoom, build_access_room
from tests.support.server_process import new_client
from tests.support.shared_port import shared_port


@dataclass
class SignedDoor:
    """Where clients find the door, and the rooms behind it."""

    url: str
    room: AccessRoom
    audit: AuditService
    root: NewKeys

    def client(self, service: str, keys: NewKeys | None = None, **options: Any) -> Any:
        """A boto3 client with the root's keys or others; each call is tried once."""
        keys = keys or self.root
        given: dict[str, Any] = {
            "endpoint_url": self.url,
            "region_name": self.room.place.region,
            "aws_access_key_id": keys.key_id,
            "aws_secret_access_key": keys.secret.reveal(),
            "aws_session_token": keys.token.reveal() if keys.token else None,
            "config": Config(retries={"total_max_attempts": 1}),
        }
        return new_client(service, **(given | options))


@contextmanager
def signed_door(work: SqlWork, place: Place, clock: SettableClock, *doors: object) -> Iterator[SignedDoor]:
    """Serve IAM, STS and these rooms' doors. ``clock`` must be set to about now, as boto3's is."""
    ids = RandomIds()
    room = build_access_room(work, place, clock, ids)
    audited = AuditedWork(work, SqlAuditStore(), clock=clock, ids=ids)
    engine = AwsProtocol(authenticator=room.authenticator, authoriser=room.authoriser, ids=ids)
    engine.add(
        IdentityOperatorApi(work=audited, identities=room.identities, sessions=room.sessions, uses=room.credentials.uses),
        PolicyOperatorApi(work=audited, policies=room.policies, identities=room.identities, groups=room.groups),
        UserGroupOperatorApi(work=audited, groups=room.groups),
        SimulationOperatorApi(work=audited, policies=room.policies, identities=room.identities, groups=room.groups),
        AccountOperatorApi(work=audited, policies=room.policies, identities=room.identities, groups=room.groups),
        *doors,
    )
    root = work.run_blocking(lambda tx: room.identities.create_key(tx, place.account, ""))
    with shared_port().leads_to(engine) as url:
        yield SignedDoor(url=url, room=room, audit=AuditService(SqlAuditStore()), root=root)
