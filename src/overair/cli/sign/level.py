"""Between the levels: keys leave the server, or go back to it. Each step is durable, and after a cut the same command goes on.

Taking offline: plan → sign the next root with the new keys → push, and the server adds its old key's signature → read back as
a client → write the recovery sheet → only then have the server's old keys deleted, which it has kept for that. No private key
travels.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from overair.cli.sign import pushing, sheet
from overair.cli.sign.desk import Desk
from overair.cli.sign.draft import Draft
from overair.cli.sign.edits import OFFLINE_ROLES, with_role
from overair.cli.sign.ends import SignEnded, SignExit, refused, usage
from overair.cli.sign.items import ROOT, changes
from overair.cli.sign.known import Known
from overair.cli.sign.sealing import Sealed
from overair.cli.sign.server import Stale
from overair.cli.sign.verification import check_as_client
from overair.wire.uptane.keys import Flavour, PublicKey
from overair.wire.uptane.metadata import Repository, Role
from overair.wire.uptane.metadata_reading import read_document

TAKE_OFFLINE: Final = "take-offline"
BRING_ONLINE: Final = "bring-online"
TRIES_MAX: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKeys:
    """Who shall sign for a role."""

    keys: tuple[PublicKey, ...]
    threshold: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a change of level will do."""

    action: str
    repository: Repository
    root_version: int
    lines: tuple[str, ...]
    warnings: tuple[str, ...]
    leaving: Mapping[str, str]
    """Keys that lose their role: key id → role."""
    draft: Draft

    def to_json(self) -> dict[str, Any]:
        return {
            "action": self.action,
            "repository": self.repository.value,
            "root_version": self.root_version,
            "steps": list(self.lines),
            "warnings": list(self.warnings),
            "keys_deleted_on_server": sorted(self.leaving) if self.action == TAKE_OFFLINE else [],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a change of level came to."""

    action: str
    repository: Repository
    root_version: int
    deleted: tuple[str, ...]
    sheet: str | None


# Planning -----------------------------------------------------------------------------------------------------------------


def plan_offline(desk: Desk, known: Known, wanted: Mapping[Role, NewKeys], *, days: int | None = None) -> Plan:
    """What taking these roles offline would do.

    Raises:
        SignEnded: USAGE, REFUSED.
    """
    repository = known.repository
    _refuse_unfinished(desk, repository)
    root = known.root
    for role in OFFLINE_ROLES[repository]:
        if role not in wanted or not wanted[role].keys:
            raise usage(f"No key here is for {role}: `overair sign keys new NAME --role {role}`, then again.")
        root = with_role(root, role, wanted[role].keys, wanted[role].threshold)
    leaving = _leaving(known, wanted)
    held = known.served.online_key_ids
    if held and not any(key_id in held for key_id in known.root.role_keys(Role.ROOT).key_ids):
        raise refused(
            f"The {repository} repository's root is offline already. Its keys are changed with `sign keys add`, `sign keys "
            "remove` "
            "and `sign rotate`."
        )
    old = frozenset(known.root.role_keys(Role.ROOT).key_ids)
    draft = replace(Draft(days=days).edit(ROOT, known, root), server_signs=old & held)
    version = known.root.version + 1
    lines = [
        f"Root {version} of the {repository} repository is made:",
        *(f"  {change.text}" for change in changes(known.root, root, named=desk.named)),
        f"Root {version} is signed by the new keys, in both flavours"
        + (", and the targets anew by the new targets key." if repository is Repository.IMAGE else ".")
        + " The server adds the signature of its old root key, which never leaves it.",
        "All is pushed at once, read back, and checked as a client does. Until then the server keeps its old keys, which sign "
        "nothing any more.",
        f"A recovery sheet is written to {desk.folder(repository).path}.",
        f"Only then the server's old keys are deleted there, for good: {', '.join(desk.named(key_id) for key_id in leaving)}.",
    ]
    return Plan(
        action=TAKE_OFFLINE,
        repository=repository,
        root_version=version,
        lines=tuple(lines),
        warnings=tuple(_advice(wanted, repository)),
        leaving=leaving,
        draft=draft,
    )


def plan_online(desk: Desk, known: Known, keys: Mapping[Role, NewKeys] | None, *, days: int | None = None) -> Plan:
    """What handing these roles back to the server would do. ``keys``: the server's; None as long as it wasn't asked to make
    any."""
    repository = known.repository
    _refuse_unfinished(desk, repository)
    if known.root.role_keys(Role.ROOT).key_ids and all(
        key_id in known.served.online_key_ids for key_id in known.root.role_keys(Role.ROOT).key_ids
    ):
        raise refused(f"The {repository} repository's root is online already.")
    version = known.root.version + 1
    draft = Draft(days=days)
    if keys is not None:
        root = known.root
        for role in OFFLINE_ROLES[repository]:
            root = with_role(root, role, keys[role].keys, keys[role].threshold)
        signs = frozenset(key.id for new in keys.values() for key in new.keys)
        draft = replace(draft.edit(ROOT, known, root), server_signs=signs)
    roles = " and ".join(role.value for role in OFFLINE_ROLES[repository])
    lines = [
        f"The server makes new keys for {roles} and keeps them.",
        f"Root {version} names them, and is signed by today's root keys ({known.root.role_keys(Role.ROOT).threshold} of "
        f"{', '.join(desk.named(key_id) for key_id in known.root.role_keys(Role.ROOT).key_ids)}); the server adds its own "
        "signature.",
        "It is pushed, read back, and checked as a client does. From then on the server signs by itself.",
        "Your own keys stay where they are and sign nothing any more.",
    ]
    warning = "From then on, whoever takes over the server can sign images. That is the default level."
    leaving = {key_id: role.value for role in OFFLINE_ROLES[repository] for key_id in known.root.role_keys(role).key_ids}
    return Plan(
        action=BRING_ONLINE,
        repository=repository,
        root_version=version,
        lines=tuple(lines),
        warnings=(warning,),
        leaving=leaving,
        draft=draft,
    )


def begin(desk: Desk, plan: Plan) -> None:
    """From here on the same command goes on where it was cut."""
    folder = desk.folder(plan.repository)
    folder.save_sealed(None)
    folder.save_draft(plan.draft)
    _save(
        desk,
        plan.repository,
        {"action": plan.action, "step": "planned", "root_version": plan.root_version, "leaving": dict(plan.leaving)},
    )


# Going on -----------------------------------------------------------------------------------------------------------------


def go_on(desk: Desk, repository: Repository) -> Done:
    """All steps that are left.

    Raises:
        SignEnded: SIGNATURE_MISSING with a request, STALE, REFUSED, UNREACHABLE; the next call goes on from there.
    """
    state = desk.folder(repository).level()
    assert state is not None, "begin() was called"
    if state["step"] in {"planned", "signed"}:
        state = _publish(desk, repository, state)
    if state["step"] == "pushed":
        known = desk.pull(repository)
        if known.root.version != state["root_version"]:
            raise refused(
                f"The server serves root {known.root.version} after root {state['root_version']} was pushed. Look into it."
            )
        check_as_client(desk, repository)
        state = _save(desk, repository, {**state, "step": "verified"})
    known = desk.known(repository)
    written: str | None = None
    if state["action"] == TAKE_OFFLINE:
        name = f"recovery-sheet-root-{known.root.version}.md"
        content = sheet.write(known, desk.tree.records(), now=desk.clock.now())
        written = str(desk.folder(repository).write_bytes(name, content))
    if state["step"] == "verified":
        state = _save(desk, repository, {**state, "step": "sheet"})
    deleted = _delete_old(desk, repository, state) if state["action"] == TAKE_OFFLINE else ()
    # What the server holds is known anew: its keys are gone, or there.
    desk.pull(repository)
    desk.folder(repository).remove("level.json")
    return Done(action=state["action"], repository=repository, root_version=known.root.version, deleted=deleted, sheet=written)


def _publish(desk: Desk, repository: Repository, state: Mapping[str, Any]) -> dict[str, Any]:
    folder = desk.folder(repository)
    for _ in range(TRIES_MAX):
        known = desk.pull(repository)
        sealed = folder.sealed()
        if (sealed is not None and pushing.is_served(sealed, known)) or _is_ours(known, state):
            folder.save_draft(Draft())
            folder.save_sealed(None)
            return _save(desk, repository, {**state, "step": "pushed"})
        if known.root.version != int(state["root_version"]) - 1:
            give_up(desk, repository)
            raise SignEnded(
                SignExit.STALE,
                f"The server has root {known.root.version}, and this change was to make root {state['root_version']}: "
                "somebody else "
                "has changed the root. Nothing was done; plan anew.",
            )
        pushing.rebase_draft(desk, repository, known)
        sealed = pushing.sealed_now(desk, repository, known)
        assert sealed is not None, "a change of level changes the root"
        sealed = pushing.sign_here(desk, repository, sealed, known)
        pushing.request_missing(desk, repository, sealed, known)
        state = _save(desk, repository, {**state, "step": "signed", "root": _root_id(sealed)})
        try:
            pushing.publish(desk, repository, sealed, known, keep_keys=state["action"] == TAKE_OFFLINE)
        except Stale:
            desk.tell("Somebody else has published in between; signing again over what is there now.")
            continue
        return _save(desk, repository, {**state, "step": "pushed"})
    raise SignEnded(SignExit.STALE, f"Somebody else published {TRIES_MAX} times in between. Run the same command again.")


def _delete_old(desk: Desk, repository: Repository, state: Mapping[str, Any]) -> tuple[str, ...]:
    """Nothing of the old keys is left on the server when this returns."""
    for key_id in state["leaving"]:
        # One that is gone already (the server waits for a day, not for ever) is as good as deleted.
        desk.server.delete_private_key(repository, key_id)
    left = set(state["leaving"]) & desk.server.held_keys(repository).all
    if left:
        raise refused(
            f"The server still holds {', '.join(key_id[:16] for key_id in sorted(left))} after it was told to delete it."
        )
    return tuple(state["leaving"])


def give_up(desk: Desk, repository: Repository) -> None:
    """Forget a change of level that the server hasn't taken.

    Raises:
        SignEnded: USAGE: it has.
    """
    folder = desk.folder(repository)
    state = folder.level()
    if state is not None and state["step"] not in {"planned", "signed"}:
        raise usage(
            f"Root {state['root_version']} is published: there is no way back but forward. Run `sign {state['action']}` again."
        )
    folder.save_draft(Draft())
    folder.save_sealed(None)
    folder.remove("level.json")


def _is_ours(known: Known, state: Mapping[str, Any]) -> bool:
    return state.get("root") == hashlib.sha256(read_document(known.root_bytes, Role.ROOT).signed_bytes).hexdigest()


def _root_id(sealed: Sealed) -> str:
    """Of what is signed: the server adds a signature of its own."""
    root = sealed.document(ROOT)
    assert root is not None
    return hashlib.sha256(root.to_sign(Flavour.UPTANE)).hexdigest()


def _save(desk: Desk, repository: Repository, state: dict[str, Any]) -> dict[str, Any]:
    desk.folder(repository).write("level.json", state)
    return state


def _refuse_unfinished(desk: Desk, repository: Repository) -> None:
    folder = desk.folder(repository)
    if not folder.draft().is_empty:
        raise usage("There are edits that weren't pushed. Push them first, or throw them away with `sign discard`.")


def _leaving(known: Known, wanted: Mapping[Role, NewKeys]) -> dict[str, str]:
    return {
        key_id: role.value
        for role, new in wanted.items()
        for key_id in known.root.role_keys(role).key_ids
        if key_id not in {key.id for key in new.keys}
    }


def _advice(wanted: Mapping[Role, NewKeys], repository: Repository) -> Sequence[str]:
    root = wanted[Role.ROOT]
    if len(root.keys) == 1:
        advice = [
            "Only one root key: if it is lost, this fleet can never get another root, and no key can ever be changed again. "
            "Make a second one (`sign keys new root-2 --role root`, best on another machine or token) and keep it "
            "somewhere else."
        ]
    elif root.threshold == len(root.keys):
        advice = [
            f"All {len(root.keys)} root keys must sign: losing one of them is losing the root. Let one more key be than "
            "must sign."
        ]
    else:
        advice = []
    if repository is Repository.DIRECTOR:
        advice.append(
            "The Director's targets, snapshot and timestamp stay on the server: they are signed for each device when it asks."
        )
    advice.append(
        "Devices that are away learn of the new root when they ask the next time; each step of the chain stays served."
    )
    advice.append("Back this directory up (`sign backup FILE`) and lay the passphrase somewhere else than the backup.")
    return advice
