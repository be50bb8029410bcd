"""``sign init``, ``pull``, ``status``, ``verify``, ``backup``, ``restore``, ``discard``: the tree and what it knows."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from overair.basics.ids import RandomIds
from overair.cli.output import Json, print_json
from overair.cli.sign import backup as backups
from overair.cli.sign import level as levels
from overair.cli.sign import pushing
from overair.cli.sign.bundle import read_bundle
from overair.cli.sign.desk import Desk
from overair.cli.sign.edits import OFFLINE_ROLES
from overair.cli.sign.ends import ending, refused, usage
from overair.cli.sign.items import ROOT, TARGETS
from overair.cli.sign.key_records import kind_of
from overair.cli.sign.known import Known, Served, fingerprint, signing_keys, verify
from overair.cli.sign.options import (
    TREE_DEFAULT,
    Dir,
    PassphraseFile,
    Which,
    desk_at,
    desk_of,
    secrets_from,
    show,
)
from overair.cli.sign.sealing import DAY_MS, unmet
from overair.cli.sign.tree import Access, Config, Tree, read_file
from overair.cli.sign.verification import check_as_client
from overair.wire.uptane.metadata import ROOT_SIZE_BYTES_MAX, Repository, Role
from overair.wire.uptane.metadata_writing import expires_text

ALARM_DAYS: Final = (1, 3, 7, 14, 30)


def init(
    credentials: Annotated[Path | None, typer.Argument(help="credentials.zip of a signing bundle.")] = None,
    directory: Annotated[Path, typer.Argument(help="The tree to make.")] = TREE_DEFAULT,
    data: Annotated[Path | None, typer.Option("--data", help="In place of a bundle: a server's state directory here.")] = None,
    root: Annotated[
        Path | None, typer.Option("--root", help="In place of a bundle: a root.json for an air-gapped tree.")
    ] = None,
    director_root: Annotated[
        Path | None, typer.Option("--director-root", help="With --root: the Director's root as well.")
    ] = None,
    expected: Annotated[str | None, typer.Option("--fingerprint", help="Refuse unless the Image root has this one.")] = None,
    json: Json = False,
) -> None:
    """Make a signing tree, pull the root chain, show its fingerprint and pin it."""
    with ending(json):
        if (data is not None or root is not None) and credentials is not None:
            directory, credentials = credentials, None  # the one path that is named is the tree's
        if sum(each is not None for each in (credentials, data, root)) != 1:
            raise usage(
                "Name one of: a credentials.zip, --data DIR of a server here, or --root FILE for a machine without network."
            )
        config, ca, roots = _beginning(credentials, data, root, director_root)
        tree = Tree.create(directory, config, ca)
        try:
            with tree.held():
                known = _first_pull(desk_of(tree, secrets_from(None)), roots, expected)
        except BaseException:
            shutil.rmtree(directory, ignore_errors=True)
            raise
        document = {
            "tree": str(directory),
            "roots": {
                each.repository.value: {"version": each.root.version, "fingerprint": fingerprint(each.root_bytes)}
                for each in known
            },
        }
        if json:
            print_json(document)
            return
        show([f"{directory} is a signing tree now. Compare over another channel before you sign anything:"])
        for each in known:
            show([f"{each.repository} root {each.root.version}", f"  sha256 {fingerprint(each.root_bytes)}"], indent="  ")
        show(["Next: overair sign keys new NAME --role root, then --role targets, then overair sign take-offline."])


def _beginning(
    credentials: Path | None, data: Path | None, root: Path | None, director_root: Path | None
) -> tuple[Config, bytes | None, dict[Repository, bytes]]:
    roots: dict[Repository, bytes] = {}
    if credentials is not None:
        bundle = read_bundle(credentials)
        for repository, found in ((Repository.IMAGE, bundle.root), (Repository.DIRECTOR, bundle.director_root)):
            if found is not None:
                roots[repository] = found
        config = Config(
            operator_url=bundle.operator_url, director_url=bundle.director_url, region="", access=bundle.access, pins={}
        )
        return config, bundle.server_ca, roots
    if data is not None:
        access = Access(kind="data", data=str(data.resolve()))
        return Config(operator_url="", director_url="", region="", access=access, pins={}), None, roots
    for repository, path in ((Repository.IMAGE, root), (Repository.DIRECTOR, director_root)):
        if path is not None:
            roots[repository] = read_file(path, ROOT_SIZE_BYTES_MAX)
    return Config(operator_url="", director_url="", region="", access=Access(kind="none"), pins={}), None, roots


def _first_pull(desk: Desk, roots: dict[Repository, bytes], expected: str | None) -> list[Known]:
    found: list[Known] = []
    for repository in Repository:
        given = roots.get(repository)
        if desk.tree.config.is_air_gapped:
            if given is None:
                continue
            served = Served(roots=(given,), pulled_at=desk.clock.now())
        elif given is None and desk.server.document(repository, "root.json") is None:
            continue
        else:
            served = desk.fetch(repository, [given] if given is not None else [])
        known = verify(served, repository, now=desk.clock.now())
        if repository is Repository.IMAGE and expected is not None and fingerprint(known.root_bytes) != expected.lower():
            raise refused(
                f"The Image root has the fingerprint {fingerprint(known.root_bytes)}, not {expected}. Nothing was made."
            )
        desk.tree.pin(repository, fingerprint(served.roots[0]))
        desk.folder(repository).save_served(served)
        found.append(known)
    if not found:
        raise refused("The server has no repository yet.")
    return sorted(found, key=lambda known: known.repository is Repository.DIRECTOR)


def pull(directory: Dir = TREE_DEFAULT, json: Json = False) -> None:
    """Fetch what the server serves now, check it as a client does, keep it."""
    with desk_at(directory, json) as desk:
        document: dict[str, Any] = {}
        for repository in desk.tree.config.pins:
            before = desk.known(Repository(repository))
            known = desk.pull(Repository(repository))
            names = [ROOT, *([TARGETS] if known.targets else []), *known.delegations]
            document[repository] = {name: {"before": before.version(name), "now": known.version(name)} for name in names}
        if json:
            print_json(document)
            return
        for repository, rows in document.items():
            for name, row in rows.items():
                news = "as before" if row["before"] == row["now"] else f"was {row['before']}"
                show([f"{repository} {name}: version {row['now']} ({news})"])


def status(directory: Dir = TREE_DEFAULT, json: Json = False) -> None:
    """Say who holds which key, what ends when, and who must still sign. Asks no server: it tells what was pulled last."""
    with desk_at(directory, json) as desk:
        document = {
            "tree": str(directory),
            "repositories": {name: _status_of(desk, Repository(name)) for name in sorted(desk.tree.config.pins, reverse=True)},
        }
        if json:
            print_json(document)
            return
        for name, told in document["repositories"].items():  # type: ignore[attr-defined]
            show([f"{name} repository: {told['level']}, as of {told['pulled_at']}"])
            for role, row in told["roles"].items():
                keys = ", ".join(f"{key['name']} ({key['kind']}, {key['where']})" for key in row["keys"])
                show([f"{role:<9} {row['threshold']} of: {keys}"], indent="  ")
            for each, row in told["documents"].items():
                show([f"{each:<9} version {row['version']}, {row['days_left']} days left{row['alarm'] and ' !'}"], indent="  ")
            show([f"to push: {line}" for line in told["draft"]], indent="  ")
            show([f"missing: {line}" for line in told["missing"]], indent="  ")
            show([f"! {line}" for line in told["warnings"]], indent="  ")


def _status_of(desk: Desk, repository: Repository) -> dict[str, Any]:
    known, folder, now = desk.known(repository), desk.folder(repository), desk.clock.now()
    documents = {
        name: {
            "version": known.version(name) if name in {ROOT, TARGETS, *known.delegations} else None,
            "expires": expires_text(end),
            "days_left": (end - now) // DAY_MS,
            "alarm": next((f"{days} days" for days in ALARM_DAYS if end - now <= days * DAY_MS), "")
            if _signed_by_people(desk, known, name)
            else "",
        }
        for name, end in known.ends.items()
        if name not in {"snapshot", "timestamp"}
    }
    sealed, draft, state = folder.sealed(), folder.draft(), folder.level()
    warnings = [f"{name} has expired" for name in known.expired]
    warnings += [f"{name} ends in {row['days_left']} days: sign renew" for name, row in documents.items() if row["alarm"]]
    if state is not None:
        warnings.append(f"sign {state['action']} was cut after the step {state['step']!r}: run it again")
    warnings += [
        f"{desk.named(key_id)}, an old key of the server's, is kept until deleted, by {until} at the latest"
        for key_id, until in sorted(known.served.kept_keys.items())
    ]
    return {
        "level": _level(desk, known),
        "pulled_at": expires_text(known.served.pulled_at),
        "root_fingerprint": fingerprint(known.root_bytes),
        "roles": {role.value: _role(desk, known, role) for role in Role},
        "documents": documents,
        "draft": [change.text for changes in draft.changes(known, named=desk.named).values() for change in changes]
        + [f"{name} is signed anew" for name in sorted(draft.renew)],
        "missing": [pushing.missing_text(desk, each, sealed, known) for each in unmet(sealed, known)]
        if sealed is not None
        else [],
        "warnings": warnings,
    }


def _where(desk: Desk, known: Known, key_id: str) -> str:
    if any(record.id == key_id and record.holder for record in desk.tree.records().values()):
        return "here"
    return "server" if key_id in known.served.online_key_ids else "elsewhere"


def _role(desk: Desk, known: Known, role: Role) -> dict[str, Any]:
    keys = known.root.role_keys(role)
    rows = [
        {
            "key_id": key_id,
            "name": desk.named(key_id),
            "kind": kind_of(known.root.keys[key_id]),
            "where": _where(desk, known, key_id),
        }
        for key_id in keys.key_ids
    ]
    return {"threshold": keys.threshold, "keys": rows}


def _level(desk: Desk, known: Known) -> str:
    roles = OFFLINE_ROLES[known.repository]
    online = [
        role for role in roles if all(_where(desk, known, each) == "server" for each in known.root.role_keys(role).key_ids)
    ]
    if len(online) == len(roles):
        return "online (default level)"
    return "partly offline" if online else "offline (production level)"


def _signed_by_people(desk: Desk, known: Known, name: str) -> bool:
    return any(_where(desk, known, key_id) != "server" for key_id in signing_keys(known, name))


def verify_command(
    directory: Dir = TREE_DEFAULT,
    as_client: Annotated[bool, typer.Option("--as-client", help="Ask the server, both flavours, with today's date.")] = False,
    json: Json = False,
) -> None:
    """Check what was pulled against the pinned root; with --as-client what the server serves now, as a client does."""
    with desk_at(directory, json) as desk:
        document: dict[str, Any] = {}
        for name in desk.tree.config.pins:
            repository = Repository(name)
            if as_client:
                document[name] = [seen.to_json() for seen in check_as_client(desk, repository)]
            else:
                known = desk.known(repository)
                document[name] = [{"flavour": "uptane", "versions": {each: known.version(each) for each in known.ends}}]
                if known.expired:
                    raise refused(f"{name}: {', '.join(known.expired)} expired: clients refuse them.")
        if json:
            print_json(document)
            return
        for name, rows in document.items():
            for row in rows:
                versions = ", ".join(f"{each} {version}" for each, version in row["versions"].items() if version)
                show([f"{name} ({row['flavour']}): a client believes {versions}"])


def backup(
    file: Annotated[Path, typer.Argument(help="Where to write it.")],
    directory: Dir = TREE_DEFAULT,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Seal the whole tree into one file."""
    with desk_at(directory, json, passphrase_file=passphrase_file) as desk:
        if file.exists():
            raise usage(f"{file} is there already.")
        data = backups.write(desk.tree, desk.secrets.new_passphrase("the backup"), ids=RandomIds())
        from overair.agent.durable import Disk

        Disk().write_whole(file, data)
        document = {"file": str(file), "size_bytes": len(data), "keys": sorted(desk.tree.records())}
        if json:
            print_json(document)
            return
        show([f"{file} holds the tree, sealed. Keep it apart from its passphrase, and try `sign restore` once."])


def restore(
    file: Annotated[Path, typer.Argument(help="A backup.")],
    directory: Annotated[Path, typer.Argument(help="An empty directory.")] = TREE_DEFAULT,
    passphrase_file: PassphraseFile = None,
    json: Json = False,
) -> None:
    """Lay a backup out again."""
    with ending(json):
        secrets = secrets_from(passphrase_file)
        tree = backups.restore(read_file(file, 256 * 1024 * 1024), secrets.passphrase("the backup"), directory, name=str(file))
        document = {"tree": str(directory), "keys": sorted(tree.records())}
        if json:
            print_json(document)
            return
        show([f"{directory} is a signing tree with the keys {', '.join(tree.records()) or '(none)'}. Pull before you sign."])


def discard(directory: Dir = TREE_DEFAULT, repository: Which = Repository.IMAGE, json: Json = False) -> None:
    """Throw away edits and signatures that weren't pushed."""
    with desk_at(directory, json) as desk:
        before = desk.folder(repository).draft()
        levels.give_up(desk, repository)
        document = {"repository": repository.value, "discarded": sorted(set(before.wanted) | before.renew)}
        if json:
            print_json(document)
            return
        show([f"Nothing waits any more in the {repository} repository."])
