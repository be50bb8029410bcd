"""Settings: each by flag, by ``OVERAIR_*`` in the environment, or by a TOML file; in that order of precedence.

A name that isn't a setting is refused wherever it stands, misspelt environment names too: a server that silently runs
with a default in place of what somebody wrote is worse than one that doesn't start.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from overair.basics.errors import InvalidRequest

ENVIRONMENT_PREFIX = "OVERAIR_"
ENVIRONMENT_NAMES_OF_OTHERS = frozenset({"OVERAIR_CONFIG", "OVERAIR_TESTDATA"})
"""Names with our prefix that aren't settings: where the settings file is, and where the tests find others' vectors."""

_SERVER_FILES = ("server_certificate_file", "server_key_file", "server_ca_file")

Port = Annotated[int, Field(ge=0, le=65535)]


def _loopback_or_any_address(value: str) -> str:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("must be an IP address such as 127.0.0.1 or 0.0.0.0") from None
    return value


def _host_names(value: tuple[str, ...]) -> tuple[str, ...]:
    for host in value:
        if not re.fullmatch(r"(?!-)[A-Za-z0-9.:_-]{1,253}", host):
            raise ValueError(f"{host!r} is neither a host name nor an IP address")
    return value


class Settings(BaseSettings):
    """What an operator may choose. ``docs/settings.md`` is held against this class by a test."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, extra="forbid", frozen=True, validate_default=True)

    data: Path = Field(default=Path("overair-data"), description="The state directory; made on first start with mode 0700.")
    bind: Annotated[str, AfterValidator(_loopback_or_any_address)] = Field(
        default="127.0.0.1", description="The address that every TLS port listens on."
    )
    host: Annotated[tuple[str, ...], NoDecode, AfterValidator(_host_names)] = Field(
        default=("localhost", "127.0.0.1"),
        description="Names and addresses in the server certificate; the first is what devices are told to connect to.",
    )
    operator_port: Port = Field(default=9443, description="HTTPS for operators; 0 takes a free port.")
    mqtt_port: Port = Field(default=8883, description="MQTT for devices under mutual TLS; 0 takes a free port.")
    device_port: Port = Field(default=8443, description="HTTPS for devices; 0 takes a free port.")
    plain_http: Port | None = Field(
        default=None, description="An operator port without TLS, on loopback alone; 0 takes a free port. Off unless named."
    )
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = Field(
        default="us-east-1", description="The region in ARNs and credential scopes; fixed at first start."
    )
    account: Annotated[str, Field(pattern=r"^\d{12}$")] | None = Field(
        default=None, description="The account's twelve digits; fixed at first start, drawn at random if not named."
    )
    log: Literal["text", "json"] = Field(default="text", description="The form of log lines on standard error.")
    database: str | None = Field(
        default=None, description="A postgresql:// URL in place of the SQLite file in the state directory."
    )
    key_passphrase_file: Path | None = Field(
        default=None, description="A file whose content wraps the private keys at rest. Without it a key file lies beside them."
    )
    pkcs11_module: Path | None = Field(
        default=None, description="The library of the PKCS #11 tokens that may hold keys (docs/keys.md)."
    )
    pkcs11_pin_file: Path | None = Field(default=None, description="A file with the PIN of those tokens.")
    key_service: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="Beginnings of key service URIs that may hold keys, such as awskms:alias/overair-."
    )
    presigned_v2: bool = Field(
        default=True, description="Accept Signature Version 2 in presigned S3 URLs, which boto3 makes by default."
    )
    limits: Literal["generous", "aws"] = Field(
        default="generous", description="Limits of the device door: bounded by memory alone, or AWS's quotas."
    )
    reused_ids: Literal["queue", "refuse"] = Field(
        default="queue",
        description="Another key for a device id that is taken: an operator may approve it, or nobody may.",
    )
    download_url: str | None = Field(
        default=None, description="The address of the device port as devices see it, if a balancer stands before it."
    )

    retention_days: Annotated[int, Field(ge=0, le=36_500)] = Field(
        default=730,
        description="How many days after its end a job goes, with its executions, its update and its stream; 0: never.",
    )

    server_certificate_file: Path | None = Field(
        default=None,
        description="Your own server certificate, its issuers after it; read again when it changes or on SIGHUP.",
    )
    server_key_file: Path | None = Field(default=None, description="The private key of your own server certificate.")
    server_ca_file: Path | None = Field(
        default=None, description="The authorities that clients are to trust for your own server certificate."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # The order of precedence is ours and visible in load_settings; the library only validates.
        return (init_settings,)


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, text in environment.items():
        if not name.upper().startswith(ENVIRONMENT_PREFIX) or name in ENVIRONMENT_NAMES_OF_OTHERS:
            continue
        setting = name.removeprefix(ENVIRONMENT_PREFIX).lower()
        if name != name.upper() or setting not in Settings.model_fields:
            raise InvalidRequest(f"{name} in the environment is no setting of Overair.{_nearest(setting, ENVIRONMENT_PREFIX)}")
        values[setting] = tuple(part for part in text.replace(",", " ").split()) if setting in {"host", "key_service"} else text
    return values


def _from_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"The settings file {path} can't be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"The settings file {path} isn't TOML: {error}.") from error
    for name in content:
        if name not in Settings.model_fields:
            raise InvalidRequest(f"{name!r} in {path} is no setting of Overair.{_nearest(name)}")
    return content


def _nearest(name: str, prefix: str = "") -> str:
    near = difflib.get_close_matches(name, list(Settings.model_fields), n=1)
    if not near:
        return " `overair up --help` lists them all."
    return f" Did you mean {prefix + near[0].upper() if prefix else near[0]}?"


def load_settings(
    flags: Mapping[str, Any], *, environment: Mapping[str, str] | None = None, file: Path | None = None
) -> Settings:
    """Put the three sources together; a flag beats the environment, which beats the file.

    Args:
        flags: Settings by name; None means that the flag was not given.
        environment: Defaults to the process's.
        file: A TOML file; defaults to the one that ``OVERAIR_CONFIG`` names, if any.

    Raises:
        InvalidRequest: a name is unknown or a value is out of its bounds; the message names the setting and the rule.
    """
    environment = os.environ if environment is None else environment
    if file is None and (named := environment.get("OVERAIR_CONFIG")):
        file = Path(named)
    values = _from_file(file) if file else {}
    values |= _from_environment(environment)
    values |= {name: value for name, value in flags.items() if value is not None}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else "settings"
        # A database's address may hold a password: it is never shown, not even when it is wrong.
        given = "" if first["type"] == "missing" or name == "database" else f" (got {str(first['input'])[:100]!r})"
        raise InvalidRequest(f"The setting {name.replace('_', '-')} {_rule(first)}{given}.") from error
    files = {name: getattr(settings, name) for name in _SERVER_FILES}
    missing = [name.replace("_", "-") for name, file in files.items() if file is None]
    if 0 < len(missing) < len(files):
        raise InvalidRequest(
            f"Your own server certificate needs {' and '.join(missing)} too: certificate, key and the authorities that "
            "clients are to trust go together."
        )
    return settings


def _rule(error: Any) -> str:
    message = str(error["msg"])
    return message.removeprefix("Value error, ") if message.startswith("Value error") else f"is wrong: {message}"
