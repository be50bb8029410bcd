"""``overair status``: what the server is, who may sign, and what a thief of it could do."""

from __future__ import annotations

from overair.cli.operator import DATA_DEFAULT, Data, operator_of, told_plainly
from overair.cli.output import Json, console, print_json


def status(data: Data = DATA_DEFAULT, json: Json = False) -> None:
    """Say what runs, who signs, how keys rest, and how many devices are where."""
    with told_plainly():
        operator = operator_of(data)
        told = operator.client("overair").describe_server()
    told.pop("ResponseMetadata", None)
    document = {"operator_url": operator.endpoints.operator_url, **told}
    if json:
        print_json(document)
        return
    console.print(document)
