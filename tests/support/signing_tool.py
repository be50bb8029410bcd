"""``overair sign`` with a tree of one person's own, run in this process as the command line would run it."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from overair.cli.ends import CommandEnded
from overair.cli.sign import app, sealed_box
from tests.support.server_process import ServerProcess

_COMMAND = get_command(app)


class Ended(AssertionError):
    """A command that ended otherwise than the test expected."""


class SigningTool:
    """Keys are sealed as ever, but cheaply to guess: what a passphrase costs is tested elsewhere."""

    def __init__(self, server: ServerProcess, folder: Path, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(sealed_box, "SCRYPT_N", 2**4)
        patch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        folder.mkdir(parents=True)
        passphrase_file = folder / "passphrase"
        passphrase_file.write_text("four words in a row\n")
        patch.setenv("OVERAIR_SIGN_PASSPHRASE_FILE", str(passphrase_file))
        self.folder = folder
        self.run("init", "--data", str(server.data), str(self._tree), in_tree=False)

    @property
    def _tree(self) -> Path:
        return self.folder / "tree"

    def copy(self, folder: Path) -> SigningTool:
        """A colleague with the same keys, in a folder of their own."""
        shutil.copytree(self.folder, folder)
        other = copy.copy(self)
        other.folder = folder
        return other

    def run(self, *words: str, code: int = 0, in_tree: bool = True) -> Any:
        """One command; its JSON.

        Raises:
            Ended: its exit code isn't ``code``.
        """
        said, told = io.StringIO(), io.StringIO()
        ended, message = 0, ""
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told):
            try:
                more = ["--dir", str(self._tree)] if in_tree else []
                _COMMAND.main([*words, *more, "--json"], standalone_mode=False)
            except CommandEnded as end:
                ended, message = int(end.code), end.message
        if ended != code:
            raise Ended(f"sign {' '.join(words)} ended with {ended}: {message}\n{told.getvalue()}\n{said.getvalue()}")
        return json.loads(said.getvalue()) if said.getvalue().strip() else {}

    def keys(self, role: str, *names: str) -> None:
        self.run("keys", "new", *names, "--role", role)

    def take_offline(self) -> None:
        """Two keys for root, one for targets; the server forgets its own."""
        self.keys("root", "root-1", "root-2")
        self.keys("targets", "targets-1")
        self.run("take-offline", "--yes")

    def add(self, name: str, content: bytes, *hardware_ids: str, more: Sequence[str] = ()) -> str:
        """An image, uploaded and named in the draft; its target's name."""
        path = self.folder / f"{name}.bin"
        path.write_bytes(content)
        hardware = [word for hardware_id in hardware_ids for word in ("--hardware-id", hardware_id)]
        return str(self.run("add", str(path), "--name", name, "--version", "1.0", *hardware, *more)["target"])

    def push(self, *words: str) -> Any:
        return self.run("push", *words)
