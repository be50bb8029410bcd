"""How root chains and the Image repository stand, for operators: who signs, until when, what waits, what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.image_repository.model import TargetStatus
from overair.server.image_repository.ports import TargetStore
from overair.server.image_repository.service import ImageRepositoryService
from overair.server.roots.chains import Level
from overair.server.roots.model import OnlineKey, RoleExpiry
from overair.server.roots.probes import RootProbes
from overair.server.roots.service import RootsService
from overair.wire.uptane.metadata import Repository, Role
from overair.wire.uptane.metadata_writing import expires_text

NAMED_MAX: Final = 10
ALL_KEYS_HERE: Final = (
    "The server holds the keys of every role of the Image repository: who takes it can have vehicles install anything. "
    "`overair sign take-offline` changes that."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RepositoryStatus:
    """Facts; ``warnings`` says in words what somebody should do."""

    level: Level
    versions: Mapping[str, int]
    """Of the Image repository, by role."""
    director_root: int
    waiting_root: int | None
    listed: int
    pending: Sequence[str]
    expiries: Sequence[RoleExpiry]
    devices_behind_root: int
    tuf_stands_still_since: int | None
    kept_keys: Sequence[OnlineKey] = ()
    """Private keys that no root names any more; of both repositories."""

    @property
    def warnings(self) -> list[str]:
        found = [alarm_text(expiry) for expiry in self.expiries if expiry.alarm_days is not None]
        if self.waiting_root is not None:
            found.append(
                f"Root version {self.waiting_root} of the Image repository waits for targets that its keys have signed: "
                "devices don't see it before. Sign targets and push them."
            )
        if self.pending:
            found.append(
                f"Images that wait for a signature of offline keys: {', '.join(self.pending[:NAMED_MAX])}"
                f"{', …' if len(self.pending) > NAMED_MAX else ''}. Sign targets and push them."
            )
        if self.tuf_stands_still_since is not None:
            found.append(
                f"TUF's clients are left with targets version {self.tuf_stands_still_since}, until it ends: later versions "
                "were pushed in the Uptane flavour alone. Push the TUF flavour too."
            )
        if self.devices_behind_root:
            found.append(
                f"{self.devices_behind_root} devices haven't seen root version {self.versions[Role.ROOT.value]} of the Image "
                "repository: they look for it only when there is something to install. Any update brings it to them."
            )
        found += [kept_text(key) for key in self.kept_keys]
        if self.level is Level.DEFAULT and self.listed:
            found.append(ALL_KEYS_HERE)
        return found

    def to_json(self) -> dict[str, Any]:
        return {
            "level": self.level.value,
            "versions": dict(self.versions),
            "directorRootVersion": self.director_root,
            "waitingRoot": self.waiting_root,
            "pending": list(self.pending),
            "tufStandsStillSince": self.tuf_stands_still_since,
            "expiries": [expiry_json(each) for each in self.expiries],
            "devicesBehindRoot": self.devices_behind_root,
            "keptKeys": [
                {
                    "repository": key.repository.value,
                    "role": key.role.value,
                    "keyid": key.key_id,
                    "until": expires_text(key.kept_until),
                }
                for key in self.kept_keys
                if key.kept_until is not None
            ],
        }


class RepositoryStatuses:
    """Reads the status of an account."""

    def __init__(
        self, *, roots: RootsService, images: ImageRepositoryService, targets: TargetStore, probes: RootProbes
    ) -> None:
        self._roots = roots
        self._images = images
        self._targets = targets
        self._probes = probes

    def status(self, tx: Tx, account: AccountId) -> RepositoryStatus:
        current = self._images.current(tx, account)
        accepted = self._roots.accepted(tx, account, Repository.IMAGE)
        behind = self._probes.behind(tx, account, Repository.IMAGE, current.versions[Role.ROOT.value])
        director = self._roots.expiry(tx, account, Repository.DIRECTOR)
        return RepositoryStatus(
            level=self._roots.level(tx, account),
            versions=current.versions,
            director_root=director.version,
            waiting_root=None if accepted.is_published else accepted.version,
            listed=self._targets.count(tx, account, TargetStatus.LISTED),
            pending=[target.name for target in self._images.catalogue.pending(tx, account)],
            expiries=[*self._images.expiries(tx, account), director],
            devices_behind_root=len(behind),
            tuf_stands_still_since=self._images.tuf_stands_still_since(tx, account),
            kept_keys=[key for repository in Repository for key in self._roots.keys.kept(tx, account, repository)],
        )


def kept_text(key: OnlineKey) -> str:
    """What to do about a private key that waits for its end."""
    assert key.kept_until is not None
    return (
        f"The old {key.role} key {key.key_id[:12]}… of the {key.repository.value.capitalize()} repository is kept until "
        "deleted: it signs nothing any more. Run `overair sign take-offline` again where it was cut, or the server deletes it "
        f"at {expires_text(key.kept_until)}."
    )


def alarm_text(expiry: RoleExpiry) -> str:
    """What to do about a document that ends."""
    name = f"{expiry.role} version {expiry.version} of the {expiry.repository.value.capitalize()} repository"
    ends = "ended" if expiry.alarm_days == 0 else "ends"
    if expiry.is_online:
        return f"{name} {ends} at {expires_text(expiry.expires)}, though the server should have signed it anew: see its log."
    where = ready_to_sign(expiry)
    at = f" What to sign stands ready at {where}." if where else " Whoever holds its keys has to sign it anew."
    refused = " Devices refuse the repository until then." if expiry.alarm_days == 0 else ""
    return f"{name} {ends} at {expires_text(expiry.expires)}, and its keys are offline.{at}{refused}"


def ready_to_sign(expiry: RoleExpiry) -> str:
    """Where the document that would follow can be fetched; empty for what the server signs itself, or what others write."""
    if expiry.is_online:
        return ""
    if expiry.role == Role.ROOT:
        prefix = "/api/v1/user_repo" if expiry.repository is Repository.IMAGE else "/api/v1/director/admin/repo"
        return f"{prefix}/root?document=true"
    if expiry.role == Role.TARGETS:
        return "/api/v1/user_repo/unsigned/targets.json"
    return ""


def expiry_json(expiry: RoleExpiry) -> dict[str, Any]:
    """Until when one document counts."""
    return {
        "repository": expiry.repository.value,
        "role": expiry.role,
        "version": expiry.version,
        "expires": expires_text(expiry.expires),
        "online": expiry.is_online,
        "alarmDays": expiry.alarm_days,
        "readyToSign": ready_to_sign(expiry),
    }
