"""Customers for the tests, with as much hanging off them as the models allow."""

from datetime import UTC, datetime
from decimal import Decimal
from itertools import count

from sqlalchemy import DateTime, Enum, Integer, Numeric, String, insert, select, text

from purge import email_address
from purge.extensions import UtcDateTime, db
from purge.models import Customer

_serial = count(1)


def add_customer(email: str | None = None, **values) -> int:
    """A customer in the database; the id."""
    email = email or f"person{next(_serial)}@people.example.com"
    key, problem = email_address.read(email)
    assert problem is None, problem
    row = {"email": email, "email_key": key, "created_at": datetime.now(UTC), "receives_emails": True, **values}
    return db.session.execute(insert(Customer.__table__).returning(Customer.id), row).scalar()


def refuse(act: str, table: str, condition: str = "true", silently: bool = False) -> None:
    """From now on the database refuses to DELETE or INSERT such rows (`old.id = 7`); silently, it acts as if it did not."""
    if db.engine.dialect.name == "sqlite":
        does = "SELECT RAISE(IGNORE)" if silently else "SELECT RAISE(ABORT, 'no')"
        statements = [f"CREATE TRIGGER refused BEFORE {act} ON {table} WHEN {condition} BEGIN {does}; END"]
    else:
        does = "RETURN NULL" if silently else "RAISE 'no' USING ERRCODE = 'check_violation'"
        statements = [
            f"CREATE FUNCTION refused() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does}; END $$",
            f"CREATE TRIGGER refused BEFORE {act} ON {table} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION refused()",
        ]
    for statement in statements:
        db.session.execute(text(statement))


def hang_everything_on(customer_id: int, erasure, mark: str) -> None:
    """One row in every table that can lead to a customer, through every such column, with `mark` in every text."""
    for part in erasure.tables:
        for link in part.links:
            row = {link.name: customer_id}
            for column in part.table.columns:
                if column.name not in row and not column.primary_key and not column.foreign_keys:
                    row[column.name] = _value(column, mark)
            db.session.execute(insert(part.table), row)


def everything(erasure) -> dict[str, list[tuple]]:
    """Every row of every table that the erasure map knows."""
    tables = [erasure.customer, *(part.table for part in erasure.tables)]
    return {
        table.name: [tuple(row) for row in db.session.execute(select(table).order_by(table.c.id))] for table in tables
    }


def _value(column, mark: str):
    kind = column.type
    if isinstance(kind, Enum):
        return kind.enums[0]
    if isinstance(kind, (UtcDateTime, DateTime)):
        return datetime(2024, 5, 17, tzinfo=UTC)
    if isinstance(kind, Numeric) and not isinstance(kind, Integer):
        return Decimal("12.50")
    if isinstance(kind, String):
        return f"{mark}-{column.name}"[: kind.length]
    return 7
