"""Bringing an exported directory into an account: a saga of named steps, each durable and each safe to repeat.

``planned → uploaded → settled → (needs-roots) → published → authorities → devices → done``. What the server has done is asked
of the server each time, so that a cut after any step, or in the middle of one, is gone on from by the same command.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from overair.basics.clock import Clock
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.migrate.handover import Handover, Handovers, Level, known_of
from overair.cli.migrate.image_files import sha256_of
from overair.cli.migrate.layout import Documents, ExportDirectory
from overair.cli.migrate.plan import ImageFile, Plan, bodies, errors_in_words, needs_bytes
from overair.cli.migrate.target import TargetServer
from overair.cli.rest import RestRefused, RestUnreachable
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import Repository
from overair.wire.uptane.trust import Refused, TrustedSet

DEVICES_AT_ONCE: Final = 25
"""Each batch is one unit of work on the server's writer, where others wait."""
BATCH_SIZE_BYTES_MAX: Final = 8 * 1024 * 1024
DEVICE_MEMBERS: Final = ("deviceId", "deviceName", "deviceType", "notes", "certificates", "keptOut", "ecus", "installed")
NEEDS_ROOTS: Final = "needs-roots"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What the operator decides."""

    level: Level = Level.DEFAULT
    key_files: tuple[Path, ...] = ()
    signature_files: tuple[Path, ...] = ()
    sign_targets: bool = False
    may_lack_images: bool = False
    rule: Mapping[str, Any] = field(default_factory=dict)
    """Members of every fleet authority's rule, in place of what was exported."""


