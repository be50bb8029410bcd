"""``overair audit``: the signed head of the account's audit chain, and whether its rows are the ones that were written."""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from json import loads
from pathlib import Path
from typing import Annotated, Any

import typer

from overair.basics.clock import Instant
from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.server.audit.heads import HEAD_SIZE_BYTES_MAX, AuditHead, read_head, walk
from overair.server.audit.model import RESTORED, AuditRecord, ChainBroken

app = typer.Typer(help="What was done, and whether it still says so.", no_args_is_help=True, rich_markup_mode=None)

_FIELDS = (
    "account, at, record_id, principal_arn, access_key_id, service, operation, resource, request_id, source_ip, kind, times, "
    "sequence, chain_hash"
)


@app.callback()
def audit() -> None:
    """What was done, and whether it still says so."""


@app.command("head")
def head(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Print the signed head of the account's audit chain. Keep it where nobody who administers the server can change it."""
    with told_plainly():
        signed = operator_of(data).client("overair").sign_audit_head()["head"]
    if json:
        print_json(loads(signed))
        return
    console.print(signed, soft_wrap=True, markup=False)


@app.command("verify")
def verify(
    head: Annotated[Path, typer.Option("--head", help="The file that `overair audit head` was kept in.")],
    records: Annotated[
        Path | None, typer.Option(help="Read this records.sqlite3, of a server that runs or not, and ask no server.")
    ] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """See whether the account's audit rows are the ones that were there when the head was signed, and whether each later one
    follows."""
    kept = _read_head(head)
    rows = _rows_of_server(data) if records is None else _rows_of_file(records, kept.reached.account)
    restores: list[AuditRecord] = []
    try:
        with closing(rows), told_plainly():
            count = walk(kept, _noting_restores(rows, restores))
    except ChainBroken as broken:
        hint = ""
        if restores:
            at = restores[-1]
            hint = (
                f" Row {at.sequence} says that the server was restored ({at.resource}): what it wrote between that backup and "
                "its loss is gone, and a head of that time can't hold."
            )
        raise CommandEnded(ExitCode.REFUSED, f"The audit doesn't hold: {broken.reason}{hint}") from None
    if json:
        print_json({"account": kept.reached.account, "head_sequence": kept.reached.sequence, "records": count})
        return
    console.print(
        f"The audit of account {kept.reached.account} holds: {count} rows, {kept.reached.sequence} of them vouched for by the "
        "head.",
        soft_wrap=True,
    )


def _noting_restores(rows: Iterable[AuditRecord], found: list[AuditRecord]) -> Iterator[AuditRecord]:
    for row in rows:
        if (row.service, row.operation) == RESTORED:
            found.append(row)
        yield row


def _read_head(path: Path) -> AuditHead:
    try:
        with path.open("rb") as file:
            return read_head(file.read(HEAD_SIZE_BYTES_MAX + 1))
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} can't be read: {error.strerror}.") from error
    except InvalidRequest as error:
        raise CommandEnded(ExitCode.REFUSED, f"{path}: {error.message}") from error


def _rows_of_file(path: Path, account: AccountId) -> Generator[AuditRecord, None, None]:
    if not path.is_file():
        raise CommandEnded(ExitCode.USAGE, f"There is no file {path}.")
    query = f"SELECT {_FIELDS} FROM audit_records WHERE account = ? ORDER BY sequence, at, record_id"  # noqa: S608 (constant)
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            for row in connection.execute(query, (account,)):
                yield AuditRecord(**dict(row))
    except sqlite3.Error as error:
        raise CommandEnded(ExitCode.REFUSED, f"{path} isn't the records of a server with an audit chain: {error}.") from error


def _rows_of_server(data: Path) -> Generator[AuditRecord, None, None]:
    operator = operator_of(data)
    overair = operator.client("overair")
    token: dict[str, str] = {}
    while True:
        page = overair.list_audit_chain(maxResults=250, **token)
        for each in page["records"]:
            yield _record(AccountId(operator.endpoints.account), each)
        if "nextToken" not in page:
            return
        token = {"nextToken": page["nextToken"]}


def _record(account: AccountId, told: dict[str, Any]) -> AuditRecord:
    return AuditRecord(
        account=account,
        at=Instant(round(told["time"].timestamp() * 1000)),
        record_id=told["recordId"],
        principal_arn=told["principalArn"],
        access_key_id=told["accessKeyId"],
        service=told["service"],
        operation=told["operation"],
        resource=told["resource"],
        request_id=told["requestId"],
        source_ip=told["sourceIp"],
        kind=told["kind"],
        times=told["times"],
        sequence=told["sequence"],
        chain_hash=told["chainHash"],
    )
