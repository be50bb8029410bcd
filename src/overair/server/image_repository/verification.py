"""The client's own verification, run over what is about to be published (Uptane reference §5.2, §13). Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from overair.basics.clock import Instant
from overair.basics.ids import AccountId
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, Targets
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.trust import Accepted, Refused, TrustedSet, Verdict

FOLLOWERS_MAX: Final = 16


class Follower:
    """A client that has followed a repository until now, and is asked whether it would go on."""

    def __init__(self, trusted: TrustedSet) -> None:
        self._trusted = trusted

    @classmethod
    def begin(cls, root: bytes, before: Mapping[str, bytes], *, flavour: Flavour, now: Instant) -> Follower | Refused:
        """A client that has this root and has stored these documents, by file name (``targets.json``); a new one has none."""
        try:
            trusted = TrustedSet.begin(root, repository=Repository.IMAGE, flavour=flavour)
        except MetadataRefused as error:
            return Refused(error.reason, error.message, error.field)
        trusted.adopt(before, now=now)
        return cls(trusted)

    def copy(self) -> Follower:
        """Asking one changes nothing for the other."""
        return Follower(self._trusted.copy())

    def has_stored(self, root: bytes, documents: Mapping[str, bytes]) -> bool:
        """Whether this client has exactly this root and what a client that goes along would have of these documents."""
        stored = dict(self._trusted.documents)
        if stored.pop("root.json") != root or not {"timestamp.json", "snapshot.json", "targets.json"} <= stored.keys():
            return False
        return all(documents.get(name) == document for name, document in stored.items())

    def refusal(
        self, roots: Sequence[bytes], before: Mapping[str, bytes], after: Mapping[str, bytes], *, now: Instant
    ) -> Refused | None:
        """Why this client would refuse the repository's next state; None: it believes all of it, and has followed.

        Args:
            roots: Those after the one that it has.
            before: What it could fetch until now.
            after: What it would fetch. A delegation whose document isn't there yet is passed over: it says nothing yet. One
                whose document is as it was and has expired is passed over too, as clients do.
        """
        trusted = self._trusted
        for root in roots:
            if (refused := _refused("root.json", trusted.update_root(root))) is not None:
                return refused
        steps: Sequence[tuple[str, Callable[[], Verdict]]] = (
            ("root.json", lambda: trusted.check_root_expiry(now)),
            ("timestamp.json", lambda: trusted.update_timestamp(after["timestamp.json"], now=now)),
            ("snapshot.json", lambda: trusted.update_snapshot(after["snapshot.json"], now=now)),
        )
        for name, step in steps:
            if (refused := _refused(name, step())) is not None:
                return refused
        refused = self._targets(after["targets.json"], now)
        if refused is not None:
            return refused
        assert trusted.targets is not None
        return self._delegations(Role.TARGETS.value, trusted.targets, before, after, now, seen=set())

    def _targets(self, document: bytes, now: Instant) -> Refused | None:
        # What is stored and meant already needs no second reading.
        if self._trusted.documents.get("targets.json") == document and self._trusted.targets_are_current:
            return self._trusted.check_usable(now)
        return _refused("targets.json", self._trusted.update_targets(document, now=now))

    def _delegations(
        self,
        by: str,
        delegator: Targets,
        before: Mapping[str, bytes],
        after: Mapping[str, bytes],
        now: Instant,
        *,
        seen: set[tuple[str, str]],
    ) -> Refused | None:
        trusted = self._trusted
        for delegation in delegator.delegations:
            name, file = delegation.name, f"{delegation.name}.json"
            if file not in after or (by, name) in seen:
                continue
            seen.add((by, name))
            is_stored = trusted.documents.get(file) == after[file]
            body = trusted.delegation(name, by=by, now=now) if is_stored else None
            if not isinstance(body, Targets):
                verdict = trusted.update_delegation(name, after[file], now=now, by=by)
                if isinstance(verdict, Refused):
                    if verdict.reason is Reason.EXPIRED_METADATA and before.get(file) == after[file]:
                        continue
                    return _refused(file, verdict)
                assert isinstance(verdict.body, Targets)
                body = verdict.body
            refused = self._delegations(name, body, before, after, now, seen=seen)
            if refused is not None:
                return refused
        return None


class Followers:
    """Those that have followed until now, so that only what is new is read: of each account and flavour one. The least recently
    asked go first; what isn't remembered is read again."""

    def __init__(self) -> None:
        self._held: OrderedDict[tuple[AccountId, Flavour], Follower] = OrderedDict()

    def of(
        self, account: AccountId, flavour: Flavour, root: bytes, documents: Mapping[str, bytes], *, now: Instant
    ) -> Follower | Refused:
        """A client that has stored these documents under this root; its steps are its own until it is kept."""
        held = self._held.get((account, flavour))
        if held is not None and held.has_stored(root, documents):
            return held.copy()
        return Follower.begin(root, documents, flavour=flavour, now=now)

    def keep(self, account: AccountId, flavour: Flavour, follower: Follower) -> None:
        """What it has followed to is published now."""
        self._held[account, flavour] = follower
        self._held.move_to_end((account, flavour))
        while len(self._held) > FOLLOWERS_MAX:
            self._held.popitem(last=False)


def _refused(file: str, verdict: Verdict) -> Refused | None:
    if isinstance(verdict, Accepted):
        return None
    if isinstance(verdict, Refused):
        return Refused(verdict.reason, f"{file}: {verdict.message}", verdict.field)
    return Refused(Reason.EXPIRED_METADATA, f"{file}: version {verdict.document.version} has expired.", "signed.expires")
