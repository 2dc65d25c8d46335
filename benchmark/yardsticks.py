"""What the app is measured against: the raw set-based SQL, and a loop that deletes one customer after the other."""

import csv
import time
from pathlib import Path

from pysqlite3 import dbapi2 as pysqlite3
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.orm import Session

from purge.customers import search_index
from purge.extensions import prepare_sqlite
from purge.models import (
    Address,
    Customer,
    Device,
    EmailSent,
    NpsAnswer,
    Order,
    Referral,
    Reward,
    RewardStatus,
    ShareLink,
    Tag,
    TeamNote,
    TimelineEvent,
)

DELETED = (TimelineEvent, TeamNote, Tag, ShareLink, NpsAnswer, EmailSent, Device, Address)
GONE = "(SELECT id FROM gone)"


def raw_sql(database: Path, file: Path) -> float:
    """Seconds for a script by hand: no check of the file, no outcome for a row, one transaction."""
    keys = [(address,) for address in _addresses(file)]
    began = time.perf_counter()
    engine = _engine(database)
    connection = engine.raw_connection().driver_connection
    connection.execute("CREATE TEMP TABLE wanted (key TEXT)")
    connection.execute("CREATE TEMP TABLE gone (id INTEGER PRIMARY KEY)")
    connection.execute("BEGIN")
    connection.executemany("INSERT INTO wanted VALUES (?)", keys)
    connection.execute("INSERT OR IGNORE INTO gone SELECT id FROM customer JOIN wanted ON email_key = key")
    for table in DELETED:
        connection.execute(f"DELETE FROM {table.__tablename__} WHERE customer_id IN {GONE}")
    connection.execute(
        "UPDATE reward SET customer_id = NULL, coupon_code = NULL, status = CASE WHEN status IN ('pending', 'approved') "
        f"THEN 'cancelled' ELSE status END WHERE customer_id IN {GONE}"
    )
    for link in ("referrer_id", "friend_id"):
        connection.execute(f"UPDATE referral SET {link} = NULL WHERE {link} IN {GONE}")
    anonymous = "customer_id = NULL, order_number = NULL, coupon = NULL"
    connection.execute(f'UPDATE "order" SET {anonymous} WHERE customer_id IN {GONE}')
    connection.execute(f"DELETE FROM customer WHERE id IN {GONE}")
    connection.execute("COMMIT")
    seconds = time.perf_counter() - began
    engine.dispose()
    return seconds


def like(database: Path, term: str) -> float:
    """Seconds for the search that everybody writes first, over the columns that ours looks through."""
    columns = ("first_name", "surname", "email", "external_id")
    names = " OR ".join(f"{column} LIKE :term" for column in columns)
    links = "SELECT customer_id FROM share_link WHERE slug LIKE :term"
    engine = _engine(database)
    connection = engine.raw_connection().driver_connection
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        connection.execute(
            f"SELECT id FROM customer WHERE {names} UNION {links} LIMIT 50", {"term": f"%{term}%"}
        ).fetchall()
        seconds.append(time.perf_counter() - began)
    engine.dispose()
    return sorted(seconds)[2]


def one_by_one(database: Path, file: Path, customers: int) -> float:
    """Customers a second for a loop over ORM objects, a transaction each, on the first few of the file."""
    engine = _engine(database)
    addresses = _addresses(file)[:customers]
    began, purged = time.perf_counter(), 0
    for address in addresses:
        with Session(engine) as session, session.begin():
            for customer in session.scalars(select(Customer).where(Customer.email_key == address)):
                _purge(session, customer)
                purged += 1
    engine.dispose()
    return purged / (time.perf_counter() - began)


def _engine(database: Path) -> Engine:
    """With the app's own settings, so that what is compared is the way and not the settings."""
    engine = create_engine(f"sqlite:///{database}", module=pysqlite3)
    prepare_sqlite(engine)
    search_index.prepare_sqlite(engine)
    return engine


def _purge(session: Session, customer: Customer) -> None:
    for table in DELETED:
        for row in session.scalars(select(table).where(table.customer_id == customer.id)):
            session.delete(row)
    for order in session.scalars(select(Order).where(Order.customer_id == customer.id)):
        order.customer_id = order.order_number = order.coupon = None
    for reward in session.scalars(select(Reward).where(Reward.customer_id == customer.id)):
        reward.customer_id = reward.coupon_code = None
        if reward.status in (RewardStatus.PENDING, RewardStatus.APPROVED):
            reward.status = RewardStatus.CANCELLED
    for referral in session.scalars(select(Referral).where(Referral.referrer_id == customer.id)):
        referral.referrer_id = None
    for referral in session.scalars(select(Referral).where(Referral.friend_id == customer.id)):
        referral.friend_id = None
    session.flush()
    session.delete(customer)


def _addresses(file: Path) -> list[str]:
    with file.open(newline="", encoding="utf-8") as lines:
        return [row["Customer Email"].strip().lower() for row in csv.DictReader(lines)]
