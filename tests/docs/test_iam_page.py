"""docs/iam.md names every operation of IAM and STS that the server has, and none that it hasn't."""

from __future__ import annotations

import re
from pathlib import Path

from overair.server.access.actions import operation_table
from overair.server.access.aws_managed import DOCUMENTS, PREFIX
from overair.server.aws_protocol.models import load_model

PAGE = Path(__file__).parents[2] / "docs" / "iam.md"


def test_the_page_names_what_is_here_and_nothing_else() -> None:
    here, _, rest = PAGE.read_text().partition("| not here | why |")
    table = re.search(r"\| of \| here \|.*", here, re.DOTALL)
    assert table is not None
    named = re.findall(r"`(\w+)`", table.group())
    offered = {operation for service, operation in operation_table() if service in ("iam", "sts")}
    assert sorted(named) == sorted(offered)
    absent = set(re.findall(r"`(\w+)`", rest.partition("Policies that every account")[0]))
    modelled = set(load_model("iam").operations) | set(load_model("sts").operations)
    assert not absent & offered
    assert absent <= modelled


def test_the_page_names_every_policy_that_stands_ready() -> None:
    text = PAGE.read_text().partition("Policies that every account finds ready")[2].partition("##")[0]
    named = set(re.findall(r"`((?:service-role/)?[A-Z]\w+)`", text))
    assert named == {arn.removeprefix(f"{PREFIX}/") for arn in DOCUMENTS}
