"""What operations of the plain REST engine need: ``("overair", operation)`` → needs, as everywhere (``actions.py``).

Members are the route's labels and its query parameters; nothing of the body. Add a row for each ``@route(operation=…)``:

    ("overair", "PutTarget"): (need("overair:PutTarget", on=iot("uptanetarget/{name}")),),
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overair.server.access.actions import Need

TABLE: Final[Mapping[tuple[str, str], tuple[Need, ...]]] = {}
