"""What an operator wants to become of a repository, until it is pushed: edits beside the documents that they began from.
Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from overair.basics.clock import Instant
from overair.cli.sign import items
from overair.cli.sign.items import ROOT, TARGETS, Body, Change, Named, body_of, payload_of
from overair.cli.sign.known import Known
from overair.wire.uptane.metadata import Root, Targets


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """Wanted bodies by document, and the bodies that they were made of."""

    base: Mapping[str, Body | None] = field(default_factory=dict)
    wanted: Mapping[str, Body] = field(default_factory=dict)
    renew: frozenset[str] = frozenset()
    """Documents to sign anew though nothing in them changes."""
    days: int | None = None
    """How long what is signed now shall count; None for each role's own."""
    uploads: Mapping[str, str] = field(default_factory=dict)
    """Target name → path of a file that the push takes along."""
    server_signs: frozenset[str] = frozenset()
    """Keys of the server's that this hands a role to, and that it will sign with itself."""
    forced: frozenset[str] = frozenset()
    """Targets that go though a device may have them or be about to get them."""

    @property
    def is_empty(self) -> bool:
        return not (self.wanted or self.renew)

    def body(self, name: str, known: Known) -> Body:
        """The document as it is wanted: to be edited further."""
        return self.wanted.get(name) or known.body(name) or empty_targets()

    def edit(self, name: str, known: Known, wanted: Body) -> Draft:
        """Want this of a document. Wanting what is there already is wanting nothing."""
        base = dict(self.base) if name in self.base else {**self.base, name: known.body(name)}
        everything = {**self.wanted, name: wanted}
        if items.same(base[name], wanted) and known.body(name) is not None:
            everything.pop(name)
            base.pop(name)
        return replace(self, base=base, wanted=everything)

    def root(self, known: Known) -> Root:
        return items.as_root(self.body(ROOT, known))

    def targets(self, known: Known, name: str = TARGETS) -> Targets:
        return items.as_targets(self.body(name, known))

    def changes(self, known: Known, *, named: Named) -> dict[str, list[Change]]:
        """What it changes in what the server serves now, by document."""
        found = {name: items.changes(known.body(name), wanted, named=named) for name, wanted in self.wanted.items()}
        return {name: changes for name, changes in found.items() if changes or known.body(name) is None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebased:
    """A draft moved onto what somebody else published in between."""

    draft: Draft
    theirs: Mapping[str, list[Change]]
    conflicts: Mapping[str, tuple[items.Item, ...]]


def empty_targets() -> Targets:
    return Targets(version=0, expires=Instant(0), targets={})


def rebase(draft: Draft, known: Known, *, take: str | None, named: Named) -> Rebased:
    """The same edits on top of the repository as it is now.

    Args:
        take: ``mine`` or ``theirs`` where both changed the same item; None leaves it a conflict.
    """
    base: dict[str, Body | None] = {}
    wanted: dict[str, Body] = {}
    theirs: dict[str, list[Change]] = {}
    conflicts: dict[str, tuple[items.Item, ...]] = {}
    for name, mine in draft.wanted.items():
        began_from, now = draft.base.get(name), known.body(name)
        foreign = items.changes(began_from, now, named=named)
        if foreign:
            theirs[name] = foreign
        merged = items.merge(began_from, mine, now)
        chosen = dict(merged.items)
        if merged.conflicts and take == "theirs":
            current = items.items_of(now)
            for item in merged.conflicts:
                chosen.pop(item, None)
                if item in current:
                    chosen[item] = current[item]
        elif merged.conflicts and take is None:
            conflicts[name] = merged.conflicts
        order = items.merged_order(began_from, mine, now)
        result = items.with_items(now or mine, chosen, order=order)
        if now is None or not items.same(now, result):
            base[name], wanted[name] = now, result
    return Rebased(draft=replace(draft, base=base, wanted=wanted), theirs=theirs, conflicts=conflicts)


def to_json(draft: Draft) -> dict[str, Any]:
    return {
        "base": {name: None if body is None else payload_of(body) for name, body in draft.base.items()},
        "wanted": {name: payload_of(body) for name, body in draft.wanted.items()},
        "renew": sorted(draft.renew),
        "days": draft.days,
        "uploads": dict(draft.uploads),
        "forced": sorted(draft.forced),
        "server_signs": sorted(draft.server_signs),
    }


def from_json(document: Mapping[str, Any]) -> Draft:
    """Raises:
    KeyError, TypeError, MetadataRefused: not what ``to_json`` wrote.
    """
    return Draft(
        base={name: None if body is None else _body(body, name) for name, body in document["base"].items()},
        wanted={name: _body(body, name) for name, body in document["wanted"].items()},
        renew=frozenset(document["renew"]),
        days=document["days"],
        uploads=dict(document["uploads"]),
        forced=frozenset(document["forced"]),
        server_signs=frozenset(document["server_signs"]),
    )


def _body(signed: Mapping[str, Any], name: str) -> Body:
    # A new document has no version and no end yet, and the reader wants both.
    version = signed["version"]
    body = body_of({**signed, "version": max(version, 1)}, name)
    return replace(body, version=version)
