"""The client's own verification, run over what a server serves: both flavours, from the pinned root, with today's date."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from overair.basics.clock import Instant
from overair.cli.sign.desk import FETCHES_MAX, Desk
from overair.cli.sign.ends import refused
from overair.cli.sign.items import TARGETS
from overair.cli.sign.known import Served, check_root_step
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, Root, Targets
from overair.wire.uptane.metadata_reading import read_document, read_root
from overair.wire.uptane.metadata_writing import bytes_to_sign, payload
from overair.wire.uptane.refusals import MetadataRefused, Reason
from overair.wire.uptane.trust import AcceptedButExpired, Refused, TrustedSet, Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a client of one flavour comes to believe."""

    flavour: Flavour
    versions: dict[str, int]
    root: Root
    targets: Targets | None
    delegations: dict[str, Targets]

    def to_json(self) -> dict[str, Any]:
        return {"flavour": self.flavour.value, "versions": self.versions}


def check_as_client(desk: Desk, repository: Repository) -> list[Seen]:
    """Walk the server's documents as a client does, beginning with the pinned root.

    Raises:
        SignEnded: REFUSED: with every flavour that a client would refuse, and why.
    """
    for _ in range(FETCHES_MAX - 1):
        seen, problems = _look(desk, repository)
        if not problems:
            return seen
    # What is wrong every time isn't a publication that fell between two documents.
    seen, problems = _look(desk, repository)
    if problems:
        raise refused(
            "A client would refuse what the server serves:\n  " + "\n  ".join(problems), details={"problems": problems}
        )
    return seen


def _look(desk: Desk, repository: Repository) -> tuple[list[Seen], list[str]]:
    """What clients believe, and what they object to."""
    known = desk.known(repository)
    served = desk.fetch(repository, known.served.roots[:1])
    problems: list[str] = []
    seen: list[Seen] = []
    for flavour in Flavour:
        try:
            taken = served if flavour is Flavour.UPTANE else _tuf(desk, repository, served)
            seen.append(walk(taken, repository, flavour, now=desk.clock.now()))
        except MetadataRefused as error:
            problems.append(f"{flavour}: {error.reason.value}: {error.message}")
    if len(seen) == len(Flavour):
        problems += _differences(*seen)
    return seen, problems


def walk(served: Served, repository: Repository, flavour: Flavour, *, now: Instant) -> Seen:
    """One flavour, in the client's order.

    Raises:
        MetadataRefused: the first thing that a client refuses.
    """
    trusted = TrustedSet.begin(served.roots[0], repository=repository, flavour=flavour)
    for data in served.roots[1:]:
        _believed("root", trusted.update_root(data))
    _believed("root", trusted.check_root_expiry(now))
    versions = {Role.ROOT.value: trusted.root.version}
    if repository is Repository.IMAGE:
        for role, document, update in (
            (Role.TIMESTAMP, served.timestamp, trusted.update_timestamp),
            (Role.SNAPSHOT, served.snapshot, trusted.update_snapshot),
            (Role.TARGETS, served.targets, trusted.update_targets),
        ):
            if document is None:
                raise _missing(role.value)
            verdict = update(document, now=now)
            _believed(role.value, verdict)
            assert not isinstance(verdict, Refused)
            versions[role.value] = verdict.document.version
        assert trusted.targets is not None
        waiting = [(each.name, TARGETS) for each in trusted.targets.delegations]
        while waiting:
            name, by = waiting.pop(0)
            delegated = served.delegations.get(name)
            if delegated is None or name in versions:
                continue  # nobody has signed for it yet
            verdict = trusted.update_delegation(name, delegated, now=now, by=by)
            _believed(name, verdict)
            assert not isinstance(verdict, Refused)
            versions[name] = verdict.document.version
            waiting += [(each.name, name) for each in trusted.delegations[name].delegations]
    return Seen(
        flavour=flavour,
        versions=versions,
        root=trusted.root,
        targets=trusted.targets,
        delegations=dict(trusted.delegations),
    )


def _tuf(desk: Desk, repository: Repository, served: Served) -> Served:
    """The TUF flavour of the same documents; its first root must say what the pinned one says.

    Raises:
        MetadataRefused: one is missing, or the first root says something else.
    """

    def get(path: str) -> bytes:
        found = desk.server.document(repository, path, Flavour.TUF)
        if found is None:
            raise _missing(path)
        return found[0]

    roots: list[bytes] = []
    for data in served.roots:
        root = read_root(read_document(data, Role.ROOT))
        twin = get(f"{root.version}.root.json")
        document = read_document(twin, Role.ROOT, flavour=Flavour.TUF)
        if document.signed_bytes != bytes_to_sign(payload(root, Flavour.TUF), Flavour.TUF):
            raise refused(f"Root {root.version} says one thing in the Uptane flavour and another in TUF's.")
        if roots:
            check_root_step(read_root(read_document(roots[-1], Role.ROOT, flavour=Flavour.TUF)), twin, Flavour.TUF)
        roots.append(twin)
    if repository is Repository.DIRECTOR:
        return Served(roots=tuple(roots))
    return Served(
        roots=tuple(roots),
        timestamp=get("timestamp.json"),
        snapshot=get("snapshot.json"),
        targets=get("targets.json"),
        delegations={name: get(f"delegations/{name}.json") for name in served.delegations},
    )


def _differences(first: Seen, second: Seen) -> list[str]:
    """Both flavours say the same of everything that people sign."""
    differing = [] if payload(first.root) == payload(second.root) else ["root"]
    pairs = {TARGETS: (first.targets, second.targets)}
    pairs |= {name: (body, second.delegations.get(name)) for name, body in first.delegations.items()}
    for name, (one, other) in pairs.items():
        if (one is None) != (other is None) or (one is not None and other is not None and payload(one) != payload(other)):
            differing.append(name)
    return [f"{name}: the two flavours say different things" for name in differing]


def _believed(name: str, verdict: Verdict) -> None:
    if isinstance(verdict, Refused):
        raise MetadataRefused(verdict.reason, f"{name}: {verdict.message}", field=verdict.field)
    if isinstance(verdict, AcceptedButExpired):
        raise MetadataRefused(Reason.EXPIRED_METADATA, f"{name} version {verdict.document.version} has expired.")


def _missing(name: str) -> MetadataRefused:
    return MetadataRefused(Reason.INVALID_METADATA, f"{name} isn't served.")