@dataclass(slots=True, kw_only=True)
class Done:
    """What an import came to."""

    state: str
    plan: Plan
    handover: Handover | None = None
    versions: Mapping[str, int] = field(default_factory=dict)
    director_root: int = 0
    authorities: list[str] = field(default_factory=list)
    devices: dict[str, int] = field(default_factory=dict)
    refused_devices: dict[str, list[str]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        handover = self.handover
        return {
            "state": self.state,
            "plan": self.plan.to_json(),
            "requests": {} if handover is None else {each.value: str(path) for each, path in handover.requests.items()},
            "signatures_missing": [] if handover is None else [each.to_json() for each in handover.missing],
            "versions": dict(self.versions),
            "director_root_version": self.director_root,
            "fleet_authorities": list(self.authorities),
            "devices": dict(self.devices),
            "refused_devices": dict(self.refused_devices),
        }


class Importer:
    """One import. ``after_step`` is told the name of each step once it is durable."""

    def __init__(
        self,
        directory: ExportDirectory,
        server: TargetServer,
        options: ImportOptions,
        *,
        clock: Clock,
        tell: Callable[[str], None] = lambda line: None,
        after_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._directory, self._server, self._options = directory, server, options
        self._clock, self._tell, self._after_step = clock, tell, after_step
        self._handovers = Handovers(directory, clock=clock)

    # Planning -------------------------------------------------------------------------------------------------------------

    def plan(self) -> Plan:
        """Ask everything, change nothing.

        Raises:
            CommandEnded: USAGE: the directory can't be read. REFUSED: nothing of it can be believed. UNREACHABLE.
        """
        with _told():
            return self._plan()

    def _plan(self) -> Plan:
        index = self._directory.index()
        documents = self._documents()
        now = self._clock.now()
        known = {repository: known_of(documents[repository, Flavour.UPTANE], repository, now=now) for repository in Repository}
        plan = Plan(source=str(index.get("source", "")), level=self._options.level, known=known, documents=documents)
        for repository, each in known.items():
            others = sorted(set(each.root.roles) - {"root", "targets", "snapshot", "timestamp"})
            if others:
                plan.warnings.append(
                    f"The {repository} root names other roles ({', '.join(others)}): they stay, with keys of the old server."
                )
        self._plan_images(plan)
        self._plan_repositories(plan)
        self._plan_authorities(plan)
        self._plan_devices(plan)
        return plan

    def _documents(self) -> dict[tuple[Repository, Flavour], Documents]:
        found: dict[tuple[Repository, Flavour], Documents] = {}
        for repository in Repository:
            uptane = self._directory.documents(repository)
            if uptane is None:
                raise CommandEnded(ExitCode.USAGE, f"{self._directory.path} holds no roots of the {repository} repository.")
            if uptane.first_version != 1:
                raise CommandEnded(
                    ExitCode.USAGE, f"The {repository} roots begin with version {uptane.first_version}: a chain begins with 1."
                )
            found[repository, Flavour.UPTANE] = uptane
            tuf = self._directory.documents(repository, Flavour.TUF)
            if tuf is not None and tuf.first_version + len(tuf.roots) == 1 + len(uptane.roots):
                found[repository, Flavour.TUF] = tuf
        return found

    def _plan_images(self, plan: Plan) -> None:
        for body in bodies(plan.known[Repository.IMAGE]):
            for target in body.targets.values():
                if not needs_bytes(target):
                    plan.elsewhere.append(target.name)
                    continue
                path = self._directory.image_file(target.sha256)
                if not target.sha256 or not path.exists():
                    plan.missing.append(target.name)
                    continue
                if path.stat().st_size != target.length:
                    plan.errors.append(f"{path} has {path.stat().st_size} bytes; {target.name} has {target.length}.")
                    continue
                plan.images += 1
                if not self._server.has_image(target.name, target.sha256):
                    image = ImageFile(name=target.name, path=path, length=target.length, sha256=target.sha256)
                    plan.uploads.append(image)
        if plan.missing and not self._options.may_lack_images:
            plan.errors += [
                f"The bytes of {name} aren't in the directory: devices couldn't fetch it (--may-lack-images lets it come so)."
                for name in plan.missing
            ]

    def _plan_repositories(self, plan: Plan) -> None:
        """The server's own examination, without the signatures that there may not be yet."""
        try:
            told = self._server.take_over(self._body(plan, None), dry_run=True, may_lack_images=True)
        except RestRefused as refusal:
            if not refusal.status:
                raise
            plan.errors += errors_in_words(refusal.errors, str(refusal))
            return
        plan.is_there = told.get("alreadyThere") is True
        plan.warnings += [
            text
            for each in told.get("warnings", [])
            for text in errors_in_words([each], "")
            if isinstance(each, dict) and each.get("code") != "binary_missing"
        ]
        if not plan.is_there:
            own = {repository: self._server.own_keys(repository) for repository in Repository}
            try:
                plan.handover = self._handovers.settle(
                    plan.known, own, self._options.level, sign_targets=self._options.sign_targets
                )
            except CommandEnded as end:
                plan.errors.append(end.message)

    def _plan_authorities(self, plan: Plan) -> None:
        for each in self._directory.fleet_authorities():
            rule = each.get("rule")
            body = {
                "certificatePem": str(each.get("certificatePem", "")),
                "name": str(each.get("name", "")),
                "rule": {**(rule if isinstance(rule, dict) else {}), **self._options.rule},
            }
            try:
                made = self._server.register_authority(body, dry_run=True)
            except RestRefused as refusal:
                if not refusal.status:
                    raise
                plan.errors.append(str(refusal))
                continue
            plan.authorities.append(body)
            plan.authority_names += [str(row.get("subject", "")) for row in made]

    def _plan_devices(self, plan: Plan) -> None:
        for row in self._devices(dry_run=True):
            device, outcome = str(row.get("deviceId", "")), str(row.get("outcome", ""))
            plan.devices[outcome] = plan.devices.get(outcome, 0) + 1
            if row.get("errors"):
                plan.refused_devices[device] = [str(each) for each in row["errors"]]
            if row.get("warnings"):
                plan.device_warnings[device] = [str(each) for each in row["warnings"]]
        if plan.device_warnings:
            plan.warnings.append(f"{len(plan.device_warnings)} devices come with something to know: see device_warnings.")

    # Carrying out ---------------------------------------------------------------------------------------------------------

    def run(self) -> Done:
        """The whole way, or as far as the signatures go.

        Raises:
            CommandEnded: REFUSED: with everything that is wrong; nothing was changed by this run. UNREACHABLE.
        """
        with _told():
            plan = self._plan()
            if plan.errors:
                listed = "".join(f"\n  {each}" for each in plan.errors)
                raise CommandEnded(ExitCode.REFUSED, f"The import can't be carried out; nothing was changed.{listed}")
            self._step("planned")
            done = Done(state="planned", plan=plan)
            self._publish(plan, done)
            if done.state == NEEDS_ROOTS:
                return done
            for body in plan.authorities:
                made = self._server.register_authority(body, dry_run=False)
                done.authorities += [str(row.get("authorityId", "")) for row in made]
                self._after_step("authority")
            self._step("authorities")
            for row in self._devices(dry_run=False):
                outcome = str(row.get("outcome", ""))
                done.devices[outcome] = done.devices.get(outcome, 0) + 1
                if row.get("errors"):
                    done.refused_devices[str(row.get("deviceId", ""))] = [str(each) for each in row["errors"]]
            self._step("devices")
            done.state = "done"
            self._step("done")
            return done

    def _publish(self, plan: Plan, done: Done) -> None:
        for image in plan.uploads:
            self._upload(image)
        self._step("uploaded")
        if plan.handover is not None:
            options = self._options
            handover = self._handovers.sign(plan.handover, options.key_files, options.signature_files)
            done.handover = self._handovers.keep(handover)
            self._step("settled")
            if done.handover.missing:
                done.state = NEEDS_ROOTS
                self._step(NEEDS_ROOTS)
                return
        told = self._server.take_over(
            self._body(plan, done.handover), dry_run=False, may_lack_images=self._options.may_lack_images
        )
        done.versions = {str(name): int(version) for name, version in told.get("versions", {}).items()}
        done.director_root = int(told.get("directorRootVersion", 0))
        self._after_step("taken over")
        self._read_back(plan)
        done.state = "published"
        self._step("published")

    def _upload(self, image: ImageFile) -> None:
        if sha256_of(image.path) != image.sha256:
            raise CommandEnded(
                ExitCode.REFUSED,
                f"{image.path} has other bytes than {image.name} must have: export it again. Nothing was sent.",
            )
        self._tell(f"{image.name}: {image.length:,} bytes")
        self._server.upload(image.name, image.path, length=image.length, sha256=image.sha256)
        self._after_step(f"upload {image.name}")

    def _body(self, plan: Plan, handover: Handover | None) -> dict[str, Any]:
        """The import as the server reads it."""
        parts = {part.repository: part.documents() for part in handover.parts} if handover is not None else {}
        body: dict[str, Any] = {}
        for repository in Repository:
            found = {
                flavour: plan.documents[repository, flavour] for flavour in Flavour if (repository, flavour) in plan.documents
            }
            uptane = found[Flavour.UPTANE]
            roots: list[dict[str, str]] = [{} for _ in uptane.roots]
            for flavour, documents in found.items():
                for number, data in enumerate(documents.roots, start=documents.first_version - 1):
                    roots[number][flavour.value] = _text(data)
            part: dict[str, Any] = {"roots": roots}
            for role in uptane.roles:
                part[role] = {flavour.value: _text(each.roles[role]) for flavour, each in found.items() if role in each.roles}
            if uptane.delegations:
                part["delegations"] = {
                    name: {
                        flavour.value: _text(each.delegations[name])
                        for flavour, each in found.items()
                        if name in each.delegations
                    }
                    for name in uptane.delegations
                }
            if repository in parts:
                part["next"] = parts[repository]
            body[repository.value] = part
        return body

    def _read_back(self, plan: Plan) -> None:
        """As a device that follows from the old server's first root: what it comes to believe is what was meant."""
        now = self._clock.now()
        for repository, known in plan.known.items():
            trusted = TrustedSet.begin(known.served.roots[0], repository=repository)
            for version in range(2, known.root.version + 2):
                _accepted(trusted.update_root(self._server.root(repository, version)), f"root {version}")
            _accepted(trusted.check_root_expiry(now), "root")
            if repository is Repository.IMAGE:
                _accepted(trusted.update_timestamp(self._server.role("timestamp"), now=now), "timestamp")
                _accepted(trusted.update_snapshot(self._server.role("snapshot"), now=now), "snapshot")
                _accepted(trusted.update_targets(self._server.role("targets"), now=now), "targets")

    def _devices(self, *, dry_run: bool) -> Iterator[dict[str, Any]]:
        """Batch by batch; what became of each."""
        batch: list[dict[str, Any]] = []
        size_bytes = 0
        for each in self._directory.devices():
            row: dict[str, Any] = {name: each[name] for name in DEVICE_MEMBERS if name in each}
            row_bytes = len(json.dumps(row))
            if batch and (len(batch) == DEVICES_AT_ONCE or size_bytes + row_bytes > BATCH_SIZE_BYTES_MAX):
                yield from self._send(batch, dry_run=dry_run)
                batch, size_bytes = [], 0
            batch.append(row)
            size_bytes += row_bytes
        if batch:
            yield from self._send(batch, dry_run=dry_run)

    def _send(self, batch: list[dict[str, Any]], *, dry_run: bool) -> list[dict[str, Any]]:
        told = self._server.import_devices(batch, dry_run=dry_run)
        if not dry_run:
            self._after_step("device batch")
        return told

    def _step(self, name: str) -> None:
        """Write down how far it is, for ``migrate status``."""
        self._directory.write_json("import/state.json", {"state": name, "level": self._options.level.value})
        self._after_step(name)


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise CommandEnded(ExitCode.REFUSED, "A document in the directory isn't UTF-8: no client could read it.") from None


def _accepted(verdict: object, name: str) -> None:
    if isinstance(verdict, Refused):
        raise CommandEnded(
            ExitCode.REFUSED, f"A device that follows would refuse the {name} that was read back: {verdict.message}"
        )


@contextmanager
def _told() -> Iterator[None]:
    """What the server's REST raises, as ends of a command."""
    try:
        yield
    except RestUnreachable as error:
        raise CommandEnded(ExitCode.UNREACHABLE, f"{error} The same command goes on where this one stopped.") from None
    except RestRefused as error:
        raise CommandEnded(ExitCode.REFUSED, str(error)) from None
