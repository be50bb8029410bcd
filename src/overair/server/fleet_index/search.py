"""Questions to an index: who is like that, and what do their fields come to?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from overair.basics.errors import InvalidRequest
from overair.basics.ids import AccountId
from overair.basics.work import Tx
from overair.server.fleet_index.configurations import Configurations, require_fields
from overair.server.fleet_index.fields import EVERY_JOB, JOBS, VERSION, Field, FieldType, Index, resolve
from overair.server.fleet_index.model import Configuration, Found, Statistics
from overair.server.fleet_index.ports import DocumentStore
from overair.server.fleet_index.query import Query, parse

T = TypeVar("T")

PERCENTS_DEFAULT: Final = (1.0, 5.0, 25.0, 50.0, 75.0, 95.0, 99.0)
PERCENTS_MAX: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A query to one index of an account."""

    account: AccountId
    index: Index
    text: str


class Searches:
    """Answers from the index as it stands.

    Raises, everywhere: ``InvalidRequest`` (subjects ``query``, ``aggregation``), ``NotFound(subject="index")``,
    ``Conflict(subject="index")``.
    """

    def __init__(self, *, documents: DocumentStore, configurations: Configurations) -> None:
        self._documents = documents
        self._configurations = configurations

    def search(self, tx: Tx, question: Question, *, after: str, limit: int) -> tuple[Sequence[Found], bool]:
        """The next documents by name, at most ``limit``; and whether there are more."""
        _, query = self._ready(tx, question)
        account, index = question.account, question.index
        names = self._documents.search(tx, account, index, query, after=after, limit=limit + 1)
        return self._documents.found(tx, account, index, names[:limit]), len(names) > limit

    def statistics(self, tx: Tx, question: Question, field: str | None) -> Statistics:
        """What the numbers of a field come to; of text, only how many have it."""
        return self._aggregated(
            tx, question, field, lambda query, known: self._documents.statistics(tx, *_of(question), query, known)
        )

    def cardinality(self, tx: Tx, question: Question, field: str | None) -> int:
        """How many different values a field has."""
        return self._aggregated(
            tx, question, field, lambda query, known: self._documents.cardinality(tx, *_of(question), query, known)
        )

    def percentiles(
        self, tx: Tx, question: Question, field: str | None, percents: Sequence[float] | None
    ) -> Sequence[tuple[float, float]]:
        """The value below which each of these percentages of the numbers lies."""
        wanted = tuple(percents) if percents else PERCENTS_DEFAULT
        if len(wanted) > PERCENTS_MAX:
            raise InvalidRequest(f"At most {PERCENTS_MAX} percentiles are told at once.", subject="aggregation")

        def ask(query: Query, known: Field) -> Sequence[tuple[float, float]]:
            if known.type is not FieldType.NUMBER:
                raise InvalidRequest(
                    f"Percentiles need a field of type Number; {known.name} is {known.type.value}.", subject="aggregation"
                )
            return self._documents.percentiles(tx, *_of(question), query, known, wanted)

        return self._aggregated(tx, question, field, ask)

    def buckets(self, tx: Tx, question: Question, field: str, *, limit: int) -> tuple[int, Sequence[tuple[str, int]]]:
        """How many documents meet the query, and the commonest values of a field among them."""

        def ask(query: Query, known: Field) -> tuple[int, Sequence[tuple[str, int]]]:
            total = self._documents.count(tx, *_of(question), query)
            return total, self._documents.buckets(tx, *_of(question), query, known, limit=limit)

        return self._aggregated(tx, question, field, ask)

    # ----------------------------------------------------------------------------------------------------------------------

    def _ready(self, tx: Tx, question: Question) -> tuple[Configuration, Query]:
        query = resolve(parse(question.text), question.index)
        configuration = self._configurations.searchable(tx, question.account, question.index)
        if question.index is Index.THINGS:
            require_fields(query, configuration)
        return configuration, query

    def _aggregated(self, tx: Tx, question: Question, field: str | None, ask: Callable[[Query, Field], T]) -> T:
        configuration, query = self._ready(tx, question)
        return ask(query, _known(configuration, question.index, field))


def _of(question: Question) -> tuple[AccountId, Index]:
    return question.account, question.index


def _known(configuration: Configuration, index: Index, name: str | None) -> Field:
    if name is None:
        if index is Index.GROUPS:
            raise InvalidRequest("Say an aggregationField: groups have no version in the index.", subject="aggregation")
        name = VERSION
    for field in (*configuration.managed(index), *configuration.custom(index)):
        if name in (field.name, field.name.removeprefix("registry.")) and name != EVERY_JOB:
            return field
    if name.startswith(JOBS) and name != EVERY_JOB and index is Index.THINGS and configuration.has_job(name):
        return Field(name, FieldType.STRING)
    raise InvalidRequest(
        f"{name[:160]} can't be aggregated: it is neither a managed field nor a custom field of the indexing configuration.",
        subject="aggregation",
    )
