"""What a connecting certificate may do, gathered by statements that are compiled once."""

from __future__ import annotations

from typing import Final

import msgspec
from sqlalchemy import bindparam, or_, select

from overair.basics.ids import AccountId, CertificateId, PolicyName, ThingName, ThingTypeName
from overair.basics.work import Tx
from overair.server.devices.admission import AttachedPolicy, SpokenFor
from overair.server.devices.blocks import Block
from overair.server.devices.model import TargetKind, ThingPrincipalType
from overair.server.devices.store.blocks import block_of_certificate
from overair.server.devices.store.groups import thing_group_ancestors, thing_group_members
from overair.server.devices.store.policies import device_policies, device_policy_attachments, device_policy_versions
from overair.server.devices.store.things import thing_principals, things
from overair.server.storage.work import HotStatement

_attachment, _policy, _version = device_policy_attachments, device_policies, device_policy_versions
_member, _line = thing_group_members, thing_group_ancestors

_OPERATIVE = (
    select(_policy.c.name, _version.c.document)
    .join_from(_attachment, _policy, (_policy.c.account == _attachment.c.account) & (_policy.c.name == _attachment.c.policy))
    .join(
        _version,
        (_version.c.account == _policy.c.account)
        & (_version.c.policy == _policy.c.name)
        & (_version.c.version == _policy.c.default_version),
    )
    .where(_attachment.c.account == bindparam("b_account"))
)

_OF_CERTIFICATE: Final = HotStatement(
    _OPERATIVE.where(
        _attachment.c.target_kind == TargetKind.CERTIFICATE.value, _attachment.c.target_name == bindparam("b_certificate")
    )
)

_OF_GROUPS: Final = HotStatement(
    _OPERATIVE.join(
        _line,
        (_line.c.account == _attachment.c.account) & (_line.c.ancestor == _attachment.c.target_name),
    )
    .join(_member, (_member.c.account == _line.c.account) & (_member.c.group_name == _line.c.name))
    .where(_attachment.c.target_kind == TargetKind.GROUP.value, _member.c.thing == bindparam("b_thing"))
)

_SPOKEN_FOR: Final = HotStatement(
    select(things.c.name, things.c.type_name, things.c.attributes)
    .join_from(
        thing_principals,
        things,
        (things.c.account == thing_principals.c.account) & (things.c.name == thing_principals.c.thing),
    )
    .where(
        thing_principals.c.account == bindparam("b_account"),
        thing_principals.c.certificate == bindparam("b_certificate"),
        or_(
            thing_principals.c.thing == bindparam("b_client"),
            thing_principals.c.type == ThingPrincipalType.EXCLUSIVE_THING.value,
        ),
    )
)

_ATTRIBUTES: Final = msgspec.json.Decoder(dict[str, str])


class SqlAdmissionStore:
    """Answers the gateway's questions in SQL."""

    def policies_of_certificate(self, tx: Tx, account: AccountId, certificate: CertificateId) -> list[AttachedPolicy]:
        return [
            AttachedPolicy(name=PolicyName(name), document=document)
            for name, document in _OF_CERTIFICATE.all(tx, b_account=account, b_certificate=certificate)
        ]

    def policies_of_groups(self, tx: Tx, account: AccountId, thing: ThingName) -> list[AttachedPolicy]:
        found: dict[str, str] = dict(_OF_GROUPS.all(tx, b_account=account, b_thing=thing))
        return [AttachedPolicy(name=PolicyName(name), document=document) for name, document in found.items()]

    def block_of(self, tx: Tx, account: AccountId, certificate: CertificateId, origin: str) -> Block | None:
        return block_of_certificate(tx, account, certificate, origin)

    def spoken_for(self, tx: Tx, account: AccountId, certificate: CertificateId, client_id: str) -> SpokenFor | None:
        row = _SPOKEN_FOR.first(tx, b_account=account, b_certificate=certificate, b_client=client_id)
        if row is None:
            return None
        name, type_name, attributes = row
        return SpokenFor(
            thing=ThingName(name),
            type_name=None if type_name is None else ThingTypeName(type_name),
            attributes=_ATTRIBUTES.decode(attributes),
        )
