"""Provisioning templates. Input: a template, then names and values of parameters by turns, NUL between them.

Held: a template is read, and worked out, or refused with ``InvalidRequest``; twice gives the same plan; names and texts of the
plan keep their bounds; parameters that only the server gives can't be given; the work is bounded by the template's size.
"""

from __future__ import annotations

import json
import sys
from types import FrameType
from typing import Any

from overair.basics.errors import InvalidRequest
from overair.server.provisioning.template_functions import TEXT_LENGTH_MAX
from overair.server.provisioning.template_language import Template
from tests.fuzz.refusals import says_why

CALLS_MAX = 60_000
"""Calls of functions for one plan: a template of 10 KiB has room for some thousand expressions."""


def fuzz_one(data: bytes) -> None:
    body, *rest = data.decode("utf-8", "replace").split("\0")
    parameters = dict(zip(rest[:20:2], rest[1:20:2], strict=False))
    try:
        template = Template.read(body)
    except InvalidRequest as refused:
        says_why(refused)
        return
    assert Template.read(json.dumps(json.loads(body))) == template or len(json.dumps(json.loads(body))) > 10_240
    try:
        plan = counted(lambda: template.resolve(parameters))
    except InvalidRequest as refused:
        says_why(refused)
        return
    assert template.resolve(parameters) == plan
    for text in plan.device_configuration.values():
        assert len(text) <= max(TEXT_LENGTH_MAX, *(len(each) for each in (*rest, body)))
    if plan.thing is not None:
        assert 1 <= len(plan.thing.name) <= 128
        assert plan.thing.name.isascii()


def counted(act: Any) -> Any:
    """Do it, and count the calls, unless somebody else watches them."""
    if sys.getprofile() is not None:
        return act()
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        return act()
    finally:
        sys.setprofile(None)
        assert calls <= CALLS_MAX, f"{calls} calls for one template"
