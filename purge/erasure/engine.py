"""The only irreversible code: erases a set of customers, set-based, and makes sure that nothing is left."""

import json
from collections import Counter
from collections.abc import Callable

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Select,
    any_,
    cast,
    column,
    delete,
    func,
    literal,
    select,
    table,
    update,
)
from sqlalchemy.types import NullType

from purge.erasure.map import Action, ErasureMap, TableErasure

Chosen = Callable[[Column], ColumnElement[bool]]
_CHOSEN = table("chosen", column("id"))


class NotErased(Exception):
    """Something of a customer was still there after the deletion."""


def erase(connection: Connection, erasure: ErasureMap, ids: list[int]) -> dict[str, int]:
    """Erase these customers inside the caller's transaction; rows deleted or made anonymous, by table."""
    chosen, customer = _choose(connection, ids), erasure.customer
    erased = {part.table.name: _erase_from(connection, part, chosen) for part in erasure.tables if not part.is_shared}
    erased[customer.name] = connection.execute(delete(customer).where(chosen(customer.c.id))).rowcount
    # Last, and not for longer than need be: another worker's customers may be the other half of these rows.
    erased |= {part.table.name: _erase_from(connection, part, chosen) for part in erasure.tables if part.is_shared}
    _verify(connection, erasure, len(ids), chosen, erased)
    return erased


def count(connection: Connection, erasure: ErasureMap, ids: Select) -> dict[str, int]:
    """What `erase` would touch: rows by table, and by column where a value is replaced. `ids` selects each customer once."""
    counted = {}
    for part in erasure.tables:
        counted |= count_in(connection, part, ids)
    return counted


def count_in(connection: Connection, part: TableErasure, ids: Select) -> dict[str, int]:
    """The same of one table."""
    counted, chosen = Counter(), ids.subquery()
    (id,) = chosen.c
    replaced = {column: to for column, to in part.anonymised.items() if to is not None}
    columns = [func.count()] + [func.count().filter(column.is_distinct_from(to)) for column, to in replaced.items()]
    names = [part.table.name] + [f"{part.table.name}.{column.name}" for column in replaced]
    for link in part.links:
        rows = connection.execute(select(*columns).join_from(chosen, part.table, link == id)).one()
        counted.update(dict(zip(names, rows, strict=True)))
    return dict(counted)


def among(column: Column, values: list[int], connection: Connection) -> ColumnElement[bool]:
    """`column` is one of `values`, however many: they travel as one parameter, and as a text, which costs the least."""
    if connection.dialect.name == "sqlite":
        return column.in_(select(func.json_each(json.dumps(values)).table_valued("value").c.value))
    return column == any_(_array(values))


def _choose(connection: Connection, ids: list[int]) -> Chosen:
    """What says of a column that it holds one of these ids. SQLite gets them as a table: it would unpack a parameter
    anew in each of the thirty statements."""
    if connection.dialect.name != "sqlite":
        array = _array(ids)
        return lambda column: column == any_(array)
    connection.exec_driver_sql("CREATE TEMP TABLE IF NOT EXISTS chosen (id INTEGER PRIMARY KEY)")
    connection.exec_driver_sql("DELETE FROM chosen")
    connection.exec_driver_sql("INSERT INTO chosen SELECT value FROM json_each(?)", (json.dumps(ids),))
    return lambda column: column.in_(select(_CHOSEN.c.id))


def _array(values: list[int]) -> ColumnElement:
    """PostgreSQL's. Not told to be a text: the planner could not look into that, and read whole tables to be safe."""
    return cast(literal(f"{{{','.join(map(str, values))}}}", NullType()), ARRAY(BigInteger))


def _erase_from(connection: Connection, part: TableErasure, chosen: Chosen) -> int:
    if part.rule.action is Action.DELETE:
        return sum(connection.execute(delete(part.table).where(chosen(link))).rowcount for link in part.links)
    emptied = {column.name: to for column, to in part.anonymised.items()}
    return sum(
        connection.execute(update(part.table).where(chosen(link)).values({link.name: None, **emptied})).rowcount
        for link in part.links
    )


def _verify(connection: Connection, erasure: ErasureMap, wanted: int, chosen: Chosen, erased: dict[str, int]) -> None:
    """Look again, table by table; a foreign key that nobody enforces would leave half a person behind."""
    if erased[erasure.customer.name] != wanted:
        raise NotErased(f"{wanted} customers were to go, {erased[erasure.customer.name]} went")
    for link in (erasure.customer.c.id, *(link for part in erasure.tables for link in part.links)):
        if connection.execute(select(literal(1)).where(chosen(link)).limit(1)).first():
            raise NotErased(f"{link.table.name}.{link.name} still leads to a customer who was to go")
