"""One unit of work as rooms' stores see it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy.engine import Connection

from overair.basics.work import News, Notice, NoticeToMany


class SqlTx:
    """A ``basics.work.Tx`` over SQL.

    Attributes:
        connection: For statements only: nobody but the writer begins, commits or rolls back.
        driver: The driver's own connection below it, for ``HotStatement``.
    """

    __slots__ = ("actions", "connection", "driver", "news", "notices", "writable")

    def __init__(self, connection: Connection, driver: Any, *, writable: bool) -> None:
        self.connection = connection
        self.driver = driver
        self.writable = writable
        self.notices: list[Notice | NoticeToMany] = []
        self.actions: list[Callable[[], None]] = []
        self.news: list[News] = []

    def publish(self, notice: Notice | NoticeToMany) -> None:
        if not self.writable:
            raise RuntimeError("A read has nothing to announce: use work.run.")
        self.notices.append(notice)

    def after_commit(self, action: Callable[[], None]) -> None:
        if not self.writable:
            raise RuntimeError("A read commits nothing: use work.run.")
        self.actions.append(action)

    def tell_nodes(self, news: News) -> None:
        if not self.writable:
            raise RuntimeError("A read changes nothing that others would have to hear: use work.run.")
        self.news.append(news)
