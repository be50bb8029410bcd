"""``overair resend THING``: a device that was reset gets its updates once more, though nothing has shown it yet."""

from __future__ import annotations

from typing import Annotated

import typer

from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json


def resend(
    thing: Annotated[str, typer.Argument(help="The thing's name.")], data: Data = DATA_DEFAULT, json: Json = False
) -> None:
    """Give a device that was reset the CONTINUOUS updates of its groups once more."""
    with told_plainly():
        jobs = list(operator_of(data).client("overair").resend_continuous_jobs(thingName=thing)["jobIds"])
    if json:
        print_json({"thing": thing, "jobs": jobs})
        return
    if not jobs:
        console.print(
            f"Nothing comes to {thing} again: no running CONTINUOUS job of its groups has ended for it. "
            f"What it waits for: overair why {thing}; another image: overair ship IMAGE --to {thing}.",
            soft_wrap=True,
        )
        return
    console.print(f"{thing} gets {len(jobs):,} update{'' if len(jobs) == 1 else 's'} once more:", soft_wrap=True)
    for job in jobs:
        console.print(f"  {job}", soft_wrap=True)
