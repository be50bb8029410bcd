"""``sign push``, ``approve``, ``collect``: signing, and carrying signatures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from overair.cli.output import Json, print_json
from overair.cli.sign import ceremony, pushing
from overair.cli.sign.acceptance import check_content
from overair.cli.sign.desk import Desk
from overair.cli.sign.ends import SignEnded, SignExit, refused, usage
from overair.cli.sign.known import Known, Served, check_pin, verify
from overair.cli.sign.options import (
    TREE_DEFAULT,
    Days,
    Dir,
    KeyNames,
    PassphraseFile,
    PinFile,
    Which,
    Yes,
    confirmed,
    desk_at,
    show,
)
from overair.cli.sign.pushing import Pushed
from overair.cli.sign.sealing import unmet, wanted_keys
from overair.cli.sign.tree import read_file
from overair.wire.uptane.metadata import Repository


def push(
    keys: KeyNames = None,
    days: Days = None,
    take: Annotated[str | None, typer.Option("--take", help="mine or theirs, where both changed the same.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Sign nothing, publish nothing; say what would happen.")] = False,
    repository: Which = Repository.IMAGE,
    directory: Dir = TREE_DEFAULT,
    passphrase_file: PassphraseFile = None,
    pin_file: PinFile = None,
    json: Json = False,
) -> None:
    """Pull, rebase, sign what can be signed here, publish both flavours at once, read back."""
    with desk_at(directory, json, passphrase_file=passphrase_file, pin_file=pin_file) as desk:
        if take not in {None, "mine", "theirs"}:
            raise usage("--take is mine or theirs.")
        folder = desk.folder(repository)
        if (state := folder.level()) is not None:
            raise usage(f"`sign {state['action']}` is on its way: run that again.")
        if days is not None:
            desk.want(repository, replace(folder.draft(), days=days))
        pushed = pushing.push(desk, repository, names=keys or (), take=take, dry_run=dry_run)
        _told(pushed, repository, json)


def _told(pushed: Pushed | None, repository: Repository, as_json: bool) -> None:
    if as_json:
        document = {
            "repository": repository.value,
            "pushed": {} if pushed is None else dict(pushed.versions),
            "dry_run": pushed is not None and pushed.dry_run,
            "warnings": [] if pushed is None else list(pushed.warnings),
            "changes": {}
            if pushed is None
            else {name: [change.to_json() for change in changes] for name, changes in pushed.changes.items()},
            "rebased_over": {}
            if pushed is None
            else {name: [change.to_json() for change in changes] for name, changes in pushed.rebased_over.items()},
        }
        print_json(document)
        return
    if pushed is None:
        show(["Nothing to push: the server serves what is wanted."])
        return
    verb = "would be" if pushed.dry_run else "is"
    for name, version in pushed.versions.items():
        show([f"{repository} {name}: version {version} {verb} published"])
        show([change.text for change in pushed.changes.get(name, [])], indent="  ")
    show([f"! {warning}" for warning in pushed.warnings])


def approve(
    request: Annotated[Path, typer.Argument(help="The request file.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="Where to write the signatures. [default: beside the request]")
    ] = None,
    keys: KeyNames = None,
    move: Annotated[
        bool, typer.Option("--move", help="It is meant that this repository moves to another server, with all that it serves.")
    ] = False,
    yes: Yes = False,
    directory: Dir = TREE_DEFAULT,
    passphrase_file: PassphraseFile = None,
    pin_file: PinFile = None,
    json: Json = False,
) -> None:
    """Look at a request and sign it, on a machine that needs no network. What would change is told from the bytes
    themselves."""
    with desk_at(directory, json, passphrase_file=passphrase_file, pin_file=pin_file) as desk:
        asked = ceremony.read_request(read_file(request, ceremony.REQUEST_SIZE_BYTES_MAX))
        repository = asked.sealed.repository
        if asked.sealed.moves and not move:
            raise refused(
                f"This request hands the {repository} repository over to another server: whoever holds the keys that it names "
                "publishes from then on, and no device comes back. Compare its keys with that server's, then say --move."
            )
        known = _replaced(desk, repository, asked.served)
        check_content(asked.sealed, known, now=desk.clock.now())
        summary = pushing.summary(desk, asked.sealed, known)
        approved = desk.folder(repository).approved()
        again = [
            f"This tree has signed another {each.name} version {each.body.version} before. Two of one version must never "
            "both be served."
            for each in asked.sealed.documents
            if approved.get(f"{each.name}/{each.body.version}", asked.sealed.id) != asked.sealed.id
        ]
        wanted = {key_id for each in wanted_keys(asked.sealed, known).values() for key_id in each}
        records = desk.holders(wanted, names=keys or ())
        if not records:
            raise SignEnded(SignExit.SIGNATURE_MISSING, "No key here is asked to sign this.")
        if not json:
            show([f"Request {asked.sealed.id[:16]}…, checked against root {known.root.version}:", *summary])
            show([f"! {line}" for line in again])
        if not confirmed(f"Sign with {', '.join(record.name for record in records)}?", yes=yes):
            raise refused("Not signed.")
        detached = ceremony.sign_request(asked, known, [desk.open(record) for record in records])
        path = out or request.with_name(f"{request.stem}-{'-'.join(record.name for record in records)}.sig.json")
        from overair.agent.durable import Disk

        Disk().write_whole(path, ceremony.write_signatures(detached))
        approved |= {f"{each.name}/{each.body.version}": asked.sealed.id for each in asked.sealed.documents}
        desk.folder(repository).write("approved.json", approved)
        desk.folder(repository).save_served(known.served)
        document = {
            "request": asked.sealed.id,
            "signed_by": [record.name for record in records],
            "signatures": str(path),
            "summary": summary,
            "warnings": again,
        }
        if json:
            print_json(document)
            return
        show([f"{path} goes back to whoever asked: overair sign collect {path.name}"])


def _replaced(desk: Desk, repository: Repository, carried: Served) -> Known:
    """What the request replaces, believed because the root that this tree pinned vouches for it.

    Raises:
        SignEnded: REFUSED: it hangs on no root that is known here, or goes behind what is known here.
    """
    pin = desk.tree.config.pins.get(repository.value)
    own = desk.folder(repository).served()
    if pin is None or own is None:
        raise refused(
            f"No {repository} root is pinned here, so nobody could say what the request replaces: `sign init --root FILE`."
        )
    check_pin(own.roots[0], pin)
    roots = list(own.roots)
    meeting = next((number for number, data in enumerate(carried.roots) if data in roots), None)
    if meeting is not None:
        at = roots.index(carried.roots[meeting])
        tail = list(carried.roots[meeting:])
        if len(roots) - at > len(tail) and roots[at : at + len(tail)] == tail:
            raise refused("The request was made over an older root than the one known here: ask for a new one.")
        roots = roots[:at] + tail
    else:
        roots += list(carried.roots)
    now = desk.clock.now()
    known = verify(replace(carried, roots=tuple(roots)), repository, now=now)
    before = verify(own, repository, now=now)
    if known.root.version < before.root.version or (
        before.targets is not None and known.version("targets") < before.version("targets")
    ):
        raise refused("The request replaces something older than what is known here: ask for a new one.")
    return known


def collect(
    files: Annotated[list[Path], typer.Argument(help="Signature files.")],
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """Add signatures that were made elsewhere, each one verified first."""
    with desk_at(directory, json) as desk:
        left: list[str] = []
        for file in files:
            detached = ceremony.read_signatures(read_file(file, ceremony.SIGNATURE_SIZE_BYTES_MAX), path=str(file))
            repository = _asked(desk, detached.request)
            sealed, known = desk.folder(repository).sealed(), desk.known(repository)
            if sealed is None:
                raise refused(f"{file}: nothing waits for signatures here. Push first; that writes a request.")
            sealed = ceremony.collect(sealed, known, detached, path=str(file))
            desk.folder(repository).save_sealed(sealed)
            left = [pushing.missing_text(desk, each, sealed, known) for each in unmet(sealed, known)]
        if json:
            print_json({"collected": [str(file) for file in files], "missing": left})
            return
        show([f"Still missing: {line}" for line in left] or ["Every signature is there: overair sign push."])


def _asked(desk: Desk, request: str) -> Repository:
    for name in desk.tree.config.pins:
        sealed = desk.folder(Repository(name)).sealed()
        if sealed is not None and sealed.id == request:
            return Repository(name)
    return Repository.IMAGE
