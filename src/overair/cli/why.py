"""``overair why THING``: one chain of reasons; with ``--job``, a job's; with ``--may``, the statements that allow or deny one
thing to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

import typer

from overair.basics.errors import NotFound
from overair.cli.ends import CommandEnded, ExitCode
from overair.cli.operator import DATA_DEFAULT, Data, Operator, operator_of, told_plainly
from overair.cli.output import Json, console, print_json
from overair.cli.watch import job_of

RIGHTS: Final[Mapping[str, str]] = {
    "connect": "iot:Connect",
    "publish": "iot:Publish",
    "retain": "iot:RetainPublish",
    "subscribe": "iot:Subscribe",
    "receive": "iot:Receive",
}
"""What a person calls a right → the action. Others are given as AWS spells them."""

_DECISIONS: Final = {"ALLOWED": "allowed", "EXPLICIT_DENY": "denied", "IMPLICIT_DENY": "not allowed by any statement"}


def why(
    thing: Annotated[str, typer.Argument(metavar="NAME", help="The thing's name; with --job, a job's or an update's id.")],
    job: Annotated[bool, typer.Option("--job", help="NAME is a job's or an update's id.")] = False,
    may: Annotated[
        str, typer.Option(help="A right to explain: connect, publish, retain, subscribe, receive, or an action.")
    ] = "",
    on: Annotated[
        str, typer.Option(help="What it is about: a topic, a filter, a client id or a thing. Default: the thing.")
    ] = "",
    client_id: Annotated[str, typer.Option(help="Of the connection. Default: the thing's name.")] = "",
    https: Annotated[bool, typer.Option("--https", help="As over HTTPS, where there is no client id.")] = False,
    data: Data = DATA_DEFAULT,
    json: Json = False,
) -> None:
    """Say why a thing is where it is: offline, queued behind something, refused, or done."""
    with told_plainly():
        if job and (may or on or client_id or https):
            raise CommandEnded(ExitCode.USAGE, "--job is about a job: --may and what belongs to it are about a thing.")
        if may:
            answers = _rights(operator_of(data), thing, may, on or thing, None if https else client_id or thing)
        elif on or client_id or https:
            raise CommandEnded(ExitCode.USAGE, "--on, --client-id and --https belong to --may: say what it may do.")
        elif job:
            operator = operator_of(data)
            answer = operator.client("overair").describe_rollout(jobId=job_of(operator, thing))
        else:
            answer = operator_of(data).client("overair").explain_thing(thingName=thing)
    if may:
        _tell_rights(thing, answers, json=json)
        return
    reasons = list(answer["reasons"])
    if json:
        print_json({"job" if job else "thing": thing, "reasons": reasons})
        return
    console.print(f"[bold]{thing}[/bold]")
    for depth, reason in enumerate(reasons):
        console.print(f"{'   ' * depth}└─ {reason}", soft_wrap=True)


def _rights(operator: Operator, thing: str, may: str, on: str, client_id: str | None) -> list[dict[str, Any]]:
    """An explanation for each certificate of the thing."""
    principals = operator.client("iot").list_thing_principals(thingName=thing)["principals"]
    if not principals:
        raise NotFound(f"{thing} has no certificate, so it may do nothing.", subject="certificate")
    asked = {"action": RIGHTS.get(may, may), "resource": on, **({} if client_id is None else {"clientId": client_id})}
    answers = []
    for principal in principals:
        answer = operator.client("overair").explain_device_rights(principal=principal, **asked)
        answer.pop("ResponseMetadata", None)
        answers.append({"principal": principal, "action": asked["action"], **answer})
    return answers


def _tell_rights(thing: str, answers: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        print_json({"thing": thing, "rights": answers})
        return
    console.print(f"[bold]{thing}[/bold]")
    for answer in answers:
        certificate = str(answer["principal"]).rpartition("/")[2][:12]
        said = f"{answer['action']} on {answer['resource']}: {_DECISIONS[answer['decision']]}"
        console.print(f"└─ certificate {certificate}…, {answer['certificateStatus']}: {said}", soft_wrap=True, markup=False)
        if "blocked" in answer:
            console.print(f"   └─ it is kept out: {answer['blocked']} is blocked", soft_wrap=True, markup=False)
        for each in answer["statements"]:
            name = f", {each['sid']}" if "sid" in each else ""
            where = f"{each['policyName']}, statement {each['number']}{name} (line {each['line']})"
            verb = "allows" if each["effect"] == "Allow" else "denies"
            told = f"{where} {verb} it" if each["applies"] else f"{where} doesn't apply: {each['why']}"
            console.print(f"   └─ {told}", soft_wrap=True, markup=False)
