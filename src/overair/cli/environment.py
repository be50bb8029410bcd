"""``overair env``: what boto3 and ``aws`` need to know, as exports for the shell."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated

import typer

from overair.cli.operator import DATA_DEFAULT, Data, models_folder, operator_of
from overair.cli.output import Json, print_json


def variables(data: Path, account: Path | None = None) -> dict[str, str]:
    """The variables by name, for the server that runs on ``data``; ``account``: the folder of another account of it."""
    operator = operator_of(data, account)
    return {
        "AWS_ENDPOINT_URL": operator.endpoints.operator_url,
        "AWS_CA_BUNDLE": operator.endpoints.ca_file,
        "AWS_REGION": operator.endpoints.region,
        "AWS_DEFAULT_REGION": operator.endpoints.region,
        "AWS_ACCESS_KEY_ID": operator.key.access_key_id,
        "AWS_SECRET_ACCESS_KEY": operator.key.secret.reveal(),
        "AWS_DATA_PATH": _with_ours_first(os.environ.get("AWS_DATA_PATH")),
        **({} if account is None else {"OVERAIR_ACCOUNT_DIR": str(account.resolve())}),
    }


def _with_ours_first(present: str | None) -> str:
    ours = str(models_folder())
    others = [part for part in (present or "").split(os.pathsep) if part and part != ours]
    return os.pathsep.join([ours, *others])


def env(
    account: Annotated[Path | None, typer.Option(help="The folder of an account that `overair account create` made.")] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Print exports for the shell: `eval "$(overair env)"`, then boto3 and aws need no further flag."""
    found = variables(data, account)
    if json:
        print_json(found)
        return
    for name, value in found.items():
        print(f"export {name}={shlex.quote(value)}")
    print(f"unset AWS_SESSION_TOKEN AWS_PROFILE{' OVERAIR_ACCOUNT_DIR' if account is None else ''}")
