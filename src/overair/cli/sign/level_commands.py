"""``sign take-offline``, ``bring-online``: from the default level to the production level, and back."""

from __future__ import annotations

from typing import Annotated

import typer

from overair.cli.output import Json, print_json
from overair.cli.sign import level
from overair.cli.sign.desk import Desk
from overair.cli.sign.edits import OFFLINE_ROLES
from overair.cli.sign.ends import refused
from overair.cli.sign.key_commands import reference
from overair.cli.sign.level import Done, NewKeys, Plan
from overair.cli.sign.options import TREE_DEFAULT, Days, Dir, PassphraseFile, PinFile, Which, Yes, desk_at, show
from overair.wire.uptane.metadata import Repository, Role


def take_offline(
    root: Annotated[
        list[str] | None, typer.Option("--root", help="New root key. [default: every free key made for root]")
    ] = None,
    targets: Annotated[
        list[str] | None, typer.Option("--targets", help="New targets key. [default: every free key made for targets]")
    ] = None,
    root_threshold: Annotated[int, typer.Option("--root-threshold", help="How many root keys must sign.")] = 1,
    targets_threshold: Annotated[int, typer.Option("--targets-threshold", help="How many targets keys must sign.")] = 1,
    yes: Yes = False,
    days: Days = None,
    repository: Which = Repository.IMAGE,
    directory: Dir = TREE_DEFAULT,
    passphrase_file: PassphraseFile = None,
    pin_file: PinFile = None,
    json: Json = False,
) -> None:
    """Take root and targets away from the server. Shows the plan; with --yes it is done, step by step, and can be cut
    anywhere."""
    with desk_at(directory, json, passphrase_file=passphrase_file, pin_file=pin_file) as desk:
        if _on_its_way(desk, repository, level.TAKE_OFFLINE):
            _done(level.go_on(desk, repository), json)
            return
        known = desk.pull(repository)
        wanted = {
            Role.ROOT: _keys(desk, repository, root, Role.ROOT, root_threshold),
            Role.TARGETS: _keys(desk, repository, targets, Role.TARGETS, targets_threshold),
        }
        plan = level.plan_offline(desk, known, {role: wanted[role] for role in OFFLINE_ROLES[repository]}, days=days)
        if not yes:
            _planned(plan, json)
            return
        level.begin(desk, plan)
        _done(level.go_on(desk, repository), json)


def bring_online(
    yes: Yes = False,
    days: Days = None,
    repository: Which = Repository.IMAGE,
    directory: Dir = TREE_DEFAULT,
    passphrase_file: PassphraseFile = None,
    pin_file: PinFile = None,
    json: Json = False,
) -> None:
    """Hand root and targets back to the server, with new keys of its own. Shows the plan; with --yes it is done."""
    with desk_at(directory, json, passphrase_file=passphrase_file, pin_file=pin_file) as desk:
        if _on_its_way(desk, repository, level.BRING_ONLINE):
            _done(level.go_on(desk, repository), json)
            return
        known = desk.pull(repository)
        if not yes:
            _planned(level.plan_online(desk, known, None, days=days), json)
            return
        level.plan_online(desk, known, None, days=days)  # refuses what can't be before the server makes keys
        made = desk.server.make_online_keys(repository, OFFLINE_ROLES[repository], besides=known.root)
        keys = {role: NewKeys(keys=(key,)) for role, key in made.items()}
        level.begin(desk, level.plan_online(desk, known, keys, days=days))
        _done(level.go_on(desk, repository), json)


def _on_its_way(desk: Desk, repository: Repository, action: str) -> bool:
    state = desk.folder(repository).level()
    if state is None:
        return False
    if state["action"] != action:
        raise refused(f"`sign {state['action']}` is on its way: finish that first, or `sign discard`.")
    return True


def _keys(desk: Desk, repository: Repository, named: list[str] | None, role: Role, threshold: int) -> NewKeys:
    """Those that were named; else every key made for this role that doesn't sign for the other repository."""
    if named:
        return NewKeys(keys=tuple(reference(desk, each) for each in named), threshold=threshold)
    others = [Repository(name) for name in desk.tree.config.pins if name != repository.value]
    taken = {key_id for other in others for key_id in desk.known(other).root.keys}
    records = [record for record in desk.tree.records().values() if record.role == role.value and record.id not in taken]
    return NewKeys(keys=tuple(record.key for record in records), threshold=threshold)


def _planned(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json({"plan": plan.to_json(), "done": False})
        return
    show(["This would happen; nothing has been done yet:"])
    show(list(plan.lines), indent="  ")
    show([f"! {line}" for line in plan.warnings])
    show([f"Do it: overair sign {plan.action} --repository {plan.repository} --yes"])


def _done(done: Done, as_json: bool) -> None:
    if as_json:
        print_json(
            {
                "done": True,
                "action": done.action,
                "repository": done.repository.value,
                "root_version": done.root_version,
                "deleted_on_server": list(done.deleted),
                "recovery_sheet": done.sheet,
            }
        )
        return
    show([f"Root {done.root_version} of the {done.repository} repository is published, and a client believes it."])
    if done.action == level.TAKE_OFFLINE:
        show(
            [
                f"The server's old keys are deleted ({len(done.deleted)}). Print {done.sheet}, and back this directory up: "
                "sign backup FILE."
            ]
        )
    else:
        show(["The server signs by itself again. Your keys sign nothing any more."])
