"""The search index: every three characters in a row of every customer's texts, kept by SQLite itself (FTS5, trigrams).

Triggers keep it, in the transaction of whatever is written, so a deletion that is committed cannot be found any more.
"""

from collections.abc import Iterable

from sqlalchemy import ColumnElement, Connection, Engine, bindparam, column, event, literal_column, table

from purge.customers.folding import search_text, sort_text

NAME = "customer_search"
entries = table(NAME, column("rowid"))  # rowid: the customer's id

_TEXT = (
    "search_text({0}.first_name, {0}.surname, {0}.email, {0}.external_id, "
    "(SELECT group_concat(slug, ' ') FROM share_link WHERE customer_id = {0}.id))"
)
_ADD = f"INSERT INTO {NAME} (rowid, text) "
_REMOVE = f"DELETE FROM {NAME} WHERE rowid = "
_AGAIN = f"{_ADD} SELECT id, {_TEXT.format('customer')} FROM customer WHERE id = new.customer_id;"
_TRIGGERS = {
    "customer_is_found": f"AFTER INSERT ON customer BEGIN {_ADD} VALUES (new.id, {_TEXT.format('new')}); END",
    "customer_is_found_anew": "AFTER UPDATE OF first_name, surname, email, external_id ON customer BEGIN "
    f"{_REMOVE} old.id; {_ADD} VALUES (new.id, {_TEXT.format('new')}); END",
    "customer_is_forgotten": f"AFTER DELETE ON customer BEGIN {_REMOVE} old.id; END",
    "share_link_is_found": f"AFTER INSERT ON share_link BEGIN {_REMOVE} new.customer_id; {_AGAIN} END",
    "share_link_is_found_anew": "AFTER UPDATE OF slug, customer_id ON share_link BEGIN "
    f"{_REMOVE} new.customer_id; {_AGAIN} END",
}


def statements() -> Iterable[str]:
    """What makes the index, and fills it with the customers that are there."""
    # detail=full, its default, lets the index itself see that characters stand in a row; contentless, because the
    # texts stand in the customers already; contentless_delete, because nothing else removes what is purged.
    options = "tokenize = 'trigram case_sensitive 1', content = '', contentless_delete = 1"
    yield f"CREATE VIRTUAL TABLE {NAME} USING fts5 (text, {options})"
    # SQLite would merge the whole index after every tenth of it: a purge of everybody took twice as long. It is
    # written anew when nothing runs.
    yield f"INSERT INTO {NAME} ({NAME}, rank) VALUES ('deletemerge', 0)"
    yield f"{_ADD} SELECT id, {_TEXT.format('customer')} FROM customer"
    yield "CREATE INDEX ix_customer_name ON customer (sort_text(surname, first_name))"
    for name, does in _TRIGGERS.items():
        yield f"CREATE TRIGGER {name} {does}"


def drop_statements() -> Iterable[str]:
    """What takes the index away."""
    for name in _TRIGGERS:
        yield f"DROP TRIGGER {name}"
    yield "DROP INDEX ix_customer_name"
    yield f"DROP TABLE {NAME}"


def holds(table_name: str) -> bool:
    """The table is the index's own, made by SQLite and no part of the models."""
    return table_name == NAME or table_name.startswith(f"{NAME}_")


def prepare_sqlite(engine: Engine) -> None:
    """Every connection knows how a text is folded; without that the triggers let nobody write a customer."""

    @event.listens_for(engine, "connect")
    def connect(connection, _record):
        connection.create_function("search_text", -1, search_text, deterministic=True)
        connection.create_function("sort_text", -1, sort_text, deterministic=True)


def matches(expression: str) -> ColumnElement[bool]:
    """The index entry matches this FTS5 expression."""
    return literal_column(NAME).op("MATCH")(bindparam("expression", expression, unique=True))


def clear_residue(connection: Connection) -> None:
    """Write the index anew, without what was removed from it: until then the entries are only marked as gone."""
    connection.exec_driver_sql(f"INSERT INTO {NAME} ({NAME}) VALUES ('optimize')")
