"""A signing tree beside a small server over real HTTPS; commands run in this process, as the command line would run them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from overair.cli.ends import CommandEnded
from overair.cli.sign import app, sealed_box
from tests.support.signing_server import SigningServer

PASSPHRASE = "four words in a row"


@dataclass
class Outcome:
    """How one command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


class Signer:
    """One person with one tree."""

    def __init__(self, path: Path, passphrase_file: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.path = path
        self.passphrase_file = passphrase_file
        self.said: list[str] = []
        self._capture = capture

    def __call__(self, *arguments: str | Path, code: int = 0, json: bool = True) -> Outcome:
        """Run ``overair sign …`` on this tree and expect this exit code."""
        words = [str(argument) for argument in arguments]
        self._capture.readouterr()
        message = ""
        try:
            app([*words, *(["--json"] if json else [])], standalone_mode=False)
            ended = 0
        except CommandEnded as end:
            ended, message = int(end.code), end.message
        captured = self._capture.readouterr()
        outcome = Outcome(code=ended, out=captured.out, err=captured.err + message)
        self.said += [outcome.out, outcome.err]
        assert ended == code, f"{words} ended with {ended}: {outcome.err}\n{outcome.out}"
        return outcome

    def file(self, name: str, content: bytes) -> Path:
        path = self.path.parent / name
        path.write_bytes(content)
        return path


@pytest.fixture(autouse=True)
def _quick_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed_box, "SCRYPT_N", 2**4)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[SigningServer]:
    folder = tmp_path / "server"
    folder.mkdir()
    found = SigningServer(folder)
    yield found
    found.close()


@pytest.fixture
def passphrase_file(tmp_path: Path) -> Path:
    path = tmp_path / "passphrase"
    path.write_text(PASSPHRASE + "\n")
    return path


@pytest.fixture
def person(
    tmp_path: Path, passphrase_file: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Signer]:
    """Somebody with a directory of their own; ``OVERAIR_SIGN_DIR`` follows whoever acts."""
    monkeypatch.setenv("OVERAIR_SIGN_PASSPHRASE_FILE", str(passphrase_file))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)

    def make(name: str) -> Signer:
        folder = tmp_path / name
        folder.mkdir()
        path = folder / "tree"

        class _Here(Signer):
            def __call__(self, *arguments: str | Path, code: int = 0, json: bool = True) -> Outcome:
                monkeypatch.setenv("OVERAIR_SIGN_DIR", str(self.path))
                return super().__call__(*arguments, code=code, json=json)

        return _Here(path, passphrase_file, capsys)

    return make


@pytest.fixture
def signer(person: Callable[[str], Signer], server: SigningServer, tmp_path: Path) -> Signer:
    """A tree that was begun with a bundle."""
    found = person("alice")
    found("init", server.credentials(tmp_path / "credentials.zip"), found.path)
    return found


@pytest.fixture
def offline(signer: Signer) -> Signer:
    """A tree whose image repository is at the production level, with two root keys and one for targets."""
    signer("keys", "new", "root-1", "root-2", "--role", "root")
    signer("keys", "new", "targets-1", "--role", "targets")
    signer("take-offline", "--yes")
    return signer
