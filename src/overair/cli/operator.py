"""The operator's side of a command: where the server is, with which key, through boto3."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from overair.basics.redacted import Redacted
from overair.cli.ends import CommandEnded, ExitCode

DATA_DEFAULT = Path("overair-data")
ACCOUNT_FILE = "root-key.json"
SIGNER_FILE = "signer.pem"
"""What lies in the folder of another account of the server (``overair account create``), which OVERAIR_ACCOUNT_DIR names."""

Data = Annotated[Path, typer.Option("--data", envvar="OVERAIR_DATA", help="The server's state directory.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """``run/endpoints.json``: written when every port accepts, gone when the server is."""

    pid: int
    operator_url: str
    plain_http_url: str | None
    mqtt_host: str
    mqtt_port: int
    device_url: str
    ca_file: str
    region: str
    account: str
    bucket: str
    ota_role_arn: str
    signing_profile: str
    signer_certificate_file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKey:
    """The key that the commands sign with."""

    access_key_id: str
    secret: Redacted[str]


class Operator:
    """One server and the right to ask it things."""

    def __init__(self, data: Path, endpoints: Endpoints, key: AccessKey) -> None:
        self.data = data
        self.endpoints = endpoints
        self.key = key
        import boto3  # here and not above: `overair up` has no use for it and starts sooner without

        # Our own service model stands beside botocore's; the loader takes its search path from the environment.
        session = boto3.Session(
            aws_access_key_id=key.access_key_id,
            aws_secret_access_key=key.secret.reveal(),
            region_name=endpoints.region,
        )
        session._loader.search_paths.append(str(models_folder()))
        self._session = session
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        """The boto3 client of one service against this server. Making one takes longer than most calls do: it is kept."""
        if service not in self._clients:
            self._clients[service] = self._new_client(service)
        return self._clients[service]

    def _new_client(self, service: str) -> Any:
        from botocore.config import Config

        return self._session.client(
            service,
            endpoint_url=self.endpoints.operator_url,
            verify=self.endpoints.ca_file,
            config=Config(
                retries={"mode": "standard", "total_max_attempts": 3},
                connect_timeout=5,
                read_timeout=60,
                signature_version="s3v4" if service == "s3" else "v4",
                s3={"addressing_style": "path"},
            ),
        )


def models_folder() -> Path:
    """Where our own service model lies, in the layout that botocore's loader reads (``AWS_DATA_PATH``)."""
    import overair.server.aws_protocol

    return Path(overair.server.aws_protocol.__file__).parent / "models"


def read_endpoints(data: Path) -> Endpoints:
    """Where the server of this directory listens.

    Raises:
        CommandEnded: UNREACHABLE when no server runs there.
    """
    file = data / "run" / "endpoints.json"
    try:
        return Endpoints(**json.loads(file.read_bytes()))
    except FileNotFoundError:
        raise CommandEnded(
            ExitCode.UNREACHABLE,
            f"No server runs on {data}: {file} isn't there. Start one with `overair up --data {data}`, "
            "or name its directory with --data.",
        ) from None
    except (OSError, ValueError, TypeError) as error:
        raise CommandEnded(ExitCode.UNREACHABLE, f"{file} can't be read: {error}.") from error


def read_key(data: Path) -> AccessKey:
    """The key in the environment if there is one, else the root key that lies in the state directory."""
    if (key := _key_in_environment()) is not None:
        return key
    file = data / "root-key.json"
    try:
        content = json.loads(file.read_bytes())
        return AccessKey(access_key_id=content["access_key_id"], secret=Redacted(content["secret_access_key"]))
    except (OSError, ValueError, KeyError) as error:
        raise CommandEnded(
            ExitCode.REFUSED, f"No access key: AWS_ACCESS_KEY_ID is not set and {file} can't be read ({error})."
        ) from error


def operator_of(data: Path, account: Path | None = None) -> Operator:
    """The operator of the server that runs on ``data``: in the account whose folder is named, here or by OVERAIR_ACCOUNT_DIR,
    else in the server's first one."""
    named = os.environ.get("OVERAIR_ACCOUNT_DIR")
    folder = account or (Path(named) if named else None)
    endpoints = read_endpoints(data)
    if folder is None:
        return Operator(data, endpoints, read_key(data))
    return Operator(data, *_in_account(folder, endpoints, has_key=account is None))


def _in_account(folder: Path, endpoints: Endpoints, *, has_key: bool) -> tuple[Endpoints, AccessKey]:
    """What is another account's own, and its key; ``has_key``: unless one stands in the environment."""
    try:
        content = json.loads((folder / ACCOUNT_FILE).read_bytes())
        key = AccessKey(access_key_id=content["access_key_id"], secret=Redacted(content["secret_access_key"]))
        own = replace(
            endpoints,
            account=content["account"],
            bucket=content["bucket"],
            ota_role_arn=content["ota_role_arn"],
            signing_profile=content["signing_profile"],
            signer_certificate_file=str((folder / SIGNER_FILE).resolve()),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CommandEnded(
            ExitCode.REFUSED, f"{folder} isn't the folder of an account that `overair account create` made ({error})."
        ) from error
    return own, (_key_in_environment() or key) if has_key else key


def _key_in_environment() -> AccessKey | None:
    if (key_id := os.environ.get("AWS_ACCESS_KEY_ID")) and (secret := os.environ.get("AWS_SECRET_ACCESS_KEY")):
        return AccessKey(access_key_id=key_id, secret=Redacted(secret))
    return None


@contextmanager
def told_plainly() -> Iterator[None]:
    """Turn what boto3 raises into one line and the code that says what kind of end this is."""
    from botocore.exceptions import BotoCoreError, ClientError, EndpointConnectionError, ParamValidationError, SSLError

    try:
        yield
    except ClientError as error:
        what = error.response["Error"]
        raise CommandEnded(
            ExitCode.REFUSED, f"{error.operation_name} was refused ({what['Code']}): {what['Message']}"
        ) from error
    except ParamValidationError as error:
        raise CommandEnded(ExitCode.USAGE, " ".join(str(error).split())) from error
    except SSLError as error:
        raise CommandEnded(ExitCode.UNREACHABLE, f"The server's certificate doesn't fit {error}.") from error
    except (EndpointConnectionError, BotoCoreError) as error:
        raise CommandEnded(ExitCode.UNREACHABLE, f"The server can't be reached: {error}") from error
