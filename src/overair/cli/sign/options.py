"""Options that several commands of ``overair sign`` share, and the desk that they work at."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Final

import typer

from overair.basics.clock import WallClock
from overair.basics.ids import RandomIds
from overair.cli.output import console
from overair.cli.sign.desk import Desk
from overair.cli.sign.ends import ending, usage
from overair.cli.sign.passphrases import Secrets
from overair.cli.sign.server import RestServer, Server
from overair.cli.sign.tree import Tree
from overair.wire.uptane.metadata import Repository

TREE_DEFAULT: Final = Path("overair-sign")

Dir = Annotated[Path, typer.Option("--dir", envvar="OVERAIR_SIGN_DIR", help="The signing tree.")]
Which = Annotated[Repository, typer.Option("--repository", help="image or director.")]
PassphraseFile = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="File with the passphrase of the keys. [env: OVERAIR_SIGN_PASSPHRASE_FILE]"),
]
PinFile = Annotated[Path | None, typer.Option("--pin-file", help="File with the token's PIN. [env: OVERAIR_SIGN_PIN_FILE]")]
KeyNames = Annotated[list[str] | None, typer.Option("--key", help="Sign with this key only; may be repeated.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do it; without, nothing is changed.")]
Days = Annotated[
    int | None, typer.Option("--days", help="How long what is signed shall count. [default: root 365, targets 90]")
]


def connect(tree: Tree) -> Server:
    return RestServer(tree.config, tree.ca_file, clock=WallClock())


def tell_error(line: str) -> None:
    """What people should see though it isn't the answer: on standard error, so that ``--json`` stays one document."""
    print(plain(line), file=sys.stderr)


def plain(line: str) -> str:
    """Without characters that would steer a terminal: names come from documents and servers."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)


@contextmanager
def desk_at(
    directory: Path, as_json: bool, *, passphrase_file: Path | None = None, pin_file: Path | None = None
) -> Iterator[Desk]:
    """The desk of a tree, held for one command."""
    with ending(as_json):
        tree = Tree(directory)
        with tree.held():
            yield desk_of(tree, secrets_from(passphrase_file, pin_file))


def desk_of(tree: Tree, secrets: Secrets) -> Desk:
    return Desk(tree, clock=WallClock(), ids=RandomIds(), secrets=secrets, connect=connect, tell=tell_error)


def secrets_from(passphrase_file: Path | None, pin_file: Path | None = None) -> Secrets:
    return Secrets(passphrase_file=passphrase_file, pin_file=pin_file)


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether somebody said yes.

    Raises:
        SignEnded: USAGE: there is nobody to ask.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise usage(f"{question} There is no terminal to ask: say --yes.")
    return typer.confirm(question)


def show(lines: list[str], *, indent: str = "") -> None:
    for line in lines:
        console.print(f"{indent}{plain(line)}", soft_wrap=True, markup=False)
