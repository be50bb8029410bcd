"""The locks: pinned with hashes for every interpreter and machine that is promised, and naming no place to get them from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.utils import canonicalize_name

LOCKS = Path(__file__).parents[2] / "locks"
NAMES = ["build.txt", "development.txt", "fuzz.txt", "peers.txt", "runtime.txt"]
INTERPRETERS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
HAS_WHEELS_FOR_EACH = {
    # What is compiled: a wheel for each interpreter and machine (or one for all interpreters of a machine), each with its hash.
    "cbor2",
    "cryptography",
    "httptools",
    "msgspec",
    "pydantic-core",
    "uvloop",
}


@dataclass
class Pinned:
    name: str
    version: str
    marker: Marker | None
    hashes: list[str] = field(default_factory=list)

    def counts_for(self, interpreter: str, machine: str) -> bool:
        environment = {
            "python_version": interpreter,
            "python_full_version": f"{interpreter}.5",
            "platform_machine": machine,
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }
        return self.marker is None or self.marker.evaluate(environment)


def pins(name: str) -> list[Pinned]:
    found: list[Pinned] = []
    for line in (LOCKS / name).read_text().splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line.startswith(" "):
            matched = re.fullmatch(r" +--hash=sha256:([0-9a-f]{64})(?: \\)?", line)
            assert matched, line
            found[-1].hashes.append(matched[1])
            continue
        matched = re.fullmatch(r"([A-Za-z0-9._-]+)==([^ ;]+)(?: ; ([^\\]+?))?(?: \\)?", line)
        assert matched, f"{name}: not a pinned requirement: {line}"
        found.append(Pinned(matched[1], matched[2], Marker(matched[3]) if matched[3] else None))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_lock_holds_pinned_requirements_with_hashes_and_no_address(name: str) -> None:
    # ``pins`` takes nothing but pins, hashes and comments: no option, address or path would pass.
    found = pins(name)
    assert found
    assert all(pin.hashes for pin in found)
    text = (LOCKS / name).read_text()
    assert "://" not in text
    assert not re.search(r"^\s*-", re.sub(r"^ +--hash=.*$", "", text, flags=re.MULTILINE), re.MULTILINE)


def test_every_lock_is_looked_at() -> None:
    assert {path.name for path in LOCKS.glob("*.txt")} == set(NAMES)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_each_interpreter_and_machine_gets_one_version_of_everything(interpreter: str, machine: str) -> None:
    for lock in NAMES:
        chosen = [pin.name for pin in pins(lock) if pin.counts_for(interpreter, machine)]
        assert len(chosen) == len(set(chosen))
    runtime = {pin.name for pin in pins("runtime.txt") if pin.counts_for(interpreter, machine)}
    assert runtime >= HAS_WHEELS_FOR_EACH


def test_what_is_compiled_has_files_for_several_interpreters_and_machines() -> None:
    by_name = {pin.name: pin for pin in pins("runtime.txt")}
    for name in HAS_WHEELS_FOR_EACH:
        # Two machines and three interpreters, or one stable wheel for each machine and C library, and the source.
        assert len(by_name[name].hashes) >= 6, name


def test_the_runtime_is_the_same_in_both_locks() -> None:
    development = {(pin.name, pin.version) for pin in pins("development.txt")}
    assert {(pin.name, pin.version) for pin in pins("runtime.txt")} <= development


def test_what_is_installed_here_is_what_the_locks_pin() -> None:
    import platform
    import sys

    interpreter, machine = f"{sys.version_info[0]}.{sys.version_info[1]}", platform.machine()
    wanted = {pin.name: pin.version for pin in pins("development.txt") if pin.counts_for(interpreter, machine)}
    installed = {canonicalize_name(each.metadata["Name"]): each.version for each in metadata.distributions()}
    differ = {name: (version, installed.get(name)) for name, version in wanted.items() if installed.get(name) != version}
    assert not differ
