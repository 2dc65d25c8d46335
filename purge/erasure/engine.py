"""The only irreversible code: erases a set of customers, set-based, leaves first, and makes sure that nothing is left."""

import json
from collections import Counter

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Select,
    String,
    any_,
    delete,
    func,
    literal,
    select,
    update,
)

from purge.erasure.map import Action, ErasureMap, TableErasure


class NotErased(Exception):
    """Something of a customer was still there after the deletion."""


def erase(connection: Connection, erasure: ErasureMap, ids: list[int]) -> dict[str, int]:
    """Erase these customers inside the caller's transaction; rows deleted or made anonymous, by table."""
    erased = {part.table.name: _erase_from(connection, part, ids) for part in erasure.tables}
    customer = erasure.customer
    erased[customer.name] = connection.execute(delete(customer).where(among(customer.c.id, ids, connection))).rowcount
    _verify(connection, erasure, ids, erased)
    return erased


def count(connection: Connection, erasure: ErasureMap, ids: Select) -> dict[str, int]:
    """What `erase` would touch for the customers `ids` selects: rows by table, and by column where a value is replaced."""
    counted = Counter()
    for part in erasure.tables:
        replaced = {column: to for column, to in part.anonymised.items() if to is not None}
        columns = [func.count()] + [func.count().filter(column.is_distinct_from(to)) for column, to in replaced.items()]
        names = [part.table.name] + [f"{part.table.name}.{column.name}" for column in replaced]
        for link in part.links:
            rows = connection.execute(select(*columns).select_from(part.table).where(link.in_(ids))).one()
            counted.update(dict(zip(names, rows, strict=True)))
    return dict(counted)


def among(column: Column, values: list, connection: Connection) -> ColumnElement[bool]:
    """`column` is one of `values`, however many: they travel as one parameter."""
    if connection.dialect.name == "sqlite":
        return column.in_(select(func.json_each(json.dumps(values)).table_valued("value").c.value))
    kind = String if isinstance(column.type, String) else BigInteger
    return column == any_(literal(values, ARRAY(kind)))


def _erase_from(connection: Connection, part: TableErasure, ids: list[int]) -> int:
    if part.rule.action is Action.DELETE:
        return sum(
            connection.execute(delete(part.table).where(among(link, ids, connection))).rowcount for link in part.links
        )
    emptied = {column.name: to for column, to in part.anonymised.items()}
    return sum(
        connection.execute(
            update(part.table).where(among(link, ids, connection)).values({link.name: None, **emptied})
        ).rowcount
        for link in part.links
    )


def _verify(connection: Connection, erasure: ErasureMap, ids: list[int], erased: dict[str, int]) -> None:
    """Look again, table by table; a foreign key that nobody enforces would leave half a person behind."""
    if erased[erasure.customer.name] != len(ids):
        raise NotErased(f"{len(ids)} customers were to go, {erased[erasure.customer.name]} went")
    for link in (erasure.customer.c.id, *(link for part in erasure.tables for link in part.links)):
        if connection.execute(select(literal(1)).where(among(link, ids, connection)).limit(1)).first():
            raise NotErased(f"{link.table.name}.{link.name} still leads to a customer who was to go")
