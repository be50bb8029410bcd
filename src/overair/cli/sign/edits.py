"""Edits of roots and targets, each refusing what can't be meant. Pure: a document in, a document out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from overair.basics.clock import Instant
from overair.cli.sign.ends import refused, usage
from overair.wire.uptane.keys import PublicKey
from overair.wire.uptane.metadata import (
    DELEGATION_NAME,
    TARGET_NAME_LENGTH_MAX,
    THRESHOLD_MAX,
    Delegation,
    Repository,
    Role,
    RoleKeys,
    Root,
    TargetFile,
    Targets,
)
from overair.wire.uptane.metadata_writing import expires_text

OFFLINE_ROLES: Final[Mapping[Repository, tuple[Role, ...]]] = {
    Repository.IMAGE: (Role.ROOT, Role.TARGETS),
    Repository.DIRECTOR: (Role.ROOT,),
}
"""What may leave the server. The Director's targets are signed for one device when it asks, so their key stays."""
PATHS_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTarget:
    """One image, as an operator describes it."""

    name: str
    length: int
    sha256: str
    package: str
    version: str
    hardware_ids: tuple[str, ...]
    uri: str | None
    custom: Mapping[str, Any]


# Roots --------------------------------------------------------------------------------------------------------------------


def check_role(repository: Repository, role: str) -> Role:
    """A role that may be signed for away from the server.

    Raises:
        SignEnded: USAGE.
    """
    allowed = OFFLINE_ROLES[repository]
    if role not in {each.value for each in allowed}:
        raise usage(
            f"The {repository} repository's {role} isn't signed by people: {' and '.join(each.value for each in allowed)} "
            "can be. "
            + ("The Director signs targets for each device when it asks." if repository is Repository.DIRECTOR else "")
        )
    return Role(role)


def with_key(root: Root, role: Role, key: PublicKey) -> Root:
    """One more key may sign for this role; it may be there already.

    Raises:
        SignEnded: REFUSED: the key has another role.
    """
    for name, keys in root.roles.items():
        if key.id in keys.key_ids and name != role.value:
            raise refused(f"The key {key.id[:16]}… signs for {name} already: each role has keys of its own.")
    present = root.role_keys(role)
    if key.id in present.key_ids:
        return root
    keys = replace(present, key_ids=(*present.key_ids, key.id))
    return replace(root, keys={**root.keys, key.id: key}, roles={**root.roles, role.value: keys})


def without_key(root: Root, role: Role, key_id: str) -> Root:
    """This key signs for the role no more.

    Raises:
        SignEnded: USAGE: it doesn't now; REFUSED: too few would be left.
    """
    present = root.role_keys(role)
    if key_id not in present.key_ids:
        raise usage(f"The key {key_id[:16]}… doesn't sign for {role}.")
    left = tuple(each for each in present.key_ids if each != key_id)
    if len(left) < present.threshold:
        raise refused(
            f"{role} needs {present.threshold} signatures and {len(left)} keys would be left. Add a key first, or lower "
            "the threshold."
        )
    roles = {**root.roles, role.value: replace(present, key_ids=left)}
    named = {each for keys in roles.values() for each in keys.key_ids}
    return replace(root, keys={each: key for each, key in root.keys.items() if each in named}, roles=roles)


def with_threshold(root: Root, role: Role, threshold: int) -> Root:
    """So many must sign.

    Raises:
        SignEnded: USAGE.
    """
    present = root.role_keys(role)
    if not 1 <= threshold <= THRESHOLD_MAX:
        raise usage(f"A threshold is 1 to {THRESHOLD_MAX}: with 0 every client refuses the root.")
    if threshold > len(present.key_ids):
        raise usage(f"{role} has {len(present.key_ids)} keys; {threshold} can never sign. Add keys first.")
    return replace(root, roles={**root.roles, role.value: replace(present, threshold=threshold)})


def with_role(root: Root, role: Role, keys: Sequence[PublicKey], threshold: int) -> Root:
    """This role's keys are these and no others.

    Raises:
        SignEnded: USAGE, REFUSED.
    """
    if not keys:
        raise usage(f"No key is named for {role}.")
    others = {name: present for name, present in root.roles.items() if name != role.value}
    taken = {key_id for present in others.values() for key_id in present.key_ids}
    for key in keys:
        if key.id in taken:
            raise refused(f"The key {key.id[:16]}… signs for another role already: each role has keys of its own.")
    new = RoleKeys(key_ids=tuple(dict.fromkeys(key.id for key in keys)), threshold=threshold)
    known = {key_id: key for key_id, key in root.keys.items() if key_id in taken} | {key.id: key for key in keys}
    return with_threshold(replace(root, keys=known, roles={**root.roles, role.value: new}), role, threshold)


# Targets ------------------------------------------------------------------------------------------------------------------


