"""What operators hand out: bundles as files, for devices, operators and signers, each with a secret of its own.

The classic ``credentials.zip`` holds all three (Uptane reference §10); ours are apart unless somebody asks, so that a device's
image holds no operator's key.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from overair.basics.clock import Clock, as_datetime
from overair.basics.ids import IdSource
from overair.basics.redacted import Redacted
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import Operator
from overair.cli.sign.server import RestServer
from overair.cli.sign.tree import Access, Config
from overair.wire.uptane.metadata import Repository

USERS_PATH: Final = "/overair/bundles/"
"""Where the users of bundles stand, by which they are listed and revoked."""
POLICY_NAME: Final = "bundle"
SIGNS: Final = (
    "overair:GetImageRoot",
    "overair:PushImageRoot",
    "overair:GetImageMetadata",
    "overair:PushImageMetadata",
    "overair:PutImageExpiry",
    "overair:PutTrustedDelegations",
    "overair:PushDelegation",
    "overair:ListTargets",
    "overair:GetTarget",
    "overair:PutTarget",
    "overair:EditTarget",
    "overair:DeleteTarget",
    "overair:UploadTarget",
    "overair:GetDirectorRoot",
    "overair:PushDirectorRoot",
)
TAKES_OFFLINE: Final = (
    "overair:RotateImageRoot",
    "overair:RotateDirectorRoot",
    "overair:*ImageRoleKey*",
    "overair:*DirectorRoleKey*",
)
OPERATES: Final = (
    "overair:*MultiTargetUpdate",
    "overair:*Assignment*",
    "overair:*UptaneDevice*",
    "overair:*AutoUpdate*",
    "overair:*Campaign*",
    "overair:CountInstalledImages",
    "overair:DescribeInstallationStats",
    "overair:GetImageRoot",
    "overair:GetImageMetadata",
    "overair:ListTargets",
    "overair:GetTarget",
    "overair:PutTarget",
    "overair:UploadTarget",
    "iot:*ThingGroup*",
    "iot:ListThings*",
    "iot:ListJob*",
    "iot:DescribeJob*",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleUser:
    """Who a bundle lets in: a user of its own with a key of its own."""

    name: str
    key_id: str
    secret: Redacted[str]


@contextmanager
def new_file(path: Path) -> Iterator[None]:
    """Hold the place of a file that mustn't be there yet, readable by its owner alone, before the server makes a secret for it;
    nothing is left of it where that fails.

    Raises:
        CommandEnded: USAGE.
    """
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        raise CommandEnded(ExitCode.USAGE, f"{path} is there already. Choose another name for --out.") from None
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} can't be written: {error.strerror}.") from error
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def write_zip(path: Path, entries: Mapping[str, bytes]) -> None:
    """Write a bundle into its place. Each entry is as private as the file."""
    with path.open("wb") as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o600 << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, content)
        file.flush()


def device_entries(made: Mapping[str, Any]) -> dict[str, bytes]:
    """Of CreateProvisioningCredential's answer: what devices read."""
    return {
        "autoprov.url": made["deviceUrl"].encode("ascii") + b"\n",
        "autoprov_credentials.p12": made["pkcs12"],
        "server_ca.pem": made["serverCaPem"].encode("ascii"),
    }


def access_entries(operator: Operator, user: BundleUser) -> dict[str, bytes]:
    """What OTA Connect's tools and ours read to speak to the operator port: where it is, whom to trust, by which right."""
    url = operator.endpoints.operator_url
    access = {
        "oauth2": {
            "server": f"{url}/oauth2",
            "client_id": user.key_id,
            "client_secret": user.secret.reveal(),
            "scope": "none",
        },
        "ostree": {"server": f"{url}/treehub/api/v3"},
        "no_auth": False,
    }
    return {
        "tufrepo.url": url.encode("ascii") + b"\n",
        "api_gateway.url": url.encode("ascii") + b"\n",
        "treehub.json": json.dumps(access, indent=2).encode("ascii") + b"\n",
        "server_ca.pem": Path(operator.endpoints.ca_file).read_bytes(),
    }


def root_entries(operator: Operator, *, clock: Clock) -> dict[str, bytes]:
    """The roots that devices and signing tools trust first, as they are served now."""
    url = operator.endpoints.operator_url
    access = Access(kind="key", key_id=operator.key.access_key_id, secret=operator.key.secret.reveal())
    config = Config(operator_url=url, director_url=url, region=operator.endpoints.region, access=access, pins={})
    server = RestServer(config, Path(operator.endpoints.ca_file), clock=clock)
    found = {
        "root.json": server.document(Repository.IMAGE, "root.json"),
        "director_root.json": server.document(Repository.DIRECTOR, "root.json"),
    }
    return {name: answer[0] for name, answer in found.items() if answer is not None}


# Users ----------------------------------------------------------------------------------------------------------------------


def make_user(
    operator: Operator, name: str, actions: tuple[str, ...], *, expires_days: int | None, clock: Clock, ids: IdSource
) -> BundleUser:
    """A user that may do this and nothing else, until its bundle ends; taken back whole where making it fails."""
    iam = operator.client("iam")
    user = f"{name}-{ids.token(8).lower()}"
    iam.create_user(UserName=user, Path=USERS_PATH)
    try:
        ends = None if expires_days is None else as_datetime(clock.now()) + timedelta(days=expires_days)
        iam.put_user_policy(UserName=user, PolicyName=POLICY_NAME, PolicyDocument=_policy(actions, ends))
        key = iam.create_access_key(UserName=user)["AccessKey"]
    except BaseException:
        drop_user(operator, user)
        raise
    return BundleUser(name=user, key_id=key["AccessKeyId"], secret=Redacted(key["SecretAccessKey"]))


def drop_user(operator: Operator, user: str) -> None:
    """End a bundle: its user's keys, rights and name."""
    iam = operator.client("iam")
    for key in iam.list_access_keys(UserName=user)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=user, AccessKeyId=key["AccessKeyId"])
    for policy in iam.list_user_policies(UserName=user)["PolicyNames"]:
        iam.delete_user_policy(UserName=user, PolicyName=policy)
    iam.delete_user(UserName=user)


def list_users(operator: Operator) -> list[dict[str, Any]]:
    """The users of all bundles for operators and signers."""
    pages = operator.client("iam").get_paginator("list_users").paginate(PathPrefix=USERS_PATH)
    return [user for page in pages for user in page["Users"]]


def _policy(actions: tuple[str, ...], ends: datetime | None) -> str:
    statement: dict[str, Any] = {"Effect": "Allow", "Action": list(actions), "Resource": "*"}
    if ends is not None:
        moment = ends.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        statement["Condition"] = {"DateLessThan": {"aws:CurrentTime": moment}}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})
