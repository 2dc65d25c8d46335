"""The search index: every three characters in a row of every customer's texts, kept by SQLite itself (FTS5, trigrams).

The second migration makes it, with the triggers that keep it in the transaction of whatever is written: a deletion that
is committed cannot be found any more.
"""

from contextlib import contextmanager
from contextvars import ContextVar

from sqlalchemy import ColumnElement, Engine, bindparam, column, event, literal_column, table

from purge.customers.folding import search_text, sort_text

NAME = "customer_search"
entries = table(NAME, column("rowid"))  # rowid: the customer's id
_erasing: ContextVar[bool] = ContextVar("erasing", default=False)


def prepare_sqlite(engine: Engine) -> None:
    """Every connection knows how a text is folded; without that the triggers let nobody write a customer."""

    @event.listens_for(engine, "connect")
    def connect(connection, _record):
        connection.create_function("search_text", -1, search_text, deterministic=True)
        connection.create_function("sort_text", -1, sort_text, deterministic=True)
        connection.create_function("is_erasing", 0, _erasing.get)


@contextmanager
def erasing():
    """Customers go inside, whole: that a share link of theirs goes first is not written into an entry about to be removed."""
    token = _erasing.set(True)
    try:
        yield
    finally:
        _erasing.reset(token)


def matches(expression: str) -> ColumnElement[bool]:
    """The index entry matches this FTS5 expression."""
    return literal_column(NAME).op("MATCH")(bindparam("expression", expression, unique=True))


def clear_residue(engine: Engine) -> None:
    """Write the index anew, without what was removed from it: until then the entries are only marked as gone."""
    if engine.dialect.name == "sqlite":
        with engine.begin() as connection:
            connection.exec_driver_sql(f"INSERT INTO {NAME} ({NAME}) VALUES ('optimize')")


def in_models(name: str | None, kind: str, _parents: dict) -> bool:
    """For Alembic's `include_name`: the tables in which SQLite keeps the index are no part of the models."""
    return kind != "table" or not (name == NAME or name.startswith(f"{NAME}_"))
