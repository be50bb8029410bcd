"""What a command prints: words for people, or one JSON document with ``--json``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document in place of words.")]

console = Console(highlight=False)
"""Standard output; plain text where it isn't a terminal."""


def print_json(document: Mapping[str, Any]) -> None:
    """One document on standard output, keys in the order given (``docs/commands.md`` names them)."""
    sys.stdout.write(json.dumps(document, indent=2, default=str) + "\n")
