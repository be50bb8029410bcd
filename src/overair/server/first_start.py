"""What the first start makes, so that a newcomer can ship at once: all of it in one transaction, then the operator's files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from overair.basics.arn import Place
from overair.basics.ids import AccountId, SigningProfileName
from overair.basics.redacted import Redacted
from overair.basics.work import Tx
from overair.server.access.account_operations import Furnished
from overair.server.access.accounts import Accounts
from overair.server.access.identities import Identities
from overair.server.access.model import Owner, OwnerKind
from overair.server.access.policies import Policies
from overair.server.certificates.acm import AcmService
from overair.server.certificates.authorities import AuthoritiesService
from overair.server.objects.model import Versioning
from overair.server.objects.service import ObjectsService
from overair.server.roots.service import RootsService
from overair.server.signing.model import ProfilePlan
from overair.server.signing.service import SigningService
from overair.server.state_directory import FORMAT, Marker, StateDirectory, write_file
from overair.wire.uptane.metadata import Repository

ROLE_NAME: Final = "overair-ota"
PROFILE_NAME: Final = SigningProfileName("overair_default")
SIGNER_NAME: Final = "Overair default signer"
SIGNER_PATH_ON_DEVICE: Final = "/trust/signer.pem"
"""``certfile`` of what the default profile signs; its last segment is the anchor's name in a device's trust folder."""
PLATFORM: Final = "AmazonFreeRTOS-Default"
OTA_POLICY_ARN: Final = "arn:aws:iam::aws:policy/service-role/AmazonFreeRTOSOTAUpdate"

TRUST: Final = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": {"Service": "iot.amazonaws.com"}, "Action": "sts:AssumeRole"}],
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rooms:
    """The services that a first start calls."""

    accounts: Accounts
    identities: Identities
    policies: Policies
    authorities: AuthoritiesService
    acm: AcmService
    objects: ObjectsService
    signing: SigningService
    roots: RootsService


def default_bucket(account: AccountId) -> str:
    """The bucket that a newcomer uploads to."""
    return f"overair-{account}"


def role_arn(place: Place) -> str:
    """The OTA service role."""
    return place.iam(f"role/{ROLE_NAME}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What must be written beside the records: once, for the operator."""

    root_key_id: str
    root_secret: Redacted[str]
    signer_certificate_pem: str


def seed(tx: Tx, rooms: Rooms, place: Place) -> Made:
    """Account, device CA, bucket, role, signer, profile and root key, in one transaction."""
    account = place.account
    rooms.authorities.device_authority_pem(tx, account)
    bucket = default_bucket(account)
    rooms.objects.create_bucket(tx, place, bucket)
    rooms.objects.set_versioning(tx, place, bucket, Versioning.ENABLED)
    role = rooms.identities.create_role(tx, account, ROLE_NAME, TRUST, description="Signs, streams and sends updates.")
    owner = Owner(kind=OwnerKind.ROLE, name=role.name)
    rooms.policies.attach(tx, account, owner, OTA_POLICY_ARN)
    rooms.policies.put_inline(tx, account, owner, "own-bucket-and-role", _role_policy(place, bucket))
    signer = rooms.acm.create_own_signer(tx, place, SIGNER_NAME)
    plan = ProfilePlan(platform_id=PLATFORM, certificate_arn=signer.arn, parameters={"certname": SIGNER_PATH_ON_DEVICE})
    rooms.signing.put_profile(tx, place, PROFILE_NAME, plan, tags={})
    complete(tx, rooms, place)
    key = rooms.identities.create_key(tx, account, "")
    return Made(root_key_id=key.key_id, root_secret=key.secret, signer_certificate_pem=signer.pem)


def furnish(tx: Tx, rooms: Rooms, place: Place) -> Furnished:
    """What another account has from its start: the same."""
    made = seed(tx, rooms, place)
    return Furnished(
        root_key_id=made.root_key_id,
        root_secret=made.root_secret,
        signer_certificate_pem=made.signer_certificate_pem,
        bucket=default_bucket(place.account),
        role_arn=role_arn(place),
        profile=PROFILE_NAME,
    )


def complete(tx: Tx, rooms: Rooms, place: Place) -> None:
    """What an account of an earlier version lacks; done at every start, and nothing where it is there."""
    rooms.accounts.note(tx, place.account)
    for repository in Repository:
        rooms.roots.create(tx, place, repository)


def complete_all(tx: Tx, rooms: Rooms, place: Place) -> None:
    """The same for the server's first account and every other one."""
    complete(tx, rooms, place)
    for known in rooms.accounts.all(tx):
        complete(tx, rooms, Place(place.region, known.account))


def _role_policy(place: Place, bucket: str) -> str:
    """What the managed policy leaves to the operator (wire reference §12.1): the bucket, and the role itself."""
    return json.dumps(
        {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["s3:GetObjectVersion", "s3:GetObject", "s3:PutObject"],
                    "Resource": f"arn:aws:s3:::{bucket}/*",
                },
                {"Effect": "Allow", "Action": ["iam:GetRole", "iam:PassRole"], "Resource": role_arn(place)},
            ],
        }
    )


def write_down(state: StateDirectory, made: Made, place: Place) -> None:
    """The operator's files, then the marker that makes the folder a server's."""
    key = {"access_key_id": made.root_key_id, "secret_access_key": made.root_secret.reveal()}
    write_file(state.root_key_file, json.dumps(key, indent=2).encode() + b"\n", mode=0o600)
    write_file(state.signer_certificate_file, made.signer_certificate_pem.encode(), mode=0o644)
    state.write_marker(Marker(format=FORMAT, account=place.account, region=place.region))
