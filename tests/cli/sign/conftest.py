"""A signing tree beside a small server over real HTTPS; commands run in this process, as the command line would run them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from overair.agent.durable import Disk
from overair.cli.ends import CommandEnded
from overair.cli.sign import app, sealed_box
from tests.support.signing_server import SigningServer
from tests.support.soft_token import LIBRARY, PIN, softhsm

PASSPHRASE = "four words in a row"
COMMAND = get_command(app)
"""Built once: the library would look at every signature anew for each run."""


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
            COMMAND.main([*words, *(["--json"] if json else [])], standalone_mode=False)
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
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guesses cost nothing here, and nobody waits for a disk: what must be durable when is asked in `test_taking_offline`."""
    monkeypatch.setattr(sealed_box, "SCRYPT_N", 2**4)
    monkeypatch.setattr(Disk, "sync", lambda self, descriptor: None)
    monkeypatch.setattr(Disk, "sync_directory", lambda self, directory: None)


@dataclass
class Prepared:
    """What many tests begin with, made once: the server and trees beside it, at each level."""

    server: SigningServer
    states: dict[str, Any] = field(default_factory=dict)
    trees: dict[str, Path] = field(default_factory=dict)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prepared]:
    folder = tmp_path_factory.mktemp("signing-server")
    server = SigningServer(folder)
    found = Prepared(server)
    (folder / "passphrase").write_text(PASSPHRASE + "\n")
    tree = folder / "tree"
    before, sealed_box.SCRYPT_N = sealed_box.SCRYPT_N, 2**4  # type: ignore[misc]

    def run(*arguments: str | Path) -> None:
        words = [str(argument) for argument in arguments]
        COMMAND.main(
            [*words, "--dir", str(tree), "--passphrase-file", str(folder / "passphrase"), "--json"], standalone_mode=False
        )

    def keep(level: str) -> None:
        found.states[level] = server.state()
        found.trees[level] = Path(shutil.copytree(tree, folder / level))

    try:
        COMMAND.main(["init", str(server.credentials(folder / "c.zip")), str(tree), "--json"], standalone_mode=False)
        keep("default")
        run("keys", "new", "root-1", "root-2", "--role", "root")
        run("keys", "new", "targets-1", "--role", "targets")
        run("take-offline", "--yes")
        keep("production")
        sealed_box.SCRYPT_N = before  # type: ignore[misc]
        yield found
    finally:
        sealed_box.SCRYPT_N = before  # type: ignore[misc]
        server.close()


@pytest.fixture
def server(prepared: Prepared) -> SigningServer:
    """At the default level."""
    prepared.server.back_to(prepared.states["default"])
    return prepared.server


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
def signer(person: Callable[[str], Signer], server: SigningServer, prepared: Prepared) -> Signer:
    """A tree that was begun with a bundle."""
    found = person("alice")
    shutil.copytree(prepared.trees["default"], found.path)
    return found


@pytest.fixture
def offline(person: Callable[[str], Signer], server: SigningServer, prepared: Prepared) -> Signer:
    """A tree whose image repository is at the production level, with two root keys and one for targets."""
    server.back_to(prepared.states["production"])
    found = person("alice")
    shutil.copytree(prepared.trees["production"], found.path)
    return found


@pytest.fixture(scope="session")
def token() -> str:
    softhsm()
    return f"token=overair;object={{}}?module-path={LIBRARY}"


@pytest.fixture
def pin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "pin"
    path.write_text(PIN + "\n")
    monkeypatch.setenv("OVERAIR_SIGN_PIN_FILE", str(path))
    return path
