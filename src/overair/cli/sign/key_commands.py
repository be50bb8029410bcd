"""``sign keys …``, ``threshold``, ``rotate``: who may sign."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from overair.basics.redacted import Redacted
from overair.cli.output import Json, print_json
from overair.cli.sign import edits, holders, kms_holder, pkcs11_holder
from overair.cli.sign.desk import Desk
from overair.cli.sign.ends import usage
from overair.cli.sign.items import ROOT, Change
from overair.cli.sign.key_records import (
    KEY_FILE_SIZE_BYTES_MAX,
    ROLES,
    KeyRecord,
    check_name,
    check_new_size,
    kind_of,
    read_private,
    read_public,
)
from overair.cli.sign.known import Known
from overair.cli.sign.options import TREE_DEFAULT, Dir, PassphraseFile, PinFile, Which, desk_at, show
from overair.cli.sign.tree import read_file
from overair.wire.uptane.keys import PublicKey, public_key_of
from overair.wire.uptane.metadata import Repository, Role, Root

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None)

ForRole = Annotated[str, typer.Option("--role", help="root, targets or delegation.")]
OfRole = Annotated[str, typer.Option("--role", help="root or targets.")]


@app.command()
def new(
    names: Annotated[list[str], typer.Argument(help="What to call the keys.")],
    role: ForRole,
    kind: Annotated[str, typer.Option("--type", help="ed25519, rsa-3072 or rsa-4096.")] = "ed25519",
    token: Annotated[
        str | None, typer.Option("--pkcs11", help="Make or find it on a token: pkcs11:token=…;object=…?module-path=….")
    ] = None,
    service: Annotated[str | None, typer.Option("--kms", help="Use a key in a key service: awskms:…, gcpkms:…, hv:….")] = None,
    public: Annotated[
        Path | None, typer.Option("--public", help="With --kms: its public key in PEM, where it can't be asked.")
    ] = None,
    directory: Dir = TREE_DEFAULT,
    passphrase_file: PassphraseFile = None,
    pin_file: PinFile = None,
    json: Json = False,
) -> None:
    """Make keys: sealed files here, or keys that stay on a token or in a key service."""
    with desk_at(directory, json, passphrase_file=passphrase_file, pin_file=pin_file) as desk:
        _check_for(role)
        if token is not None and service is not None:
            raise usage("A key lies in one place: --pkcs11 or --kms.")
        if (token is not None or service is not None) and len(names) != 1:
            raise usage("A URI names one key.")
        for name in names:
            if check_name(name) in desk.tree.records():
                raise usage(f"A key is called {name} already.")
        made = [_make(desk, name, role, kind, token, service, public) for name in names]
        _told(made, json)


def _make(
    desk: Desk, name: str, role: str, kind: str, token: str | None, service: str | None, public: Path | None
) -> KeyRecord:
    if token is not None:
        key, _ = pkcs11_holder.make_or_find(token, kind, desk.secrets.pin)
        record = KeyRecord(name=name, role=role, key=key, holder=token)
    elif service is not None:
        asked = kms_holder.describe(service)
        if asked is None and public is None:
            raise usage(f"{service.partition(':')[0]}: can't be asked for its public key: name it with --public FILE.")
        key = asked or read_public(read_file(public or Path(), KEY_FILE_SIZE_BYTES_MAX), path=str(public))
        record = KeyRecord(name=name, role=role, key=key, holder=service)
    else:
        private = holders.generate(kind)
        record = KeyRecord(name=name, role=role, key=public_key_of(private.public_key()), holder=f"file:{name}.key")
        box = holders.seal_key(private, record, desk.secrets.new_passphrase(f"the key {name}"), ids=desk.ids)
        desk.tree.add_key(record, box)
        return record
    check_new_size(record.key)
    # A key that can't sign now won't sign on the day it is needed.
    holders.open_elsewhere(record, desk.secrets.pin).sign(b"overair: does this key sign?")
    desk.tree.add_key(record, None)
    return record


@app.command("import")
def import_key(
    name: Annotated[str, typer.Argument(help="What to call it.")],
    file: Annotated[Path, typer.Argument(help="A private key (PEM, OTA Connect's JSON), or a public one of somebody else's.")],
    role: ForRole,
    directory: Dir = TREE_DEFAULT,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Take in a key that was made elsewhere: a private one is sealed, a public one is remembered by name."""
    with desk_at(directory, json, passphrase_file=passphrase_file) as desk:
        _check_for(role)
        check_name(name)
        data = Redacted(read_file(file, KEY_FILE_SIZE_BYTES_MAX))
        if b"PRIVATE KEY" in data.reveal() or b'"private"' in data.reveal():
            private = read_private(data, path=str(file))
            record = KeyRecord(name=name, role=role, key=public_key_of(private.public_key()), holder=f"file:{name}.key")
            box = holders.seal_key(private, record, desk.secrets.new_passphrase(f"the key {name}"), ids=desk.ids)
            desk.tree.add_key(record, box)
            desk.tell(f"{file} still lies there in the clear: destroy it once this works.")
        else:
            record = KeyRecord(name=name, role=role, key=read_public(data.reveal(), path=str(file)), holder="")
            desk.tree.add_key(record, None)
        _told([record], json)


