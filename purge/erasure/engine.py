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
    Engine,
    Select,
    any_,
    cast,
    column,
    delete,
    func,
    literal,
    select,
    table,
    text,
    update,
)
from sqlalchemy.types import NullType

from purge.erasure.map import Action, ErasureMap, TableErasure

Chosen = Callable[[Column], ColumnElement[bool]]
_CHOSEN = table("chosen", column("id"))

# Foreign keys that PostgreSQL itself has looked at for each customer deleted, when the DELETE is through: not put off, and
# all four of its triggers fire in this session.
_HELD = """
SELECT child.relname, link.attname FROM pg_constraint AS held
JOIN pg_class AS child ON child.oid = held.conrelid
JOIN pg_attribute AS link ON link.attrelid = held.conrelid AND link.attnum = held.conkey[1]
WHERE held.contype = 'f' AND held.confrelid = to_regclass(:customer) AND pg_table_is_visible(child.oid)
AND held.convalidated AND NOT held.condeferrable AND current_setting('session_replication_role') <> 'replica'
AND (SELECT count(*) FROM pg_trigger WHERE tgconstraint = held.oid AND tgenabled IN ('O', 'A')) = 4
"""


class NotErased(Exception):
    """Something of a customer was still there after the deletion."""


def erase(connection: Connection, erasure: ErasureMap, ids: list[int]) -> dict[str, int]:
    """Erase these customers inside the caller's transaction; rows deleted or made anonymous by table, and by column
    where a value was replaced."""
    chosen, customer, erased = _choose(connection, ids), erasure.customer, Counter()
    for part in erasure.tables:
        if not part.is_shared:
            _erase_from(connection, part, chosen, erased)
    erased[customer.name] = connection.execute(delete(customer).where(chosen(customer.c.id))).rowcount
    # Last, and not for longer than need be: another worker's customers may be the other half of these rows.
    for part in erasure.tables:
        if part.is_shared:
            _erase_from(connection, part, chosen, erased)
    _verify(connection, erasure, len(ids), chosen, erased)
    return dict(erased)


def count(connection: Connection, erasure: ErasureMap, ids: Select) -> dict[str, int]:
    """What `erase` would touch, and say so. `ids` selects each customer once."""
    counted = {}
    for part in erasure.tables:
        counted |= count_in(connection, part, ids)
    return counted


def count_in(connection: Connection, part: TableErasure, ids: Select) -> dict[str, int]:
    """The same of one table."""
    counted, chosen = Counter(), ids.subquery()
    (id,) = chosen.c
    changed = [func.count().filter(value.is_distinct_from(to)) for value, to in part.replaced.items()]
    names = [part.table.name, *map(str, part.replaced)]
    for link in part.links:
        rows = connection.execute(select(func.count(), *changed).join_from(chosen, part.table, link == id)).one()
        counted.update(dict(zip(names, rows, strict=True)))
    return dict(counted)


def among(column: Column, values: list[int], bind: Connection | Engine) -> ColumnElement[bool]:
    """`column` is one of `values`, however many: they travel as one parameter, and as a text, which costs the least."""
    if bind.dialect.name == "sqlite":
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


def _erase_from(connection: Connection, part: TableErasure, chosen: Chosen, erased: Counter) -> None:
    for link in part.links:
        theirs = chosen(link)
        if part.rule.action is Action.DELETE:
            erased[part.table.name] += connection.execute(delete(part.table).where(theirs)).rowcount
            continue
        forget = {**dict.fromkeys([link, *part.emptied]), **part.replaced}
        # Each replaced value on its own, to be counted; the last with all the rest, so that no row is written twice.
        for number, (value, to) in enumerate(part.replaced.items(), 1):
            is_last = number == len(part.replaced)
            these = update(part.table).where(theirs, value.is_distinct_from(to))
            changed = connection.execute(these.values(forget if is_last else {value: to})).rowcount
            erased.update({str(value): changed, part.table.name: changed if is_last else 0})
        # Those that are left, and what somebody else committed meanwhile.
        forget_rest = update(part.table).where(theirs).values(forget)
        erased[part.table.name] += connection.execute(forget_rest).rowcount


def _verify(connection: Connection, erasure: ErasureMap, wanted: int, chosen: Chosen, erased: Counter) -> None:
    """Look again, table by table, but where the database has just done so; a foreign key that nobody enforces would leave half
    a person behind."""
    if erased[erasure.customer.name] != wanted:
        raise NotErased(f"{wanted} customers were to go, {erased[erasure.customer.name]} went")
    held = _held(connection, erasure)
    links = (link for part in erasure.tables for link in part.links if (link.table.name, link.name) not in held)
    for link in (erasure.customer.c.id, *links):
        if connection.execute(select(literal(1)).where(chosen(link)).limit(1)).first():
            raise NotErased(f"{link.table.name}.{link.name} still leads to a customer who was to go")


def _held(connection: Connection, erasure: ErasureMap) -> set[tuple[str, str]]:
    """Table and column of each link whose foreign key has been looked at when the customers are deleted. SQLite does not say."""
    if connection.dialect.name == "sqlite":
        return set()
    return {tuple(row) for row in connection.execute(text(_HELD), {"customer": erasure.customer.name})}
