"""What a Primary remembers over restarts, apart from metadata: one small file that is replaced whole at each step.

So each step is done or not done: who is registered, what runs where, which update is under way and how far it came, what the
Director hasn't heard yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from overair.agent.durable import Disk
from overair.agent.uptane.time_floor import BUILT_AT
from overair.basics.clock import Instant
from overair.wire.uptane.events import Event
from overair.wire.uptane.metadata import TargetFile
from overair.wire.uptane.reports import InstallationReport, InstallationResult

FORMAT: Final = 1
STATE_SIZE_BYTES_MAX: Final = 8 * 1024 * 1024
EVENTS_MAX: Final = 500
"""Kept while they can't be sent; the oldest go first."""
ATTACKS_LENGTH_MAX: Final = 1024


class DamagedState(Exception):
    """The file can't be read; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstalledTarget:
    """An image that an ECU runs, or is to run."""

    name: str
    length: int
    hashes: dict[str, str]
    release_counter: int | None = None

    @classmethod
    def of(cls, target: TargetFile) -> InstalledTarget:
        counter = target.release_counter
        return cls(name=target.name, length=target.length, hashes=dict(target.hashes), release_counter=counter)

    @property
    def file(self) -> TargetFile:
        custom = {} if self.release_counter is None else {"releaseCounter": self.release_counter}
        return TargetFile(name=self.name, length=self.length, hashes=self.hashes, custom=custom)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownEcu:
    """One ECU of the vehicle, once it has told who it is."""

    hardware_id: str
    key: dict[str, Any]
    """As it registers."""
    installed: InstalledTarget | None = None
    """None: nobody knows."""
    report: bytes | None = None
    """The last report that it signed, as JSON: repeated while it is away."""
    place: str = ""
    """The Secondary of the settings that it is; empty for the Primary."""


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateUnderWay:
    """What the Director wants, from the moment that both repositories agreed on it until its end is reported."""

    key: str
    """Names what is wanted, whatever version and dates its documents have."""
    correlation_id: str
    wanted: dict[str, InstalledTarget]
    """By ECU serial."""
    results: dict[str, InstallationResult] = field(default_factory=dict)
    """Of the ECUs that are done, or have failed."""
    failures: int = 0
    """Rounds in which an image couldn't be fetched."""
    activated_sha256: str | None = None
    """The Primary's own image was made the one that boots next; whether it stays shows after the restart."""
    restart: str | None = None
    """Which run of the machine must end before the Primary's image counts, where a program of the integrator's installs it."""
    reason: str = ""
    """What the image on trial says why it goes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientState:
    """The whole file."""

    format: int = FORMAT
    ecus: dict[str, KnownEcu] = field(default_factory=dict)
    registered: dict[str, str] = field(default_factory=dict)
    """What the Director has taken: serial → hardware id and key, as one word."""
    counter: int = 0
    """No report counter up to here may be used again."""
    update: UpdateUnderWay | None = None
    failed: str = ""
    """The key of an update that failed: not tried again until the Director has said something else."""
    report: InstallationReport | None = None
    """How the last update ended, until the Director has heard it."""
    attacks: str = ""
    """What looked like an attack, until the Director has heard it."""
    events: tuple[Event, ...] = ()
    floor: Instant = BUILT_AT
    """See ``time_floor``."""


class StateStore:
    """Reads and replaces the file."""

    def __init__(self, path: Path, disk: Disk) -> None:
        self._path = path
        self._disk = disk

    def read(self) -> ClientState:
        """What was written last; a fresh state where nothing ever was.

        Raises:
            DamagedState
        """
        try:
            with self._path.open("rb") as file:
                data = file.read(STATE_SIZE_BYTES_MAX + 1)
        except FileNotFoundError:
            return ClientState()
        try:
            if len(data) > STATE_SIZE_BYTES_MAX:
                raise ValueError(f"it has more than {STATE_SIZE_BYTES_MAX} bytes")
            state = msgspec.json.decode(data, type=ClientState)
            if state.format != FORMAT:
                raise ValueError(f"format {state.format}; this program reads {FORMAT}")
        except (ValueError, msgspec.MsgspecError) as error:
            raise DamagedState(
                f"{self._path} can't be read ({error}). Without it the device must be registered anew: remove "
                f"{self._path.parent}, and have the device's ECUs replaced on the server."
            ) from None
        return state

    def write(self, state: ClientState) -> None:
        """Replace the file durably and at once."""
        self._disk.write_whole(self._path, msgspec.json.encode(state, enc_hook=_plain))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in the state")