def with_target(targets: Targets, new: NewTarget, *, now: Instant) -> Targets:
    """One more image. The same one again changes nothing.

    Raises:
        SignEnded: USAGE: a name or custom that can't be; REFUSED: the name stands for other bytes.
    """
    check_target_name(new.name)
    _check_printable("--name", new.package)
    _check_printable("--version", new.version)
    if not new.hardware_ids:
        raise usage("Name the hardware that the image is for: --hardware-id, once for each.")
    for hardware_id in new.hardware_ids:
        _check_printable("--hardware-id", hardware_id)
        if "," in hardware_id:
            raise usage("A hardware id has no comma: name --hardware-id once for each.")
    present = targets.targets.get(new.name)
    if present is not None and (present.length, present.sha256) != (new.length, new.sha256):
        raise refused(
            f"{new.name} stands for other bytes already (sha256 {present.sha256[:16]}…). A name is never used again: a "
            "device that "
            "has the old ones would refuse the update. Give the new image a name of its own."
        )
    moment = expires_text(now)
    before = dict(present.custom) if present is not None else {}
    custom = {
        **before,
        **dict(new.custom),
        "name": new.package,
        "version": new.version,
        "hardwareIds": sorted(set(new.hardware_ids)),
        "targetFormat": "BINARY",
        "createdAt": before.get("createdAt", moment),
        "updatedAt": before.get("updatedAt", moment),
    }
    if new.uri is not None:
        custom["uri"] = new.uri
    elif present is None:
        custom["cliUploaded"] = True
    if custom != before:
        custom["updatedAt"] = moment
    target = TargetFile(name=new.name, length=new.length, hashes={"sha256": new.sha256}, custom=custom)
    return (
        targets if custom == before else replace(targets, targets=dict(sorted({**targets.targets, new.name: target}.items())))
    )


def without_target(targets: Targets, name: str) -> Targets:
    """An image less.

    Raises:
        SignEnded: USAGE: it isn't there.
    """
    if name not in targets.targets:
        raise usage(f"No target is called {name!r} here.")
    return replace(targets, targets={each: target for each, target in targets.targets.items() if each != name})


def with_delegation(
    targets: Targets, name: str, paths: Sequence[str], keys: Sequence[PublicKey], *, threshold: int, terminating: bool
) -> Targets:
    """A role that is trusted for some paths; one of this name is replaced where it stands.

    Raises:
        SignEnded: USAGE.
    """
    if not DELEGATION_NAME.fullmatch(name) or name in set(Role):
        raise usage(
            f"{name!r} is no name for a delegation: 1 to 50 letters, digits, '_', '-', '.', not first '.', and no role."
        )
    if not paths or len(paths) > PATHS_MAX:
        raise usage(f"A delegation has 1 to {PATHS_MAX} patterns: --paths 'vendor-b/*'.")
    for path in paths:
        check_target_name(path, what="pattern")
    if not keys:
        raise usage("Name at least one key: --key NAME, or --key FILE of a public key.")
    ids = tuple(dict.fromkeys(key.id for key in keys))
    if not 1 <= threshold <= len(ids):
        raise usage(f"The threshold is 1 to {len(ids)}, as many as there are keys.")
    delegation = Delegation(
        name=name, keys=RoleKeys(key_ids=ids, threshold=threshold), paths=tuple(paths), terminating=terminating
    )
    others = [each for each in targets.delegations if each.name != name]
    place = next((number for number, each in enumerate(targets.delegations) if each.name == name), len(others))
    others.insert(place, delegation)
    named = {key_id for each in others for key_id in each.keys.key_ids}
    known = {**targets.delegation_keys, **{key.id: key for key in keys}}
    return replace(
        targets,
        delegations=tuple(others),
        delegation_keys={key_id: key for key_id, key in known.items() if key_id in named},
        has_delegations=True,
    )


def without_delegation(targets: Targets, name: str) -> Targets:
    """A role that is trusted no more.

    Raises:
        SignEnded: USAGE: it isn't there.
    """
    left = tuple(each for each in targets.delegations if each.name != name)
    if len(left) == len(targets.delegations):
        raise usage(f"No delegation is called {name!r} here.")
    named = {key_id for each in left for key_id in each.keys.key_ids}
    keys = {key_id: key for key_id, key in targets.delegation_keys.items() if key_id in named}
    return replace(targets, delegations=left, delegation_keys=keys, has_delegations=bool(left))


def check_target_name(name: str, *, what: str = "name") -> str:
    """Raises:
    SignEnded: USAGE: a name that servers, clients or file systems would read in two ways.
    """
    bad = ".." in name or "//" in name or "\\" in name or name.startswith("/") or name.endswith("/")
    if not 1 <= len(name) <= TARGET_NAME_LENGTH_MAX or bad:
        raise usage(
            f"A target's {what} has 1 to {TARGET_NAME_LENGTH_MAX} characters, no '..', no backslash, no empty part, and no "
            "'/' at "
            f"either end: {name[:64]!r}."
        )
    _check_printable(f"The {what}", name)
    return name


def _check_printable(what: str, text: str) -> None:
    if not text or not all(" " <= character <= "~" for character in text):
        raise usage(f"{what} must be printable ASCII: clients hash anything else in two ways. Got {text[:64]!r}.")
