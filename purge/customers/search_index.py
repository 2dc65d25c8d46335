"""The search index: every three characters in a row of every customer's texts, kept by the database itself.

SQLite keeps it in an FTS5 table of trigrams, PostgreSQL in a table of texts with a trigram index (pg_trgm). The second
migration makes it, with the triggers that keep it in the transaction of whatever is written: a deletion that is
committed cannot be found any more.
"""

from collections.abc import Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from enum import IntEnum

from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    and_,
    bindparam,
    column,
    event,
    literal_column,
    not_,
    select,
    table,
)

from purge.customers.folding import SHORTEST_INSIDE, at_start, search_text, sort_text
from purge.erasure.engine import among
from purge.extensions import db

NAME = "customer_search"
entries = table(NAME, column("rowid"), column("text"))  # rowid: the customer's id
_erasing: ContextVar[bool] = ContextVar("erasing", default=False)


class Match(IntEnum):
    """How well every word of a term is met, the best first."""

    WHOLE = 0
    BEGINNING = 1
    INSIDE = 2


def prepare_sqlite(engine: Engine) -> None:
    """Every connection knows how a text is folded; without that the triggers let nobody write a customer."""

    @event.listens_for(engine, "connect")
    def connect(connection, _record):
        connection.create_function("search_text", -1, search_text, deterministic=True)
        connection.create_function("sort_text", -1, sort_text, deterministic=True)
        connection.create_function("is_erasing", 0, _erasing.get)


@contextmanager
def erasing(connection: Connection):
    """Customers go inside, whole: that a share link of theirs goes first is not written into an entry about to be removed."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SET LOCAL purge.erasing = 'yes'")
    token = _erasing.set(True)
    try:
        yield
    finally:
        _erasing.reset(token)


def has(connection: Connection, ids: list[int]) -> bool:
    """Whether it has an entry of any of these customers."""
    theirs = among(entries.c.rowid, ids, connection)
    return connection.execute(select(entries.c.rowid).where(theirs).limit(1)).first() is not None


def at_least(match: Match, words: list[str]) -> ColumnElement[bool]:
    """Of an index entry: it meets every one of these folded words at least this well."""
    if _is_sqlite():
        return _matches(_fts5(match, words))
    return and_(*(_like(match, word) for word in words))


def exactly(match: Match, words: list[str]) -> ColumnElement[bool]:
    """It meets every word at least this well, and not every word better."""
    if match is Match.WHOLE:
        return at_least(match, words)
    better = Match(match - 1)
    if _is_sqlite():
        return _matches(f"({_fts5(match, words)}) NOT ({_fts5(better, words)})")
    return and_(at_least(match, words), not_(at_least(better, words)))


def clear_residue(engine: Engine) -> None:
    """Write the index anew, without what was removed from it: until then the entries are only marked as gone."""
    if engine.dialect.name == "sqlite":
        with engine.begin() as connection:
            connection.exec_driver_sql(f"INSERT INTO {NAME} ({NAME}) VALUES ('optimize')")


def in_models(name: str | None, kind: str, _parents: dict) -> bool:
    """For Alembic's `include_name`: what the search index is kept in, and the index of the names' order, is no part of the models."""
    return not (kind == "table" and (name == NAME or name.startswith(f"{NAME}_"))) and name != "ix_customer_name"


def _is_sqlite() -> bool:
    return db.engine.dialect.name == "sqlite"


def _matches(expression: str) -> ColumnElement[bool]:
    return literal_column(NAME).op("MATCH")(bindparam("expression", expression, unique=True))


def _fts5(match: Match, words: list[str]) -> str:
    if match is Match.INSIDE:
        return _all(map(_inside, words))
    return _all(_phrase(f"{at_start(word)} " if match is Match.WHOLE else at_start(word)) for word in words)


def _inside(word: str) -> str:
    start = _phrase(at_start(word))
    return start if len(word) < SHORTEST_INSIDE else f"({_phrase(word)} OR {start})"


def _all(expressions: Iterable[str]) -> str:
    return " AND ".join(expressions)


def _phrase(text: str) -> str:
    """In quotes, with its own doubled, it is plain text whatever it holds; three characters at least, or nothing is found."""
    return '"' + text.rjust(SHORTEST_INSIDE).replace('"', '""') + '"'


def _like(match: Match, word: str) -> ColumnElement[bool]:
    """Of words with a space before and after each. What LIKE would read as a pattern is plain text."""
    is_inside = match is Match.INSIDE and len(word) >= SHORTEST_INSIDE
    start, end = "" if is_inside else " ", " " if match is Match.WHOLE else ""
    return entries.c.text.contains(f"{start}{word}{end}", autoescape=True)
