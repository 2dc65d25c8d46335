"""What the app is measured against: the raw set-based SQL, two loops that delete one customer after the other, and a job for each."""

import csv
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
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

LOOP, JOBS = 500, 100
Copied = Callable[[], AbstractContextManager[Mapping[str, str]]]  # the settings of a fresh copy of the installation
DELETED = (TimelineEvent, TeamNote, Tag, ShareLink, NpsAnswer, EmailSent, Device, Address)


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
            for statement in _statements("IN (SELECT id FROM gone)"):
                run(statement)
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


def singly(copied: Copied, file: Path, folder: Path, runs: int) -> dict[str, float]:
    """Customers a second, the medians, of each way to purge them one after the other."""
    rates = {"one_by_one": [], "object_by_object": [], "a_job_each": []}
    for _ in range(runs):
        for purge in (one_by_one, object_by_object):
            with copied() as environ:
                rates[purge.__name__].append(loop(environ, file, LOOP, purge))
        with copied() as environ:
            rates["a_job_each"].append(a_job_each(environ, file, JOBS, folder))
    return {way: statistics.median(measured) for way, measured in rates.items()}


def lines(singly: dict[str, float], ours: float, wanted: dict[str, str]) -> list[tuple[str, str, str]]:
    """The table's: what `singly` measured, and how many times that rate `ours` is."""
    names = {
        "one_by_one": f"a loop of one transaction a customer with the same statements ({LOOP} customers)",
        "object_by_object": f"such a loop over ORM objects ({LOOP} customers)",
        "a_job_each": f"an RQ job a customer with the same statements ({JOBS} customers)",
    }
    return [
        (
            names[way],
            f"{rate:,.0f} a second; one worker has {ours / rate:.1f} times its rate",
            wanted.get(way, ""),
        )
        for way, rate in singly.items()
    ]


def loop(environ: Mapping[str, str], file: Path, customers: int, purge: Callable[[Engine, str], int]) -> float:
    """Customers a second, a transaction each, on the first of the file."""
    addresses = _addresses(file)[:customers]
    with installation(environ) as engine:
        began, purged = time.perf_counter(), 0
        for address in addresses:
            purged += purge(engine, address)
        return purged / (time.perf_counter() - began)


def a_job_each(environ: Mapping[str, str], file: Path, customers: int, folder: Path) -> float:
    """Rows a second for the raw SQL's statements with a job of its own for each, and one worker."""
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


def one_by_one(engine: Engine, address: str) -> int:
    """Whoever has this address, by the raw SQL's statements in a transaction of their own; how many there were."""
    with engine.begin() as connection, search_index.erasing(connection):
        ids = connection.scalars(select(Customer.id).where(Customer.email_key == address)).all()
        for id in ids:
            for statement in _FOR_ONE:
                connection.execute(statement, {"id": id})
        return len(ids)


def object_by_object(engine: Engine, address: str) -> int:
    """The same over ORM objects, each row loaded and deleted, as an app is written first."""
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


def _statements(theirs: str) -> list[str]:
    """Everything of the customers whose id is `theirs`, a comparison."""
    cancelled = "status = CASE WHEN status IN ('pending', 'approved') THEN 'cancelled' ELSE status END"
    return [
        *(f"DELETE FROM {table.__tablename__} WHERE customer_id {theirs}" for table in DELETED),
        f"UPDATE reward SET customer_id = NULL, coupon_code = NULL, {cancelled} WHERE customer_id {theirs}",
        *(f"UPDATE referral SET {link} = NULL WHERE {link} {theirs}" for link in ("referrer_id", "friend_id")),
        f'UPDATE "order" SET customer_id = NULL, order_number = NULL, coupon = NULL WHERE customer_id {theirs}',
        f"DELETE FROM customer WHERE id {theirs}",
    ]


_FOR_ONE = [text(statement) for statement in _statements("= :id")]


def _addresses(file: Path) -> list[str]:
    with file.open(newline="", encoding="utf-8") as lines:
        return [row["Customer Email"].strip().lower() for row in csv.DictReader(lines)]
