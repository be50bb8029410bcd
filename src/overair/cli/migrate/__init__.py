"""``overair migrate``: a fleet moves from OTA Connect, or from another server of ours, to this one (docs/migration.md)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from overair.basics.clock import WallClock
from overair.basics.redacted import Redacted
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.migrate.exporting import Exporter, ExportOptions
from overair.cli.migrate.handover import Level
from overair.cli.migrate.importing import NEEDS_ROOTS, Done, Importer, ImportOptions
from overair.cli.migrate.layout import INDEX_SIZE_BYTES_MAX, ExportDirectory
from overair.cli.migrate.source import Access, open_source
from overair.cli.migrate.target import TargetServer
from overair.cli.operator import DATA_DEFAULT, Data, operator_of
from overair.cli.output import Json, console, print_json

FILE_SIZE_BYTES_MAX = 1024 * 1024

app = typer.Typer(help="Move a fleet from another server to this one.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def migrate() -> None:
    """Move a fleet from another server to this one."""


@app.command("export")
def export(
    source: Annotated[
        str, typer.Option("--from", help="credentials.zip of the other server, its https:// address, or a state directory.")
    ],
    out: Annotated[Path, typer.Option("--out", help="The directory; the same again goes on with an export that was cut.")],
    root: Annotated[Path | None, typer.Option("--root", help="A root that the Image repository's chain must contain.")] = None,
    director_root: Annotated[Path | None, typer.Option("--director-root", help="The same for the Director.")] = None,
    ca: Annotated[Path | None, typer.Option("--ca", help="Certificates (PEM) that the other server's must come from.")] = None,
    client_id: Annotated[str, typer.Option("--client-id", help="OAuth2 client, where --from is an address.")] = "",
    client_secret_file: Annotated[Path | None, typer.Option("--client-secret-file", help="Its secret.")] = None,
    token_url: Annotated[
        str, typer.Option("--token-url", help="Where it gets its token. [default: ADDRESS/oauth2/token]")
    ] = "",
    client_certificate: Annotated[
        Path | None, typer.Option("--client-certificate", help="PKCS#12 that proves you, as client_auth.p12 in a zip does.")
    ] = None,
    password_file: Annotated[Path | None, typer.Option("--password-file", help="The password of PKCS#12 files.")] = None,
    fleet_ca: Annotated[
        list[Path] | None, typer.Option("--fleet-ca", help="Certificate of a fleet authority (PEM); may be repeated.")
    ] = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Whether the bytes of images are read.")] = True,
    devices: Annotated[bool, typer.Option("--devices/--no-devices", help="Whether devices are read.")] = True,
    json: Json = False,
) -> None:
    """Read another server into a directory: root chains, targets, images, fleet authorities, devices."""
    access = Access(
        client_id=client_id,
        secret=_secret(client_secret_file),
        token_url=token_url,
        client_p12=None if client_certificate is None else Redacted(_read(client_certificate)),
        password=_secret(password_file),
        ca=None if ca is None else _read(ca),
    )
    pins = {"image": root, "director": director_root}
    options = ExportOptions(
        pins={repository: _read(path) for repository, path in pins.items() if path is not None},
        images=images,
        devices=devices,
        fleet_authorities=tuple(_certificates(path) for path in fleet_ca or ()),
    )
    clock = WallClock()
    with open_source(source, access, clock=clock) as opened:
        told = Exporter(opened, ExportDirectory(out), options, clock=clock, tell=_tell(json)).run()
    if json:
        print_json({"directory": str(out), **told.to_json()})
        return
    _show(
        [
            f"{out}: Image roots 1 to {told.roots['image']}, Director roots 1 to {told.roots['director']},",
            f"  {told.targets} targets, {told.images} images ({told.image_bytes:,} bytes), "
            f"{len(told.images_elsewhere)} that lie elsewhere, {len(told.images_missing)} missing,",
            f"  {told.fleet_authorities} fleet authorities, {told.devices} devices "
            f"({len(told.devices_without_certificate)} without a certificate).",
            f"The first Image root: {told.fingerprints['image']}. The first Director root: {told.fingerprints['director']}.",
            *(f"! {device}: {' '.join(problems)}" for device, problems in told.devices_with_problems.items()),
            *(f"! {warning}" for warning in told.warnings),
        ]
    )


@app.command("import")
def import_directory(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="An exported directory.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Plan and check everything; change nothing.")] = False,
    level: Annotated[
        Level, typer.Option("--level", help="default: this server signs. production: root and targets stay with you.")
    ] = Level.DEFAULT,
    key: Annotated[
        list[Path] | None, typer.Option("--key", help="Private key file of the old server's root; may be repeated.")
    ] = None,
    signature: Annotated[
        list[Path] | None, typer.Option("--signature", help="What `overair sign approve` made of a request; may be repeated.")
    ] = None,
    sign_targets: Annotated[
        bool, typer.Option("--sign-targets", help="With --level production: have targets signed anew with the root.")
    ] = False,
    may_lack_images: Annotated[
        bool, typer.Option("--may-lack-images", help="Targets without bytes or an address come over all the same.")
    ] = False,
    first_contact: Annotated[
        str | None, typer.Option("--first-contact", help="allow or deny devices of fleet authorities that nobody has seen.")
    ] = None,
    device_ids: Annotated[
        str | None, typer.Option("--device-ids", help="Which ids may come in by first contact: a pattern with * and ?.")
    ] = None,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Bring an exported directory into this server; the same again goes on where it stopped."""
    rule = {"firstContact": first_contact, "deviceIdPattern": device_ids}
    options = ImportOptions(
        level=level,
        key_files=tuple(key or ()),
        signature_files=tuple(signature or ()),
        sign_targets=sign_targets,
        may_lack_images=may_lack_images,
        rule={name: value for name, value in rule.items() if value is not None},
    )
    clock = WallClock()
    server = TargetServer.of(operator_of(data), clock)
    importer = Importer(ExportDirectory(directory), server, options, clock=clock, tell=_tell(json))
    if dry_run:
        _plan_told(importer, json)
        return
    done = importer.run()
    if json:
        print_json(done.to_json())
    else:
        _show(_lines(done))
    if done.state == NEEDS_ROOTS:
        raise CommandEnded(ExitCode.REFUSED, "" if json else _missing(done))
    if done.refused_devices:
        raise CommandEnded(ExitCode.DEVICES_FAILED, f"{len(done.refused_devices)} devices could not come.")