@app.command("list")
def list_keys(directory: Dir = TREE_DEFAULT, json: Json = False) -> None:
    """Every key that is known here, who holds it and what it may sign now."""
    with desk_at(directory, json) as desk:
        rows = [_row(record, _signs_for(desk, record)) for record in desk.tree.records().values()]
        if json:
            print_json({"keys": rows})
            return
        for row in rows:
            signs = ", ".join(row["signs_for"]) or "nothing yet"
            show(
                [f"{row['name']}  {row['kind']}  {row['holder'] or 'public key only'}  signs for {signs}", f"  {row['key_id']}"]
            )


@app.command()
def add(
    key: Annotated[str, typer.Argument(help="A key's name here, or a file with a public key.")],
    role: OfRole,
    repository: Which = Repository.IMAGE,
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """One more key may sign for a role, from the next root on."""
    with desk_at(directory, json) as desk:
        which = edits.check_role(repository, role)
        public = reference(desk, key)
        changes = desk.edit(repository, ROOT, lambda root: edits.with_key(root, which, public))
        _changed(changes, json)


@app.command()
def remove(
    key: Annotated[str, typer.Argument(help="A key's name here, a file with a public key, or a key id.")],
    role: OfRole,
    repository: Which = Repository.IMAGE,
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """A key may sign for a role no more, from the next root on."""
    with desk_at(directory, json) as desk:
        which = edits.check_role(repository, role)
        root = desk.folder(repository).draft().root(desk.known(repository))
        key_id = key if key in root.keys else reference(desk, key).id
        changes = desk.edit(repository, ROOT, lambda root: edits.without_key(root, which, key_id))
        _changed(changes, json)


def threshold(
    role: Annotated[str, typer.Argument(help="root or targets.")],
    count: Annotated[int, typer.Argument(help="How many must sign.")],
    repository: Which = Repository.IMAGE,
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """So many keys of a role must sign, from the next root on."""
    with desk_at(directory, json) as desk:
        which = edits.check_role(repository, role)
        _changed(desk.edit(repository, ROOT, lambda root: edits.with_threshold(root, which, count)), json)


def rotate(
    role: Annotated[str, typer.Argument(help="root or targets.")],
    added: Annotated[
        list[str], typer.Option("--new", help="Key that comes: a name here or a public key's file; may be repeated.")
    ],
    gone: Annotated[list[str] | None, typer.Option("--old", help="Key that goes. [default: every other one]")] = None,
    repository: Which = Repository.IMAGE,
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """New keys for a role; old ones stay as long as the threshold needs them."""
    with desk_at(directory, json) as desk:
        which = edits.check_role(repository, role)
        known = desk.known(repository)
        public = [reference(desk, each) for each in added]
        kept: list[str] = []

        def change(root: Root) -> Root:
            old = [_id_of(desk, root, each) for each in gone] if gone else list(root.role_keys(which).key_ids)
            for key in public:
                root = edits.with_key(root, which, key)
            for key_id in old:
                if key_id in {key.id for key in public}:
                    continue
                if len(root.role_keys(which).key_ids) - 1 < root.role_keys(which).threshold:
                    kept.append(key_id)
                    continue
                root = edits.without_key(root, which, key_id)
            return root

        changes = desk.edit(repository, ROOT, change)
        explained = _effect(desk, known, which, kept)
        if json:
            print_json({"changes": [each.to_json() for each in changes], "kept": kept, "effect": explained})
            return
        show([each.text for each in changes])
        show(explained, indent="  ")


def _effect(desk: Desk, known: Known, role: Role, kept: list[str]) -> list[str]:
    """What a rotation means to devices and people."""
    lines = [
        f"{desk.named(key_id)} stays: the threshold of {role} needs it. Rotate it when there is one more new key."
        for key_id in kept
    ]
    if role is Role.ROOT:
        lines.append("The next root is signed by the old and by the new root keys; both must be at hand once.")
        lines.append(
            "Devices that are away for long follow every root one by one: old roots stay served, and no old key is needed "
            "again."
        )
    else:
        lines.append("The push signs the targets anew with the new keys, in the same step as the root.")
    if known.repository is Repository.IMAGE:
        lines.append(
            "aktualizr asks for the Image root only when there is an update: idle devices learn of it with the next one."
        )
    else:
        lines.append(
            "A new Director root makes each device drop the Director targets that it had stored: open assignments are "
            "given again."
        )
    lines.append("A stolen old key counts for a device until that device has seen the new root.")
    return lines


def reference(desk: Desk, text: str) -> PublicKey:
    """A key by its name here, or by the file of its public half.

    Raises:
        SignEnded: USAGE.
    """
    records = desk.tree.records()
    if text in records:
        return records[text].key
    path = Path(text)
    if path.is_file():
        return read_public(read_file(path, KEY_FILE_SIZE_BYTES_MAX), path=text)
    raise usage(f"{text!r} is neither a key here ({', '.join(records) or 'there are none'}) nor a file with a public key.")


def _id_of(desk: Desk, root: Root, text: str) -> str:
    return text if text in root.keys else reference(desk, text).id


def _check_for(role: str) -> None:
    if role not in ROLES:
        raise usage(f"--role is one of {', '.join(ROLES)}: what the key is for.")


def _signs_for(desk: Desk, record: KeyRecord) -> list[str]:
    found = []
    for name in desk.tree.config.pins:
        known = desk.known(Repository(name))
        found += [f"{name} {role}" for role, keys in known.root.roles.items() if record.id in keys.key_ids]
        for parent in (known.targets, *known.delegations.values()):
            for delegation in parent.delegations if parent is not None else ():
                if record.id in delegation.keys.key_ids:
                    found.append(f"{name} {delegation.name}")
    return found


def _row(record: KeyRecord, signs_for: list[str]) -> dict[str, Any]:
    return {
        "name": record.name,
        "role": record.role,
        "kind": kind_of(record.key),
        "key_id": record.id,
        "holder": record.holder,
        "signs_for": signs_for,
    }


def _told(records: list[KeyRecord], as_json: bool) -> None:
    if as_json:
        print_json({"keys": [_row(record, []) for record in records]})
        return
    for record in records:
        show(
            [f"{record.name}: {kind_of(record.key)} for {record.role}, {record.holder or 'public key only'}", f"  {record.id}"]
        )


def _changed(changes: list[Change], as_json: bool) -> None:
    if as_json:
        print_json({"changes": [change.to_json() for change in changes]})
        return
    show([change.text for change in changes] or ["Nothing changes."])
