"""Reading another server into a directory: bounded, resumable, and believed only as far as its root chain vouches for it.

Documents are read as one set and verified as a client does before any is written; images are hashed while they come; devices
are one file each, so that a cut costs the one that was on its way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from overair.basics.clock import Clock, as_datetime
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.migrate.devices import DeviceReader
from overair.cli.migrate.image_files import ImageFetcher
from overair.cli.migrate.layout import DELEGATIONS_MAX, ROLES, ROOTS_MAX, Documents, ExportDirectory
from overair.cli.migrate.source import DIRECTORS, Source
from overair.cli.rest import RestAnswer, RestRefused, RestUnreachable
from overair.cli.sign.known import Known, Served, fingerprint, verify
from overair.wire.uptane.keys import Flavour
from overair.wire.uptane.metadata import DELEGATION_NAME, ROOT_SIZE_BYTES_MAX, TARGETS_SIZE_BYTES_MAX, Repository, Role
from overair.wire.uptane.metadata_reading import read_document
from overair.wire.uptane.refusals import MetadataRefused
from overair.wire.uptane.trust import Refused, TrustedSet

FETCHES_MAX: Final = 3
"""How often a set of documents is read anew because the server published in between."""
AT_ONCE: Final = 4
NO_SUCH_ROOT: Final = frozenset({404, 424})
"""One release of OTA Connect answered 424 where 404 is meant (Uptane reference §3.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """What is exported, and what it is pinned to."""

    pins: Mapping[str, bytes] = field(default_factory=dict)
    """Repository → a root that its chain must contain."""
    images: bool = True
    devices: bool = True
    fleet_authorities: tuple[str, ...] = ()
    """PEM of authorities that the server itself can't tell."""


@dataclass(slots=True, kw_only=True)
class Exported:
    """What there is in the directory."""

    source: str
    roots: dict[str, int] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    """Of the first root, by repository."""
    versions: dict[str, int] = field(default_factory=dict)
    flavours: dict[str, list[str]] = field(default_factory=dict)
    targets: int = 0
    images: int = 0
    image_bytes: int = 0
    images_elsewhere: list[str] = field(default_factory=list)
    images_missing: list[str] = field(default_factory=list)
    delegations: list[str] = field(default_factory=list)
    fleet_authorities: int = 0
    devices: int = 0
    devices_without_certificate: list[str] = field(default_factory=list)
    devices_kept_out: list[str] = field(default_factory=list)
    devices_with_problems: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


class Exporter:
    """One export. ``after_step`` is told the name of each step once it is durable."""

    def __init__(
        self,
        source: Source,
        directory: ExportDirectory,
        options: ExportOptions,
        *,
        clock: Clock,
        tell: Callable[[str], None] = lambda line: None,
        after_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._source, self._directory, self._options = source, directory, options
        self._clock, self._tell, self._after_step = clock, tell, after_step
        self._director = DIRECTORS[0]
        self._told = Exported(source=source.image_url)

    def run(self) -> Exported:
        """Everything, in an order in which each step needs the ones before.

        Raises:
            CommandEnded: REFUSED: by the server, or what it serves can't be believed; UNREACHABLE.
        """
        self._directory.begin()
        try:
            director = self._director_chain()
            image = self._image_documents()
            self._tell(f"{image.root.version} roots, {self._told.targets} targets.")
            if self._options.images:
                self._images(image)
            self._fleet_authorities()
            if self._options.devices:
                self._devices()
            self._check_still(image)
        except RestUnreachable as error:
            raise CommandEnded(ExitCode.UNREACHABLE, f"{error} The same command goes on where this one stopped.") from None
        except RestRefused as error:
            raise CommandEnded(ExitCode.REFUSED, str(error)) from None
        self._told.roots = {"image": image.root.version, "director": director}
        moment = as_datetime(self._clock.now()).isoformat(timespec="seconds")
        self._directory.finish({"exported_at": moment, **self._told.to_json()})
        self._after_step("finished")
        return self._told

    # Documents ------------------------------------------------------------------------------------------------------------

    def _director_chain(self) -> int:
        for base in DIRECTORS:
            if self._source.gateway(f"{base}/admin/repo/1.root.json").status == 200:
                self._director = base
                break
        else:
            raise CommandEnded(
                ExitCode.REFUSED,
                f"There is no Director's root at {self._source.gateway_url}{DIRECTORS[0]}/admin/repo/1.root.json: the right "
                "may be missing, or the address of the gateway (api_gateway.url) is another.",
            )
        roots = self._chain(Repository.DIRECTOR, Flavour.UPTANE)
        self._directory.write_documents(Repository.DIRECTOR, Flavour.UPTANE, Documents(roots=roots))
        self._other_flavour(Repository.DIRECTOR, roots, None)
        self._after_step("director")
        return len(roots)

    def _image_documents(self) -> Known:
        for attempt in range(1, FETCHES_MAX + 1):
            roots = self._chain(Repository.IMAGE, Flavour.UPTANE)
            roles, delegations = self._roles(Flavour.UPTANE)
            served = Served(
                roots=roots,
                timestamp=roles["timestamp"],
                snapshot=roles["snapshot"],
                targets=roles["targets"],
                delegations=delegations,
            )
            try:
                known = verify(served, Repository.IMAGE, now=self._clock.now())
                break
            except MetadataRefused as refusal:
                # Between two requests the server may have published.
                if attempt == FETCHES_MAX:
                    raise CommandEnded(
                        ExitCode.REFUSED, f"What {self._source.image_url} serves can't be believed: {refusal.message}"
                    ) from None
        documents = Documents(roots=roots, roles=roles, delegations={name: delegations[name] for name in known.delegations})
        self._directory.write_documents(Repository.IMAGE, Flavour.UPTANE, documents)
        self._other_flavour(Repository.IMAGE, roots, roles["targets"])
        told = self._told
        told.targets = sum(len(body.targets) for body in _bodies(known))
        told.delegations = sorted(known.delegations)
        told.versions = {role: read_document(data, _role(role)).version for role, data in roles.items()}
        if known.expired:
            told.warnings.append(f"Expired over there, and followed all the same: {', '.join(known.expired)}.")
        self._after_step("documents")
        return known

    def _chain(self, repository: Repository, flavour: Flavour, *, first: int = 1) -> tuple[bytes, ...]:
        """Every root, verified as each comes."""
        roots: list[bytes] = []
        trusted: TrustedSet | None = None
        while len(roots) < ROOTS_MAX:
            version = first + len(roots)
            answer = self._ask(repository, f"{version}.root.json", flavour)
            if answer.status in NO_SUCH_ROOT and roots:
                break
            data = answer.expect(f"Root version {version} of the {repository} repository can't be had").body
            try:
                if len(data) > ROOT_SIZE_BYTES_MAX:
                    raise RestRefused(f"Root version {version} has {len(data)} bytes; at most {ROOT_SIZE_BYTES_MAX} are read.")
                if trusted is None:
                    trusted = TrustedSet.begin(data, repository=repository, flavour=flavour)
                else:
                    verdict = trusted.update_root(data)
                    if isinstance(verdict, Refused):
                        raise MetadataRefused(verdict.reason, verdict.message, field=verdict.field)
                if trusted.root.version != version:
                    raise RestRefused(f"{version}.root.json of the {repository} repository is version {trusted.root.version}.")
            except MetadataRefused as refusal:
                raise RestRefused(
                    f"Root version {version} of the {repository} repository can't be followed: {refusal.message}"
                ) from None
            roots.append(data)
        if flavour is Flavour.UPTANE:
            self._check_pin(repository, roots)
            self._told.fingerprints[repository.value] = fingerprint(roots[0])
        return tuple(roots)

    def _check_pin(self, repository: Repository, roots: list[bytes]) -> None:
        pin = self._options.pins.get(repository.value) or self._source.pins.get(repository.value)
        if pin is not None and pin not in roots:
            raise RestRefused(
                f"The chain of the {repository} repository doesn't contain the root that was pinned ({fingerprint(pin)}): "
                "somebody serves another repository under this address, or the pin is of another account."
            )

    def _roles(self, flavour: Flavour) -> tuple[dict[str, bytes], dict[str, bytes]]:
        roles: dict[str, bytes] = {}
        for role, size_bytes_max in ROLES.items():
            data = self._ask(Repository.IMAGE, f"{role}.json", flavour).expect(f"{role}.json can't be had").body
            if len(data) > size_bytes_max:
                raise RestRefused(f"{role}.json has {len(data)} bytes; at most {size_bytes_max} are read.")
            roles[role] = data
        return roles, self._delegations(roles["snapshot"], flavour)

    def _delegations(self, snapshot: bytes, flavour: Flavour) -> dict[str, bytes]:
        """What the snapshot names beside root and targets; one that was withdrawn may be gone."""
        try:
            meta = read_document(snapshot, Role.SNAPSHOT, flavour=flavour).signed.get("meta")
        except MetadataRefused as refusal:
            raise RestRefused(f"snapshot.json can't be read: {refusal.message}") from None
        names = [name.removesuffix(".json") for name in meta] if isinstance(meta, Mapping) else []
        wanted = [name for name in names if DELEGATION_NAME.fullmatch(name) and name not in {"root", *ROLES}]
        if len(wanted) > DELEGATIONS_MAX:
            raise RestRefused(f"There are {len(wanted)} delegations; at most {DELEGATIONS_MAX} are read.")
        found: dict[str, bytes] = {}
        for name in wanted:
            answer = self._ask(Repository.IMAGE, f"delegations/{name}.json", flavour)
            if answer.status == 404:
                continue
            data = answer.expect(f"The delegation {name} can't be had").body
            if len(data) <= TARGETS_SIZE_BYTES_MAX:
                found[name] = data
        return found

    def _other_flavour(self, repository: Repository, roots: tuple[bytes, ...], targets: bytes | None) -> None:
        """TUF's flavour, from a server that has it. OTA Connect's answers the same as without the question."""
        last = self._ask(repository, f"{len(roots)}.root.json", Flavour.TUF)
        try:
            if last.status != 200 or last.body == roots[-1]:
                raise RestRefused("It has none.")
            read_document(last.body, Role.ROOT, flavour=Flavour.TUF)
            first = next(
                version
                for version in range(1, len(roots) + 1)
                if self._ask(repository, f"{version}.root.json", Flavour.TUF).status == 200
            )
            tuf = self._chain(repository, Flavour.TUF, first=first)
            if first + len(tuf) - 1 != len(roots):
                raise RestRefused("It has stopped.")
            roles, delegations = ({}, {}) if targets is None else self._roles(Flavour.TUF)
            if roles:
                of_uptane = read_document(targets or b"", Role.TARGETS).version
                if read_document(roles["targets"], Role.TARGETS, flavour=Flavour.TUF).version != of_uptane:
                    raise RestRefused("It has stopped.")
        except (MetadataRefused, RestRefused):
            return
        documents = Documents(roots=tuf, roles=roles, delegations=delegations, first_version=first)
        self._directory.write_documents(repository, Flavour.TUF, documents)
        self._told.flavours[repository.value] = [Flavour.UPTANE.value, Flavour.TUF.value]

    def _check_still(self, known: Known) -> None:
        targets = self._ask(Repository.IMAGE, "targets.json", Flavour.UPTANE)
        if targets.status == 200 and targets.body != known.served.targets:
            self._told.warnings.append(
                "The old server has published new targets since the export began: export once more before you import."
            )

    def _ask(self, repository: Repository, path: str, flavour: Flavour) -> RestAnswer:
        query = {} if flavour is Flavour.UPTANE else {"flavour": flavour.value}
        if repository is Repository.IMAGE:
            return self._source.image(path, **query)
        return self._source.gateway(f"{self._director}/admin/repo/{path}", **query)

    # Images, fleet authorities, devices ---------------------------------------------------------------------------------------

    def _images(self, known: Known) -> None:
        """Each image once, by its hash."""
        fetcher = ImageFetcher(self._source, self._directory, self._after_step)
        told = self._told
        for body in _bodies(known):
            for target in body.targets.values():
                fetched = fetcher.fetch(target)
                if fetched.is_here:
                    told.images += 1
                    told.image_bytes += target.length
                elif fetched.is_elsewhere:
                    told.images_elsewhere.append(target.name)
                else:
                    told.images_missing.append(target.name)
                told.warnings += [fetched.warning] if fetched.warning else []

    def _fleet_authorities(self) -> None:
        """Those that a server of ours tells with their rules; OTA Connect has no way to ask, so its operator names files."""
        values: list[dict[str, Any]] = [{"certificatePem": pem} for pem in self._options.fleet_authorities]
        answer = self._source.gateway("/api/v1/fleet_authorities")
        if answer.status == 200:
            told = answer.json().get("values", [])
            values += [
                {name: each[name] for name in ("certificatePem", "name", "rule") if name in each}
                for each in (told if isinstance(told, list) else [])
                if isinstance(each, dict)
            ]
        elif answer.status != 404:
            self._told.warnings.append(f"Fleet authorities can't be asked for ({answer.status}): name them with --fleet-ca.")
        self._directory.write_json("fleet_authorities.json", {"values": values})
        self._told.fleet_authorities = len(values)
        self._after_step("fleet authorities")

    def _devices(self) -> None:
        reader = DeviceReader(self._source, self._director)
        told = self._told
        with ThreadPoolExecutor(AT_ONCE) as pool:
            waiting: list[Any] = []

            def settle(most: int) -> None:
                while len(waiting) > most:
                    self._keep(waiting.pop(0).result())

            for row in reader.rows():
                told.devices += 1
                if self._directory.has_device(row.key):
                    self._note(self._directory.read_json(f"devices/{row.key}.json", 1 << 20))
                    continue
                waiting.append(pool.submit(reader.read, row))
                settle(2 * AT_ONCE)
            settle(0)
        self._after_step("devices")

    def _keep(self, device: dict[str, Any]) -> None:
        self._directory.write_json(f"devices/{device['uuid']}.json", device)
        self._note(device)
        self._after_step("device")

    def _note(self, device: Mapping[str, Any]) -> None:
        if device.get("keptOut"):
            self._told.devices_kept_out.append(str(device["deviceId"]))
        elif not device.get("certificates"):
            self._told.devices_without_certificate.append(str(device["deviceId"]))
        if device.get("problems"):
            self._told.devices_with_problems[str(device["deviceId"])] = list(device["problems"])


def _bodies(known: Known) -> Iterator[Any]:
    if known.targets is not None:
        yield known.targets
    yield from known.delegations.values()


def _role(name: str) -> Role:
    return Role(name)
