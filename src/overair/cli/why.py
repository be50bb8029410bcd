"""``overair why THING``: one chain of reasons."""

from __future__ import annotations

from typing import Annotated

import typer

from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json


def why(thing: Annotated[str, typer.Argument(help="The thing's name.")], data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Say why a thing is where it is: offline, queued behind something, refused, or done."""
    with told_plainly():
        answer = operator_of(data).client("overair").explain_thing(thingName=thing)
    reasons = list(answer["reasons"])
    if json:
        print_json({"thing": thing, "reasons": reasons})
        return
    console.print(f"[bold]{thing}[/bold]")
    for depth, reason in enumerate(reasons):
        console.print(f"{'   ' * depth}└─ {reason}", soft_wrap=True)