@app.command("status")
def status(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="An exported directory.")],
    json: Json = False,
) -> None:
    """How far an export, or an import of it, has come, and what it waits for."""
    opened = ExportDirectory(directory)
    is_whole = (directory / "export.json").exists()
    index = opened.index() if is_whole else {}
    has_begun = (directory / "import" / "state.json").exists()
    state = opened.read_json("import/state.json", INDEX_SIZE_BYTES_MAX) if has_begun else {}
    requests = sorted(str(path) for path in (directory / "import").glob("*.request.json"))
    document: dict[str, Any] = {
        "directory": str(directory),
        "export": "whole" if is_whole else "cut",
        "source": index.get("source", ""),
        "exported_at": index.get("exported_at", ""),
        "import": state.get("state", "not begun"),
        "requests": requests if state.get("state") == NEEDS_ROOTS else [],
    }
    if json:
        print_json(document)
        return
    _show(
        [
            f"{directory}: {'exported' if is_whole else 'an export that was cut'} from {document['source'] or 'somewhere'}.",
            f"Import: {document['import']}.",
            *(f"  waits for signatures over {path}" for path in document["requests"]),
        ]
    )


# ----------------------------------------------------------------------------------------------------------------------------


def _plan_told(importer: Importer, as_json: bool) -> None:
    plan = importer.plan()
    if as_json:
        print_json({"state": "dry-run", "plan": plan.to_json()})
    else:
        _show(plan.lines())
    if plan.errors:
        listed = "".join(f"\n  {each}" for each in plan.errors)
        raise CommandEnded(ExitCode.REFUSED, f"The import can't be carried out.{listed}")


def _lines(done: Done) -> list[str]:
    lines = done.plan.lines()
    if done.state == NEEDS_ROOTS:
        return lines
    count = sum(done.devices.values())
    return [
        *lines,
        f"Published: Image root {done.versions.get('root', 0)}, targets {done.versions.get('targets', 0)}, Director root "
        f"{done.director_root}; read back as a device that follows.",
        f"{len(done.authorities)} fleet authorities are trusted.",
        f"{count - len(done.refused_devices)} of {count} devices are here.",
        "Now point the devices to this server: its address, and its CA.",
    ]


def _missing(done: Done) -> str:
    assert done.handover is not None
    needs = "; ".join(each.text for each in done.handover.missing)
    requests = " ".join(str(path) for path in done.handover.requests.values())
    return (
        f"It needs roots signed by the old root keys: {needs}. Nothing is published. Take {requests} to whoever holds them "
        "(overair sign approve --move), then the same command with --signature FILE; or give the key itself with --key FILE."
    )


def _tell(as_json: bool) -> Any:
    return (lambda line: None) if as_json else (lambda line: print(line, file=sys.stderr))


def _show(lines: list[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True, markup=False)


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(FILE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise CommandEnded(ExitCode.USAGE, f"{path} can't be read: {error.strerror}.") from error
    if len(data) > FILE_SIZE_BYTES_MAX:
        raise CommandEnded(ExitCode.USAGE, f"{path} is longer than {FILE_SIZE_BYTES_MAX} bytes.")
    return data


def _secret(path: Path | None) -> Redacted[str] | None:
    return None if path is None else Redacted(_read(path).decode("utf-8", "replace").strip())


def _certificates(path: Path) -> str:
    data = _read(path)
    if b"PRIVATE" in data.upper():
        raise CommandEnded(ExitCode.USAGE, f"{path} holds a private key: an authority's key stays in your own PKI.")
    return data.decode("ascii", "replace")
