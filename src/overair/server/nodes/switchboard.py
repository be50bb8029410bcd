"""Who listens to what of the bus."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from overair.basics.work import News

logger = structlog.get_logger("overair.nodes")

Heard = Callable[[Sequence[str]], None]
"""Given the parts of a piece of news. None at all: what it said didn't fit, or was missed; then it concerns everything."""


class Switchboard:
    """From the bus to the rooms, on the event loop. Rooms are registered at composition."""

    def __init__(self, name: str) -> None:
        """``name``: of this node."""
        self._name = name
        self._heard: dict[str, Heard] = {}
        self._echoed: dict[str, Callable[[str, Sequence[str]], None]] = {}

    def on(self, kind: str, heard: Heard) -> None:
        """Register who hears what the other nodes say of this kind. Our own commits have done the same by themselves."""
        self._once(kind)
        self._heard[kind] = heard

    def on_every(self, kind: str, heard: Callable[[str, Sequence[str]], None]) -> None:
        """Register who hears all of this kind, our own too, each with its teller: for what is decided by the order of the bus.
        Not called for what was missed."""
        self._once(kind)
        self._echoed[kind] = heard

    def hear(self, teller: str, news: News) -> None:
        """One piece of news. What nobody here listens to, such as the words of a newer version, passes."""
        try:
            if (echoed := self._echoed.get(news.kind)) is not None:
                echoed(teller, news.parts)
            elif teller != self._name and (heard := self._heard.get(news.kind)) is not None:
                heard(news.parts)
        except Exception:
            # One listener's mistake must not keep the others from hearing.
            logger.exception("news could not be taken in", kind=news.kind)

    def missed(self) -> None:
        """Something may have been said that wasn't heard: whatever could be old goes."""
        for kind, heard in self._heard.items():
            try:
                heard(())
            except Exception:
                logger.exception("what may be old could not be dropped", kind=kind)

    def _once(self, kind: str) -> None:
        if kind in self._heard or kind in self._echoed:
            raise RuntimeError(f"Two listen to news of kind {kind}.")
