"""Whatever operators do, in whatever order: every published set is believed as a whole, in both flavours, and versions rise.

Two clients watch: a new one that knows the newest root, and one that has followed from the first. Both are the client's own
verification (``wire/uptane/trust.py``), which refuses what goes back, what is mixed, and what isn't signed.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.strategies import booleans, integers, sampled_from

from overair.basics.arn import Place
from overair.basics.clock import SettableClock
from overair.basics.errors import OverairError
from overair.basics.ids import AccountId, SeededIds
from overair.server.image_repository.pushing import Push
from overair.server.roots.chains import Level
from overair.server.roots.model import Unsigned
from overair.server.roots.service import Rehearsed
from overair.server.storage.schema import metadata
from overair.server.storage.work import open_sqlite
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository, Role, Targets
from overair.wire.uptane.trust import Accepted, TrustedSet
from tests.server.conftest import START
from tests.support.image_documents import sign_described
from tests.support.image_room import DAY_MS, ImageRoom, OfflineKey, delegation, plan, signed, target_file
from tests.support.image_view import trusted

NAMES = ["a.bin", "b.bin", "dir/c.bin", "vendor/d.bin"]
CONTENTS = [b"one", b"two"]


class Operators(RuleBasedStateMachine):
    """One account and everybody who may change its Image repository."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="overair-operators-"))
        self.clock = SettableClock(START)
        self.work = open_sqlite(self.folder / "records.sqlite3", clock=self.clock)
        metadata.create_all(self.work.engine)
        place = Place("us-east-1", AccountId("123456789012"))
        self.room = ImageRoom.open(self.work, self.clock, SeededIds(7), place, self.folder)
        self.root_key, self.targets_key, self.vendor_key = OfflineKey(), OfflineKey(), OfflineKey()
        self.followers: dict[Flavour, TrustedSet] = {}
        self.contents: dict[str, bytes] = {}

    def teardown(self) -> None:
        self.work.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    @initialize()
    def begin(self) -> None:
        self.room.create()
        for flavour in Flavour:
            root = self.room.read(
                lambda tx: self.room.roots.document(tx, self.room.account, Repository.IMAGE, 1, flavour)  # noqa: B023
            )
            self.followers[flavour] = TrustedSet.begin(root, repository=Repository.IMAGE, flavour=flavour)

    # What is so ---------------------------------------------------------------------------------------------------------

    @property
    def level(self) -> Level:
        return self.room.read(lambda tx: self.room.roots.level(tx, self.room.account))

    @property
    def is_offline(self) -> bool:
        return self.level is Level.PRODUCTION

    @property
    def is_root_online(self) -> bool:
        return self.room.read(lambda tx: self.room.roots.is_online(tx, self.room.account, Repository.IMAGE, Role.ROOT))

    @property
    def has_ended(self) -> bool:
        """Nobody has signed in time what only people can sign: then clients rightly refuse."""
        now = self.clock.now()
        return self.room.targets().expires <= now or self.room.root().expires <= now

    # What operators do --------------------------------------------------------------------------------------------------

    @rule(name=sampled_from(NAMES), content=sampled_from(CONTENTS), version=sampled_from(["1", "2"]))
    def upload(self, name: str, content: bytes, version: str) -> None:
        described = plan(name, content, version=version)
        is_taken = self.contents.get(name, content) != content
        with self._refused_for("target" if is_taken else "client-refuses"):
            self.room.run(lambda tx: self.room.images.add_target(tx, self.room.place, described))
            assert self.contents.setdefault(name, content) == content

    @rule(name=sampled_from(NAMES))
    def delete(self, name: str) -> None:
        with self._refused_for("target", "target-delegated", "client-refuses"):
            self.room.run(lambda tx: self.room.images.delete_target(tx, self.room.place, name))

    @rule()
    def renew_root(self) -> None:
        self._with_root_key(lambda: self.room.run(lambda tx: self.room.roots.renew(tx, self.room.place, Repository.IMAGE)))

    @rule(roles=sampled_from([(Role.ROOT, Role.TARGETS), (Role.SNAPSHOT, Role.TIMESTAMP), tuple(Role)]))
    def rotate(self, roles: tuple[Role, ...]) -> None:
        def unit() -> Any:
            return self.room.run(lambda tx: self.room.roots.rotate(tx, self.room.place, Repository.IMAGE, roles=roles))

        made = self._with_root_key(unit)
        if isinstance(made, Unsigned):
            self._push(Push(root=sign_described(made.signed, [self.root_key])))

    @precondition(lambda self: not self.is_offline)
    @rule(with_targets=booleans())
    def take_offline(self, with_targets: bool) -> None:
        root = self.room.next_root(root=([self.root_key], 1), targets=([self.targets_key], 1))
        push = Push(root=signed(root, [self.root_key]), cosign=True)
        if with_targets:
            push = replace(push, targets=signed(self._next_targets(), [self.targets_key]), checksum=self.room.checksum())
        self._push(push)

    @precondition(lambda self: self.is_offline)
    @rule()
    def bring_back(self) -> None:
        made = self.room.run(lambda tx: self.room.roots.rotate(tx, self.room.place, Repository.IMAGE, also_offline=True))
        assert isinstance(made, Unsigned)
        self._push(Push(root=sign_described(made.signed, [self.root_key]), cosign=True))

    @precondition(lambda self: self.is_offline)
    @rule(flavours=sampled_from([tuple(Flavour), tuple(Flavour), (Flavour.UPTANE,)]), dry_run=booleans())
    def sign_targets(self, flavours: tuple[Flavour, ...], dry_run: bool) -> None:
        unsigned = self.room.read(lambda tx: self.room.images.unsigned(tx, self.room.account))
        documents = sign_described({each: unsigned.signed[each] for each in flavours}, [self.targets_key])
        self._push(Push(targets=documents, checksum=self.room.checksum(), dry_run=dry_run))

    @precondition(lambda self: self.is_offline)
    @rule(wrong=sampled_from(["key", "version", "expires", "checksum"]))
    def push_wrong(self, wrong: str) -> None:
        targets = self._next_targets()
        if wrong == "version":
            targets = replace(targets, version=targets.version + 1)
        if wrong == "expires":
            targets = replace(targets, expires=self.clock.now())
        key = OfflineKey() if wrong == "key" else self.targets_key
        checksum = "0" * 64 if wrong == "checksum" else self.room.checksum()
        try:
            self.room.push(Push(targets=signed(targets, [key]), checksum=checksum))
        except OverairError:
            return
        raise AssertionError(f"a push with a wrong {wrong} was taken")

    @rule(is_made=booleans())
    def delegate(self, is_made: bool) -> None:
        made = [delegation("vendor", [self.vendor_key], ["vendor/*"])] if is_made else []
        keys = {self.vendor_key.public_key.id: self.vendor_key.public_key} if is_made else {}
        changed: Any = None
        with self._refused_for("client-refuses"):
            changed = self.room.run(
                lambda tx: self.room.images.set_delegations(tx, self.room.place, keys=keys, delegations=made)
            )
        if changed is not None and changed.unsigned is not None:
            documents = sign_described(changed.unsigned.signed, [self.targets_key])
            self._push(Push(targets=documents, checksum=self.room.checksum()))

    @rule(days=integers(1, 60), is_full=booleans())
    def push_delegation(self, days: int, is_full: bool) -> None:
        standing = self.room.read(lambda tx: self.room.images.standing(tx, self.room.account))
        last = standing.get("vendor")
        content = self.contents.get("vendor/d.bin", b"one")
        files = {"vendor/d.bin": target_file("vendor/d.bin", content)} if is_full else {}
        body = Targets(version=1 if last is None else last.version + 1, expires=self.room.in_days(days), targets=files)
        with self._refused_for("delegations-not-defined", "client-refuses"):
            self.room.push(Push(delegations={"vendor": signed(body, [self.vendor_key])}))
            if is_full:
                self.contents.setdefault("vendor/d.bin", content)

    @rule(hours=sampled_from([1, 13, 24, 24 * 9, 24 * 25, 24 * 320]))
    def time_passes(self, hours: int) -> None:
        self.clock.advance(milliseconds=hours * DAY_MS // 24)
        accepted = self.room.read(lambda tx: self.room.roots.accepted(tx, self.room.account, Repository.IMAGE))
        if accepted.root.expires - self.clock.now() < 60 * DAY_MS:
            self._with_root_key(lambda: self.room.run(lambda tx: self.room.roots.renew(tx, self.room.place, Repository.IMAGE)))
        self.room.run(lambda tx: self.room.images.renew_due(tx, self.room.place))

    # What must hold -------------------------------------------------------------------------------------------------------

    @invariant()
    def everything_published_is_believed(self) -> None:
        if not self.followers or self.has_ended:
            return
        stands_still = self.room.read(lambda tx: self.room.images.tuf_stands_still_since(tx, self.room.account)) is not None
        for flavour in (Flavour.UPTANE,) if stands_still else Flavour:
            published = self.room.read(lambda tx: self.room.roots.current(tx, self.room.account, Repository.IMAGE))
            if published.root.expires <= self.clock.now():
                return
            new = trusted(self.room, flavour)
            self._follow(flavour)
            assert new.targets == self.followers[flavour].targets

    def _follow(self, flavour: Flavour) -> None:
        client, now = self.followers[flavour], self.clock.now()
        newest = self.room.read(lambda tx: self.room.roots.newest_version(tx, self.room.account, Repository.IMAGE, flavour))
        for version in range(client.root.version + 1, newest + 1):
            root = self.room.read(
                lambda tx: self.room.roots.document(tx, self.room.account, Repository.IMAGE, version, flavour)  # noqa: B023
            )
            assert isinstance(client.update_root(root), Accepted)
        for role, update in (
            ("timestamp", client.update_timestamp),
            ("snapshot", client.update_snapshot),
            ("targets", client.update_targets),
        ):
            verdict = update(self.room.document(role, flavour), now=now)
            assert isinstance(verdict, Accepted), (role, verdict)

    # ----------------------------------------------------------------------------------------------------------------------

    def _next_targets(self) -> Targets:
        return self.room.next_targets()

    @contextmanager
    def _refused_for(self, *subjects: str) -> Iterator[None]:
        """What may stand in the way; of what clients refuse, only that something has ended."""
        try:
            yield
        except OverairError as error:
            if error.subject not in subjects or (error.subject == "client-refuses" and not self.has_ended):
                raise

    def _push(self, push: Push) -> None:
        """A TUF chain that stands still, or what has ended, is told of in words; nothing else may stand in the way."""
        try:
            self.room.push(push)
        except Rehearsed:
            pass
        except OverairError as error:
            told = error.details.get("errors")
            codes = {item["code"] for item in told} if isinstance(told, list) else {error.subject}
            if not codes <= {"tuf_chain_behind", "expired_metadata"}:
                raise

    def _with_root_key(self, unit: Any) -> Any:
        """What needs the root's signature: by the server, or by the operator's key over what the server offers."""
        with self._refused_for("role-keys-offline", "client-refuses"):
            return unit()
        if not self.is_root_online:
            unsigned = self.room.read(lambda tx: self.room.roots.unsigned(tx, self.room.account, Repository.IMAGE))
            self._push(Push(root=sign_described(unsigned.signed, [self.root_key])))
        return None


TestOperatorsAtRandom = Operators.TestCase
TestOperatorsAtRandom.settings = settings(
    max_examples=8,
    stateful_step_count=16,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    # A run is told step by step as it was; making it shorter takes minutes.
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
