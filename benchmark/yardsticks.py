"""What the app is measured against: the raw set-based SQL, a loop that deletes one customer after the other, and a job for each."""

import csv
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import redis
from rq import Queue
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from app import create_app
from jobs import redis_server
from purge.config import CHECKOUT
from purge.customers import search_index
from purge.extensions import db, insert_rows
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


@contextmanager
def installation(environ: Mapping[str, str]) -> Iterator[Engine]:
    """The engine of the app with these settings, so that what is compared is the way and not the settings."""
    with create_app(environ).app_context():
        yield db.engine
        db.session.remove()
        db.engine.dispose()


def raw_sql(environ: Mapping[str, str], file: Path) -> float:
    """Seconds for a script by hand: no check of the file, no outcome for a row, one transaction in one session."""
    keys = [(address,) for address in _addresses(file)]
    with installation(environ) as engine:
        began = time.perf_counter()
        with engine.begin() as connection, search_index.erasing(connection):
            run = connection.exec_driver_sql
            run("CREATE TEMP TABLE wanted (key TEXT)")
            run("CREATE TEMP TABLE gone (id BIGINT PRIMARY KEY)")
            insert_rows(connection, "wanted", ["key"], keys)
            run("INSERT INTO gone SELECT DISTINCT id FROM customer JOIN wanted ON email_key = key")
            run("ANALYZE gone")
            for table in DELETED:
                run(f"DELETE FROM {table.__tablename__} WHERE customer_id IN {GONE}")
            run(
                "UPDATE reward SET customer_id = NULL, coupon_code = NULL, status = CASE WHEN status IN ('pending', 'approved') "
                f"THEN 'cancelled' ELSE status END WHERE customer_id IN {GONE}"
            )
            for link in ("referrer_id", "friend_id"):
                run(f"UPDATE referral SET {link} = NULL WHERE {link} IN {GONE}")
            run(
                f'UPDATE "order" SET customer_id = NULL, order_number = NULL, coupon = NULL WHERE customer_id IN {GONE}'
            )
            run(f"DELETE FROM customer WHERE id IN {GONE}")
        return time.perf_counter() - began


def like(environ: Mapping[str, str], term: str) -> float:
    """Seconds for the search that everybody writes first, over the columns that ours looks through."""
    columns = ("first_name", "surname", "email", "external_id")
    names = " OR ".join(f"{column} LIKE :term" for column in columns)
    links = "SELECT customer_id FROM share_link WHERE slug LIKE :term"
    asked, seconds = text(f"SELECT id FROM customer WHERE {names} UNION {links} LIMIT 50"), []
    with installation(environ) as engine, engine.connect() as connection:
        for _ in range(5):
            began = time.perf_counter()
            connection.execute(asked, {"term": f"%{term}%"}).fetchall()
            seconds.append(time.perf_counter() - began)
    return sorted(seconds)[2]


def one_by_one(environ: Mapping[str, str], file: Path, customers: int) -> float:
    """Customers a second for a loop over ORM objects, a transaction each, on the first few of the file."""
    addresses = _addresses(file)[:customers]
    with installation(environ) as engine:
        began, purged = time.perf_counter(), 0
        for address in addresses:
            purged += purge_one(engine, address)
        return purged / (time.perf_counter() - began)


def a_job_each(environ: Mapping[str, str], file: Path, customers: int, folder: Path) -> float:
    """Customers a second for the same with a job of its own for each, and one worker."""
    addresses = _addresses(file)[:customers]
    server = redis_server.start(folder)
    try:
        queue = Queue("each", connection=redis.Redis.from_url(server.url))
        for address in addresses:
            queue.enqueue("benchmark.each.purge", address, result_ttl=0)
        command = [sys.executable, "-m", "benchmark.each", server.url]
        told = subprocess.run(command, cwd=CHECKOUT, env={**os.environ, **environ}, check=True, stdout=subprocess.PIPE)
        return customers / float(told.stdout)
    finally:
        server.stop()


def purge_one(engine: Engine, address: str) -> int:
    """Whoever has this address, in a transaction of their own; how many there were."""
    with Session(engine) as session, session.begin():
        found = session.scalars(select(Customer).where(Customer.email_key == address)).all()
        for customer in found:
            _purge(session, customer)
        return len(found)


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
