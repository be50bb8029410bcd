"""Each fuzz target over its seeds, over what hypothesis makes of them, and over what coverage leads atheris to, where that is
installed and there is time."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.corpora import FOLDER, corpus, escaped, unescaped
from tests.fuzz.run import TARGETS

EXAMPLES = 120
EXAMPLES_LONG = 5_000
ATHERIS_S = 60
ROOT = Path(__file__).parents[2]


def fuzz_one(target: str) -> Callable[[bytes], None]:
    return import_module(f"tests.fuzz.targets.{target}").fuzz_one  # type: ignore[no-any-return]


def test_each_target_has_seeds_and_each_corpus_a_target() -> None:
    assert sorted(path.stem for path in (FOLDER.parent / "targets").glob("*.py")) == TARGETS
    assert all(len(corpus(target)) >= 5 for target in TARGETS)


@given(st.binary())
def test_a_seed_is_the_same_once_it_was_a_line(seed: bytes) -> None:
    line = escaped(seed)
    assert line.isascii()
    assert line.isprintable()
    assert unescaped(line) == seed


@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_holds(target: str) -> None:
    act = fuzz_one(target)
    for seed in corpus(target):
        act(seed)


def mutations(seeds: list[bytes]) -> st.SearchStrategy[bytes]:
    """Seeds with a few octets changed, parts left out, doubled, or put in from other seeds."""
    seed = st.sampled_from(seeds)
    change = st.tuples(st.integers(0, 5), st.integers(0, 4095), st.integers(1, 16), st.integers(0, 255), seed)

    def changed(start: bytes, changes: list[tuple[int, int, int, int, bytes]]) -> bytes:
        data = start
        for kind, place, length, octet, other in changes:
            at = place % (len(data) + 1)
            head, part, tail = data[:at], data[at : at + length], data[at + length :]
            if kind == 0:
                data = head + bytes([octet]) + data[at + 1 :]
            elif kind == 1:
                data = head + tail
            elif kind == 2:
                data = head + part + part + tail
            elif kind == 3:
                data = head + bytes([octet]) * length + data[at:]
            elif kind == 4:
                data = head + other[octet % (len(other) + 1) :][: length * 4] + tail
            else:
                data = head + other[octet % (len(other) + 1) :]
        return data[:8192]

    return st.one_of(st.builds(changed, seed, st.lists(change, min_size=1, max_size=6)), st.binary(max_size=200))


def search(target: str, examples: int, *, derandomize: bool) -> None:
    act = fuzz_one(target)

    @settings(
        max_examples=examples, deadline=None, derandomize=derandomize, database=None, suppress_health_check=list(HealthCheck)
    )
    @given(mutations(corpus(target)))
    def search(data: bytes) -> None:
        act(data)

    search()


@pytest.mark.parametrize("target", TARGETS)
def test_what_is_near_a_seed_holds(target: str) -> None:
    # The same inputs at every run: what is new is looked for below.
    search(target, EXAMPLES, derandomize=True)


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_further_from_a_seed_holds(target: str) -> None:
    search(target, EXAMPLES_LONG, derandomize=False)


@pytest.mark.long
@pytest.mark.parametrize("target", TARGETS)
def test_what_coverage_leads_to_holds(target: str) -> None:
    if find_spec("atheris") is None:
        pytest.skip("not run: atheris isn't installed (make test-long installs it on Linux x86-64 with Python 3.11)")
    ran = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.run", target, "--seconds", str(ATHERIS_S)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=ATHERIS_S + 300,
    )
    assert ran.returncode == 0, ran.stdout[-4000:] + ran.stderr[-8000:]
