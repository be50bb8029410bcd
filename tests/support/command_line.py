"""Commands in this process: the same tables, flags and clients as in one of their own, without what each start would read."""

from __future__ import annotations

import functools
from typing import Any

import botocore.session
import pytest
import typer
from botocore.loaders import Loader, create_loader
from typer.testing import CliRunner

from overair.cli.main import application


def invoke(*arguments: object, answer: str | None = None) -> Any:
    """One ``overair`` command to its end (typer's ``Result``); ``answer``: what is typed when it asks."""
    words = [str(each) for each in arguments]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.session, "create_loader", _kept_loader)
        return CliRunner().invoke(_alone(words[0]), words, input=answer)


@functools.cache
def _alone(command: str) -> typer.Typer:
    """As ``main`` makes it: all the others take longer than most of them run."""
    return application(command)


@functools.cache
def _kept_loader(search_path: str | None = None) -> Loader:
    """Services' models are read once, not anew by each command."""
    return create_loader(search_path)
