"""``sign add``, ``remove``, ``delegate``, ``renew``, ``diff``: what the documents say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from overair.cli.output import Json, print_json
from overair.cli.sign import edits, items, pushing
from overair.cli.sign.desk import Desk, measure
from overair.cli.sign.ends import usage
from overair.cli.sign.items import ROOT, TARGETS, unsigned_body
from overair.cli.sign.key_commands import reference
from overair.cli.sign.options import TREE_DEFAULT, Dir, Which, desk_at, show
from overair.cli.sign.sealing import DAYS_MAX
from overair.cli.sign.tree import read_json
from overair.wire.uptane.metadata import Repository

InRole = Annotated[str, typer.Option("--role", help="The document to edit: targets, or a delegation's name.")]


def add(
    file: Annotated[Path, typer.Argument(help="The image.")],
    name: Annotated[str, typer.Option("--name", help="What the software is called.")],
    version: Annotated[str, typer.Option("--version", help="Its version.")],
    hardware_ids: Annotated[list[str], typer.Option("--hardware-id", help="Hardware that it is for; may be repeated.")],
    target: Annotated[str | None, typer.Option("--target", help="The target's name. [default: NAME-VERSION]")] = None,
    uri: Annotated[str | None, typer.Option("--uri", help="Where devices fetch it, in place of the server.")] = None,
    custom: Annotated[Path | None, typer.Option("--custom", help="JSON object with members of your own.")] = None,
    later: Annotated[bool, typer.Option("--later", help="No network now: the push takes the file along.")] = False,
    role: InRole = TARGETS,
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """Upload an image and name it in the targets, in one step. Doing it twice does it once."""
    with desk_at(directory, json) as desk:
        length, sha256 = measure(file)
        if uri is not None and not uri.startswith("https://"):
            raise usage("--uri is an https:// address that devices can reach.")
        new = edits.NewTarget(
            name=target or f"{name}-{version}",
            length=length,
            sha256=sha256,
            package=name,
            version=version,
            hardware_ids=tuple(hardware_ids),
            uri=uri,
            custom=read_json(custom) if custom is not None else {},
        )
        _check_document(desk, role)
        changes = desk.edit(Repository.IMAGE, role, lambda targets: edits.with_target(targets, new, now=desk.clock.now()))
        uploaded = False
        if uri is None:
            if later:
                folder = desk.folder(Repository.IMAGE)
                wanted = folder.draft()
                if not wanted.is_empty:
                    folder.save_draft(replace(wanted, uploads={**wanted.uploads, new.name: str(file.resolve())}))
            else:
                uploaded = pushing.upload(desk, new.name, file, length=length, sha256=sha256)
        document = {
            "target": new.name,
            "length": length,
            "sha256": sha256,
            "uploaded": uploaded,
            "changes": [change.to_json() for change in changes],
        }
        if json:
            print_json(document)
            return
        show([change.text for change in changes] or [f"{new.name} is there already."])
        show(["uploaded" if uploaded else "not uploaded: with the push" if later else "nothing to upload"], indent="  ")


def remove(
    name: Annotated[str, typer.Argument(help="The target.")],
    force: Annotated[bool, typer.Option("--force", help="Even if a device has it, or is about to get it.")] = False,
    role: InRole = TARGETS,
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """Take an image out of the targets. The server refuses the push if a device has it or is about to get it, unless forced."""
    with desk_at(directory, json) as desk:
        changes = desk.edit(Repository.IMAGE, role, lambda targets: edits.without_target(targets, name))
        folder = desk.folder(Repository.IMAGE)
        wanted = folder.draft()
        uploads = {each: path for each, path in wanted.uploads.items() if each != name}
        forced = wanted.forced | {name} if force else wanted.forced - {name}
        folder.save_draft(replace(wanted, uploads=uploads, forced=forced))
        if json:
            print_json({"changes": [change.to_json() for change in changes], "forced": force})
            return
        show([change.text for change in changes] or [f"{name} was only in the draft."])


def delegate(
    name: Annotated[str, typer.Argument(help="What the delegated role is called.")],
    paths: Annotated[
        list[str] | None, typer.Option("--paths", help="Pattern of target names, such as 'vendor-b/*'; may be repeated.")
    ] = None,
    keys: Annotated[
        list[str] | None, typer.Option("--key", help="A key's name here, or a public key's file; may be repeated.")
    ] = None,
    threshold: Annotated[int, typer.Option("--threshold", help="How many of the keys must sign.")] = 1,
    terminating: Annotated[
        bool, typer.Option("--terminating", help="What isn't found there is looked for nowhere else.")
    ] = False,
    withdraw: Annotated[bool, typer.Option("--withdraw", help="End the delegation.")] = False,
    role: InRole = TARGETS,
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """Trust somebody else's keys for some target names. Not terminating unless you say so."""
    with desk_at(directory, json) as desk:
        if withdraw:
            changes = desk.edit(Repository.IMAGE, role, lambda targets: edits.without_delegation(targets, name))
        else:
            public = [reference(desk, each) for each in keys or ()]
            changes = desk.edit(
                Repository.IMAGE,
                role,
                lambda targets: edits.with_delegation(
                    targets, name, paths or (), public, threshold=threshold, terminating=terminating
                ),
            )
            known, folder = desk.known(Repository.IMAGE), desk.folder(Repository.IMAGE)
            wanted = folder.draft()
            if known.body(name) is None and name not in wanted.wanted:
                # A client that walks into a delegation without a document gives the whole search up: an empty one comes along.
                folder.save_draft(wanted.edit(name, known, wanted.body(name, known)))
        if json:
            print_json({"changes": [change.to_json() for change in changes]})
            return
        show([change.text for change in changes] or ["Nothing changes."])
        if not withdraw:
            show(
                [f"{name} itself is signed in the same push, empty at first: until it is there, clients stop at it."],
                indent="  ",
            )


