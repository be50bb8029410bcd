"""A document as a set of items: what is compared, told and merged, one by one. Pure.

A root is made of who may sign for what and of thresholds; a targets document of targets and delegations. Two people who
change different items don't disturb each other; two who change the same item have to talk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, cast

from overair.cli.sign.key_records import kind_of
from overair.wire.uptane.canonical import canonical
from overair.wire.uptane.keys import Flavour, PublicKey, read_public_key
from overair.wire.uptane.metadata import Delegation, Role, RoleKeys, Root, TargetFile, Targets
from overair.wire.uptane.metadata_reading import read_document, read_root, read_targets
from overair.wire.uptane.metadata_writing import assemble, payload

Item = tuple[str, ...]
Items = Mapping[Item, Any]
Body = Root | Targets
ROOT: Final = "root"
TARGETS: Final = "targets"
"""Documents by name: these two, else the name of a delegation (which can't be either)."""

Named = Callable[[str], str]
"""What people call a key id."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One item that differs."""

    item: Item
    before: Any
    after: Any
    text: str

    def to_json(self) -> dict[str, Any]:
        return {"item": list(self.item), "before": self.before, "after": self.after, "text": self.text}


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """What two people wanted of one document."""

    items: Items
    conflicts: tuple[Item, ...]
    """Items that both changed, and not to the same."""


def body_of(signed: Mapping[str, Any], name: str) -> Body:
    """The typed body of a payload in the Uptane flavour.

    Raises:
        MetadataRefused: it can't be read.
    """
    return unsigned_body(assemble(signed, []), name)


def unsigned_body(data: bytes, name: str) -> Body:
    """The typed body of a document that nobody has signed yet, as a server offers it.

    Raises:
        MetadataRefused: it can't be read.
    """
    role = Role.ROOT if name == ROOT else Role.TARGETS
    document = read_document(data, role)
    return read_root(document) if role is Role.ROOT else read_targets(document)


def payload_of(body: Body) -> dict[str, Any]:
    """As drafts keep it."""
    return payload(body, Flavour.UPTANE)


def items_of(body: Body | None) -> Items:
    """The items of a document; none where there is no document yet."""
    match body:
        case None:
            return {}
        case Root():
            found: dict[Item, Any] = {}
            for role, role_keys in body.roles.items():
                found["threshold", role] = role_keys.threshold
                for key_id in role_keys.key_ids:
                    found["key", role, key_id] = body.keys[key_id].to_json() if key_id in body.keys else None
            return found
        case Targets():
            members = payload_of(body)
            found = {("target", name): target for name, target in members["targets"].items()}
            for delegation in members.get("delegations", {}).get("roles", []):
                keys = {key_id: body.delegation_keys[key_id].to_json() for key_id in delegation["keyids"]}
                found["delegation", delegation["name"]] = {**delegation, "keys": keys}
            found |= {("custom", name): value for name, value in body.custom.items()}
            return found


def with_items(template: Body, items: Items, *, order: Iterable[str] = ()) -> Body:
    """A document of the template's version and end that is made of these items.

    Args:
        order: Delegations in the order in which they are searched; those not named come after, by name.

    Raises:
        MetadataRefused: a key can't be read.
    """
    if isinstance(template, Root):
        return _root_with(template, items)
    rank = {name: number for number, name in enumerate(order)}
    delegations: list[Delegation] = []
    keys: dict[str, PublicKey] = {}
    targets: dict[str, TargetFile] = {}
    custom: dict[str, Any] = {}
    for item, value in items.items():
        match item:
            case ("target", name):
                targets[name] = TargetFile(
                    name=name, length=value["length"], hashes=value["hashes"], custom=value.get("custom", {})
                )
            case ("delegation", name):
                keys |= {key_id: read_public_key(key) for key_id, key in value["keys"].items()}
                delegations.append(
                    Delegation(
                        name=name,
                        keys=RoleKeys(key_ids=tuple(value["keyids"]), threshold=value["threshold"]),
                        paths=tuple(value.get("paths", ())),
                        terminating=value["terminating"],
                        path_hash_prefixes=tuple(value.get("path_hash_prefixes", ())),
                    )
                )
            case ("custom", name):
                custom[name] = value
    delegations.sort(key=lambda delegation: (rank.get(delegation.name, len(rank)), delegation.name))
    return replace(
        template,
        targets=dict(sorted(targets.items())),
        delegation_keys=keys,
        delegations=tuple(delegations),
        has_delegations=bool(delegations),
        custom=custom,
    )


def _root_with(template: Root, items: Items) -> Root:
    keys: dict[str, PublicKey] = {}
    ids: dict[str, list[str]] = {}
    thresholds: dict[str, int] = {}
    for item, value in items.items():
        if item[0] == "threshold":
            thresholds[item[1]] = value
        else:
            ids.setdefault(item[1], []).append(item[2])
            if value is not None:
                keys[item[2]] = read_public_key(value)
    roles = {role: RoleKeys(key_ids=tuple(ids.get(role, ())), threshold=count) for role, count in thresholds.items()}
    return replace(template, keys=keys, roles=roles)


def delegation_order(body: Body | None) -> tuple[str, ...]:
    return tuple(delegation.name for delegation in body.delegations) if isinstance(body, Targets) else ()


def same(first: Body | None, second: Body | None) -> bool:
    """Whether two documents say the same, their versions and ends aside."""
    return _spelt(items_of(first)) == _spelt(items_of(second)) and delegation_order(first) == delegation_order(second)


def changes(before: Body | None, after: Body | None, *, named: Named) -> list[Change]:
    """What one document says and the other doesn't, in words."""
    old, new = items_of(before), items_of(after)
    found = []
    for item in sorted(set(old) | set(new)):
        was, is_now = old.get(item), new.get(item)
        if _spelling(was) != _spelling(is_now):
            found.append(Change(item=item, before=was, after=is_now, text=_text(item, was, is_now, named)))
    if delegation_order(before) != delegation_order(after) and set(delegation_order(before)) == set(delegation_order(after)):
        text = f"delegations are searched in another order: {', '.join(delegation_order(after))}"
        was, is_now = list(delegation_order(before)), list(delegation_order(after))
        found.append(Change(item=("delegation order",), before=was, after=is_now, text=text))
    return found


def merge(base: Body | None, mine: Body, theirs: Body | None) -> Merged:
    """Three-way: what either of us changed since ``base``, and where we both did."""
    old, ours, others = items_of(base), items_of(mine), items_of(theirs)
    merged: dict[Item, Any] = {}
    conflicts: list[Item] = []
    for item in [*others, *(item for item in ours if item not in others), *(item for item in old if item not in ours)]:
        was, my, their = old.get(item), ours.get(item), others.get(item)
        if _spelling(my) == _spelling(was) or _spelling(my) == _spelling(their):
            taken = their
        elif _spelling(their) == _spelling(was):
            taken = my
        else:
            conflicts.append(item)
            taken = my
        if taken is not None:
            merged[item] = taken
    return Merged(items=merged, conflicts=tuple(dict.fromkeys(conflicts)))


def merged_order(base: Body | None, mine: Body, theirs: Body | None) -> tuple[str, ...]:
    """My order where they left theirs alone; else theirs, and what is new of mine after it."""
    if delegation_order(theirs) == delegation_order(base):
        return delegation_order(mine)
    known = delegation_order(theirs)
    return (*known, *(name for name in delegation_order(mine) if name not in known))


def _spelt(items: Items) -> dict[Item, bytes]:
    return {item: _spelling(value) for item, value in items.items()}


def _spelling(value: Any) -> bytes:
    return canonical({"": value})


def _text(item: Item, was: Any, is_now: Any, named: Named) -> str:
    match item:
        case ("threshold", role):
            return (
                f"{role}: {is_now} signatures needed, {was} before"
                if was is not None
                else f"{role}: {is_now} signatures needed"
            )
        case ("key", role, key_id):
            key = is_now or was
            kind = kind_of(read_public_key(key)) if key is not None else "unknown"
            return f"{role}: key {named(key_id)} ({kind}) {'may sign' if is_now else 'may sign no more'}"
        case ("target", name):
            return _target_text(name, was, is_now)
        case ("delegation", name):
            return _delegation_text(name, was, is_now, named)
        case _:
            return f"custom.{item[-1]}: {'set' if was is None else 'gone' if is_now is None else 'changed'}"


def _target_text(name: str, was: Any, is_now: Any) -> str:
    if is_now is None:
        return f"{name}: removed"
    said = f"{is_now['length']:,} bytes, sha256 {str(is_now['hashes'].get('sha256', '?'))[:16]}…"
    custom = is_now.get("custom", {})
    if was is None:
        hardware = ", ".join(custom.get("hardwareIds") or ()) or "no hardware"
        return f"{name}: new, {custom.get('name', '?')} {custom.get('version', '?')} for {hardware}, {said}"
    if (was["length"], was["hashes"]) != (is_now["length"], is_now["hashes"]):
        return f"{name}: OTHER BYTES UNDER THE SAME NAME, {said}"
    old = was.get("custom", {})
    differing = sorted(key for key in set(old) | set(custom) if old.get(key) != custom.get(key))
    return f"{name}: {', '.join(differing)} changed"


def _delegation_text(name: str, was: Any, is_now: Any, named: Named) -> str:
    if is_now is None:
        return f"delegation {name}: withdrawn"
    who = f"{is_now['threshold']} of {', '.join(named(key_id) for key_id in is_now['keyids'])}"
    paths = ", ".join(is_now.get("paths") or is_now.get("path_hash_prefixes") or ())
    end = ", terminating" if is_now["terminating"] else ""
    return f"delegation {name}: {'new' if was is None else 'changed'}: {paths} signed by {who}{end}"


def as_targets(body: Body) -> Targets:
    return cast("Targets", body)


def as_root(body: Body) -> Root:
    return cast("Root", body)