def pending(
    take: Annotated[bool, typer.Option("--take", help="Name them in the draft of the targets.")] = False,
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """Images that were uploaded and described to the server, and wait for a signature of people."""
    with desk_at(directory, json) as desk:
        document = desk.server.document(Repository.IMAGE, "unsigned/targets.json")
        found = {} if document is None else items.as_targets(unsigned_body(document[0], TARGETS)).targets
        targets = desk.folder(Repository.IMAGE).draft().targets(desk.known(Repository.IMAGE))
        waiting = {name: target for name, target in found.items() if name not in targets.targets}
        for name in waiting:
            edits.check_target_name(name)
        changes = []
        if take and waiting:
            everything = dict(sorted({**targets.targets, **waiting}.items()))
            changes = desk.edit(Repository.IMAGE, TARGETS, lambda before: replace(before, targets=everything))
        rows: list[dict[str, Any]] = [
            {
                "target": name,
                "length": target.length,
                "sha256": target.sha256,
                "hardware_ids": list(target.hardware_ids),
                "name": str(target.custom.get("name", "")),
                "version": str(target.custom.get("version", "")),
            }
            for name, target in waiting.items()
        ]
        if json:
            print_json({"pending": rows, "changes": [change.to_json() for change in changes]})
            return
        for row in rows:
            hardware = ", ".join(row["hardware_ids"])
            show([f"{row['target']}: {row['name']} {row['version']} for {hardware}, sha256 {row['sha256']}"])
        if not rows:
            show(["Nothing waits."])
        elif not take:
            show(["Look at each before you sign for it. Then: overair sign pending --take, and overair sign push."])


def renew(
    days: Annotated[int, typer.Option("--days", help="How long it shall count from now on.")],
    roles: Annotated[
        list[str] | None, typer.Option("--role", help="root, targets or a delegation. [default: all but root]")
    ] = None,
    repository: Which = Repository.IMAGE,
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """Sign what is there anew before it ends, unchanged."""
    with desk_at(directory, json) as desk:
        if not 1 <= days <= DAYS_MAX:
            raise usage(f"--days is 1 to {DAYS_MAX}.")
        known = desk.known(repository)
        default = [ROOT] if repository is Repository.DIRECTOR else [TARGETS, *known.delegations]
        names = roles or default
        for name in names:
            if known.body(name) is None:
                raise usage(f"The {repository} repository has no {name} to renew.")
        wanted = desk.folder(repository).draft()
        desk.want(repository, replace(wanted, renew=wanted.renew | set(names), days=days))
        if json:
            print_json({"renew": list(names), "days": days})
            return
        show([f"{', '.join(names)}: signed anew for {days} days with the next push."])


def diff(
    repository: Which = Repository.IMAGE,
    fresh: Annotated[bool, typer.Option("--pull", help="Fetch what the server serves now first.")] = False,
    directory: Dir = TREE_DEFAULT,
    json: Json = False,
) -> None:
    """Say what a push would change in what the server serves (as last pulled)."""
    with desk_at(directory, json) as desk:
        known = desk.pull(repository) if fresh else desk.known(repository)
        wanted = desk.folder(repository).draft()
        if fresh:
            pushing.rebase_draft(desk, repository, known)
            wanted = desk.folder(repository).draft()
        found = wanted.changes(known, named=desk.named)
        document: dict[str, Any] = {
            "repository": repository.value,
            "changes": {name: [change.to_json() for change in changes] for name, changes in found.items()},
            "renew": sorted(wanted.renew),
            "uploads": sorted(wanted.uploads),
        }
        if json:
            print_json(document)
            return
        for name, changes in found.items():
            show([f"{name}, version {known.version(name)} now:"])
            show([change.text for change in changes] or ["a new document, empty"], indent="  ")
        show([f"{name} is signed anew" for name in sorted(wanted.renew)])
        if wanted.is_empty:
            show(["Nothing to push."])


def _check_document(desk: Desk, role: str) -> None:
    if role == ROOT:
        raise usage("Images stand in targets or in a delegation.")
    if role == TARGETS:
        return
    known, wanted = desk.known(Repository.IMAGE), desk.folder(Repository.IMAGE).draft()
    parents = [wanted.targets(known), *(wanted.targets(known, name) for name in known.delegations)]
    if not any(each.name == role for parent in parents for each in parent.delegations):
        raise usage(f"Nobody delegates to {role!r}: `sign delegate {role} --paths … --key …` first.")
